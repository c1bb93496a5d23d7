"""The command line: run · status · events · watch · doctor · drain · stop · keys.

Kept light: `run --detach` leaves its starter before anything heavy is imported.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from wrapper.version import __version__

EXIT_OK = 0
EXIT_TROUBLE = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    options = _parse(arguments)
    detach = options.command == "run" and options.detach
    if detach and options.on_demand:
        _detach()
    from wrapper.monitor.curve import KeyFileError
    from wrapper.monitor.paths import MonitorDirectoryError, prepare

    try:
        if detach and not options.on_demand:
            # While whoever typed this can still be told. A worker that starts a monitor has looked by itself.
            prepare(options.directory, group=options.group)
            _detach()
        return _command(options.command)(options)
    except (MonitorDirectoryError, KeyFileError) as error:
        print(f"aws-shared-monitor: {error}", file=sys.stderr)
        return EXIT_TROUBLE
    except KeyboardInterrupt:
        return EXIT_OK
    except BrokenPipeError:
        # The reader of our output has gone; leave without a second error at interpreter exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK


def _detach() -> None:
    from monitor_service.process import become_daemon

    become_daemon()


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    if name == "run":
        from monitor_service.run import run

        return run
    from monitor_service import commands

    found: Callable[[argparse.Namespace], int] = getattr(commands, name)
    return found


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options; exit with status 2 and say why when they are not as they should be."""
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"{' '.join(unknown)!r} is not understood: see aws-shared-monitor {options.command} --help")
    if options.command == "run":
        # What would be passed over in silence is a mistake: somebody meant something by it.
        if options.linger is not None and not options.on_demand:
            parser.error("--linger is for --on-demand: a monitor that was started otherwise stays until it is stopped")
        if options.keys is not None and options.listen is None:
            parser.error("--keys is for --listen tcp://HOST:PORT: processes of this machine need none")
        if options.take_over and options.on_demand:
            parser.error("--take-over and --on-demand exclude each other: one on demand leaves when another runs")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aws-shared-monitor",
        description="The shared monitor of the AWS databases that this host's workers use.",
        epilog="'aws-shared-monitor COMMAND --help' shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Options are written out: what is short for one today may be short for two tomorrow.
    add = partial(commands.add_parser, allow_abbrev=False)
    directory = argparse.ArgumentParser(add_help=False)
    directory.add_argument(
        "--directory",
        type=_directory,
        metavar="D",
        help="the monitor's directory (default: $AWS_WRAPPER_MONITOR_DIR, else one of this user's)",
    )
    _add_run(add("run", parents=[directory], help="run the monitor in the foreground"))
    status = add("status", parents=[directory], help="show what a running monitor knows")
    status.add_argument("--json", action="store_true", help="the whole document, for scripts")
    events = add("events", parents=[directory], help="follow transitions as they happen")
    events.add_argument("--json", action="store_true", help="one JSON object per line")
    events.add_argument("--since-start", action="store_true", help="begin with what the monitor still remembers")
    watch = add("watch", parents=[directory], help="have a cluster watched until Ctrl-C")
    watch.add_argument("dsn", help="any endpoint of the cluster: libpq connection text, or mysql://user:password@host:port")
    watch.add_argument("--interval", type=_seconds, default=1.0, metavar="S", help="seconds between probes (1)")
    watch.add_argument(
        "--pattern", default=None, help="instance endpoints with '?' for the name, for IP addresses and custom domains"
    )
    doctor = add("doctor", parents=[directory], help="show what would be used, why, and what is wrong with it")
    doctor.add_argument("dsn", nargs="?", help="connect to this endpoint, too, as 'watch' does, and tell what it is")
    doctor.add_argument("--json", action="store_true", help="one JSON document, for scripts")
    drain = add("drain", parents=[directory], help="have a monitor serve nobody new and end when it is free")
    drain.add_argument("--no-wait", action="store_true", help="do not wait for its end")
    add("stop", parents=[directory], help="stop a running monitor")
    keys = add("keys", help="make the keys by which a monitor is reached over TCP")
    keys.add_argument("keys", type=Path, metavar="DIR", help="the monitor's key directory; made if it is not there")
    keys.add_argument("clients", nargs="*", metavar="NAME", help="clients to admit")
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("--on-demand", action="store_true", help="end when nobody needs it; exit at once if one runs already")
    run.add_argument("--detach", action="store_true", help="leave the starting process and its terminal; output goes to a file")
    run.add_argument("--take-over", action="store_true", help="have the monitor that runs hand over, however it was started")
    run.add_argument("--linger", type=_seconds, default=None, metavar="S", help="on demand: stay S seconds without leases (60)")
    run.add_argument(
        "--warm", type=_seconds, default=300.0, metavar="S", help="watch a cluster S seconds after its last lease (300)"
    )
    run.add_argument("--lease", type=_seconds, default=None, metavar="S", help="forget a client S seconds after its last word (15)")
    run.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"), help="what to log (info)")
    run.add_argument("--log-format", default="text", choices=("text", "json"), help="lines of text or JSON objects (text)")
    shared = run.add_argument_group("for others than this user's processes")
    shared.add_argument("--group", type=_group_id, metavar="GROUP", help="let the members of this group (name or gid) in")
    shared.add_argument(
        "--listen", metavar="tcp://HOST:PORT", help="serve requests here, too, and events one port higher; needs --keys"
    )
    shared.add_argument("--keys", type=Path, metavar="DIR", help="key directory made by 'aws-shared-monitor keys'")
    limits = run.add_argument_group("limits; what goes over one is refused, and counted in the status")
    limits.add_argument("--max-clients", type=_number, default=10_000, metavar="N", help="clients (10000)")
    limits.add_argument("--max-clusters", type=_number, default=500, metavar="N", help="clusters (500)")
    limits.add_argument("--max-watches", type=_number, default=64, metavar="N", help="watches of one client (64)")
    limits.add_argument("--max-hosts", type=_number, default=256, metavar="N", help="hosts that one watch may name (256)")
    limits.add_argument("--max-request", type=_number, default=256 * 1024, metavar="N", help="bytes of one request (262144)")
    run.add_argument(
        "--dumpable", action="store_true", help="allow debuggers and core files, for looking for faults: they show login values"
    )


def _directory(text: str) -> Path:
    return Path(text).absolute()


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _number(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _group_id(text: str) -> int:
    import grp

    if text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is no group of this machine; give a name or a gid") from None
