"""The command line: run · status · events · stop · watch.

Kept light: `run --detach` leaves its starter before anything heavy is imported.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wrapper.monitor.paths import MonitorPaths

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_TROUBLE = 1
EXIT_USAGE = 2
EXIT_NO_MONITOR = 3

# Descriptors wanted: one per host and per worker, with room; the soft limit is often 1024.
WANTED_DESCRIPTORS = 65536
# Seconds between looks at a lock that another monitor holds, and between requests to it to hand over.
LOCK_POLL = 0.1
ASK_TO_DRAIN_AGAIN = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.command == "run" and options.detach:
        _leave_starter()
    from wrapper.monitor.paths import MonitorDirectoryError

    commands = {"run": _run, "status": _status, "events": _events, "stop": _stop, "watch": _watch}
    try:
        return commands[options.command](options)
    except MonitorDirectoryError as error:
        print(f"aws-shared-monitor: {error}", file=sys.stderr)
        return EXIT_TROUBLE
    except KeyboardInterrupt:
        return EXIT_OK
    except BrokenPipeError:
        # The reader of our output has gone; leave without a second error at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aws-shared-monitor", description="The shared monitor of the AWS databases that this host's workers use."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    directory = argparse.ArgumentParser(add_help=False)
    directory.add_argument(
        "--directory", type=Path, help="the monitor's directory (default: $AWS_WRAPPER_MONITOR_DIR, else per user)"
    )

    run = commands.add_parser("run", parents=[directory], help="run the monitor in the foreground")
    run.add_argument("--on-demand", action="store_true", help="end when nobody needs it; exit at once if one runs already")
    run.add_argument("--detach", action="store_true", help="leave the starting process and its terminal; output goes to a file")
    run.add_argument("--linger", type=_seconds, default=60.0, metavar="S", help="on demand: stay S seconds without leases (60)")
    run.add_argument(
        "--warm", type=_seconds, default=300.0, metavar="S", help="watch a cluster S seconds after its last lease (300)"
    )
    run.add_argument("--lease", type=_seconds, default=None, metavar="S", help="forget a client S seconds after its last word (15)")
    run.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"), help="what to log (info)")

    status = commands.add_parser("status", parents=[directory], help="show what a running monitor knows")
    status.add_argument("--json", action="store_true", help="the whole document, for scripts")
    events = commands.add_parser("events", parents=[directory], help="follow transitions as they happen")
    events.add_argument("--json", action="store_true", help="one JSON object per line")
    events.add_argument("--since-start", action="store_true", help="begin with what the monitor still remembers")
    commands.add_parser("stop", parents=[directory], help="stop a running monitor")
    watch = commands.add_parser("watch", parents=[directory], help="have a cluster watched until Ctrl-C")
    watch.add_argument("dsn", help="any endpoint of the cluster: libpq connection text, or mysql://user:password@host:port")
    watch.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="seconds between probes (1)")
    watch.add_argument(
        "--pattern", default=None, help="instance endpoints with '?' for the name, for IP addresses and custom domains"
    )
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


# -- run -----------------------------------------------------------------------------------------------------------------------


def _leave_starter() -> None:
    """Become a daemon: another session, no terminal, no descriptor of the starter's."""
    if os.fork():
        os._exit(EXIT_OK)
    os.setsid()
    if os.fork():
        os._exit(EXIT_OK)
    os.chdir("/")
    os.closerange(3, 4096)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)


def _run(options: argparse.Namespace) -> int:
    from monitor_service.election import Election
    from wrapper.monitor.paths import prepare

    os.umask(0o077)
    paths = prepare(options.directory)
    if options.detach:
        log = os.open(paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    _forget_libpq_environment()
    election = Election(paths)
    if not election.try_acquire():
        if options.on_demand:
            logger.info("a monitor runs already in %s", paths.directory)
            return EXIT_OK
        _wait_for_lock(paths, election)
    _raise_descriptor_limit()
    from monitor_service.service import Options, serve
    from wrapper.monitor.messages import LEASE_SECONDS

    return serve(
        paths,
        election,
        Options(on_demand=options.on_demand, linger=options.linger, warm=options.warm, lease=options.lease or LEASE_SECONDS),
    )


def _wait_for_lock(paths: MonitorPaths, election: object) -> None:
    """Ask an on-demand monitor to hand over; wait for an explicit one, however long: a supervisor would only restart us."""
    from monitor_service.client import MonitorConnection
    from monitor_service.election import Election
    from wrapper.monitor.messages import Ok, Refused, StopRequest

    assert isinstance(election, Election)
    logger.info("another monitor runs in %s: waiting for its end", paths.directory)
    ask_at = 0.0
    while not election.try_acquire():
        if time.monotonic() >= ask_at:
            ask_at = time.monotonic() + ASK_TO_DRAIN_AGAIN
            try:
                with MonitorConnection(paths) as connection:
                    answer = connection.ask(StopRequest(drain=True), timeout=1.0)
            except TimeoutError:
                continue
            if isinstance(answer, Ok):
                logger.info("it hands over")
            elif isinstance(answer, Refused):
                ask_at = float("inf")
                logger.info("it stays: %s", answer.reason)
        time.sleep(LOCK_POLL)


def _forget_libpq_environment() -> None:
    """Probes log in with what workers offer. The environment belongs to whoever started the monitor."""
    for name in list(os.environ):
        if name.startswith("PG"):
            del os.environ[name]


def _raise_descriptor_limit() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


# -- the others ----------------------------------------------------------------------------------------------------------------


def _status(options: argparse.Namespace) -> int:
    import json

    from monitor_service.report import render

    document = _document(options)
    if document is None:
        return EXIT_NO_MONITOR
    print(json.dumps(document, indent=2) if options.json else render(document))
    return EXIT_OK


def _events(options: argparse.Namespace) -> int:
    from monitor_service.report import event_line

    document = _document(options)
    if document is None:
        return EXIT_NO_MONITOR
    import msgspec

    from monitor_service.client import MonitorConnection
    from wrapper.monitor.messages import STALE_AFTER, Journal
    from wrapper.monitor.paths import MonitorPaths

    seen = max((entry["at"] for entry in document["journal"]), default=0.0)
    if options.since_start:
        for entry in document["journal"]:
            print(event_line(msgspec.convert(entry, Journal), as_json=options.json), flush=True)
    with MonitorConnection(MonitorPaths(Path(document["directory"]))) as connection:
        for event in connection.journal(idle=STALE_AFTER):
            if event is None:
                if _find(options) is None:
                    return EXIT_NO_MONITOR
            elif event.at > seen:
                print(event_line(event, as_json=options.json), flush=True)
    return EXIT_OK


def _stop(options: argparse.Namespace) -> int:
    from monitor_service.client import MonitorConnection
    from monitor_service.election import is_held
    from wrapper.monitor.messages import Ok, StopRequest

    paths = _find(options)
    if paths is None:
        return EXIT_NO_MONITOR
    try:
        with MonitorConnection(paths) as connection:
            answer = connection.ask(StopRequest())
    except TimeoutError as error:
        print(f"aws-shared-monitor: {error}", file=sys.stderr)
        return EXIT_TROUBLE
    deadline = time.monotonic() + 5.0
    while isinstance(answer, Ok) and is_held(paths) and time.monotonic() < deadline:
        time.sleep(0.02)
    if is_held(paths):
        print("aws-shared-monitor: the monitor was asked to stop and still runs", file=sys.stderr)
        return EXIT_TROUBLE
    print("stopped")
    return EXIT_OK


def _watch(options: argparse.Namespace) -> int:
    from monitor_service.watch import watch

    paths = _find(options)
    if paths is None:
        return EXIT_NO_MONITOR
    return watch(paths, options.dsn, options.interval, options.pattern, lambda line: print(line, flush=True))


def _find(options: argparse.Namespace) -> MonitorPaths | None:
    from monitor_service.client import NoMonitorError, find

    try:
        return find(options.directory)
    except NoMonitorError as error:
        print(f"aws-shared-monitor: {error}", file=sys.stderr)
        return None


def _document(options: argparse.Namespace) -> dict[str, Any] | None:
    from monitor_service.client import MonitorConnection
    from wrapper.monitor.messages import Status, StatusRequest

    paths = _find(options)
    if paths is None:
        return None
    try:
        with MonitorConnection(paths) as connection:
            answer = connection.ask(StatusRequest())
    except TimeoutError as error:
        print(f"aws-shared-monitor: {error}", file=sys.stderr)
        return None
    return answer.document if isinstance(answer, Status) else None
