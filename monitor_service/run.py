"""`run`: take the directory, wait for whoever holds it, become the monitor."""

from __future__ import annotations

import argparse
import logging
import os
import time

from monitor_service.election import Election
from wrapper.monitor.paths import MonitorDirectoryError, MonitorPaths, events_url, prepare

logger = logging.getLogger(__name__)

EXIT_OK = 0
# Seconds between looks at a lock that another monitor holds, the same once it has agreed to hand over, and between requests to.
LOCK_POLL = 0.1
HANDING_OVER_POLL = 0.005
ASK_AGAIN = 2.0
# Seconds that an on-demand monitor stays without leases, unless --linger says otherwise.
LINGER_SECONDS = 60.0


def run(options: argparse.Namespace) -> int:
    """Serve in the foreground, or as a daemon with `--detach` (which the caller has made us already). Returns the exit code."""
    from monitor_service import logs, process, systemd

    os.umask(0o077)
    # Whoever starts one on demand has made the directory. When it is gone, they are as well: nobody would ever ask this monitor.
    paths = prepare(options.directory, group=options.group, make=not options.on_demand)
    if options.detach:
        log = os.open(paths.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
    logs.configure(options.log_level, options.log_format)
    if options.on_demand:
        systemd.forget()
    if not options.dumpable:
        process.keep_memory_private()
    process.forget_libpq_environment()
    process.raise_descriptor_limit()
    election = Election(paths)
    if options.on_demand and not election.try_acquire():
        logger.info("a monitor runs already in %s", paths.directory)
        return EXIT_OK
    # Loaded before the wait: whoever hands over leaves as short a gap as possible.
    from monitor_service.keys import check_listening
    from monitor_service.options import Limits, Options
    from monitor_service.service import serve

    if options.listen is not None:
        events_url(options.listen, "--listen")
        trouble = check_listening(options.listen, options.keys)
        if trouble is not None:
            raise MonitorDirectoryError(trouble)
    if not options.on_demand and not election.try_acquire():
        _wait_for_lock(paths, election, take_over=options.take_over)
    from wrapper.monitor.messages import LEASE_SECONDS

    clients = min(options.max_clients, process.most_clients(process.descriptor_limit()))
    if clients < options.max_clients:
        logger.info("%d descriptors (ulimit -n) leave room for %d clients", process.descriptor_limit(), clients)
    limits = Limits(clients, options.max_clusters, options.max_watches, options.max_hosts, options.max_request)
    return serve(
        paths,
        election,
        Options(
            on_demand=options.on_demand,
            linger=options.linger or LINGER_SECONDS,
            warm=options.warm,
            lease=options.lease or LEASE_SECONDS,
            group=options.group,
            listen=options.listen,
            keys=options.keys,
            limits=limits,
        ),
    )


def _wait_for_lock(paths: MonitorPaths, election: Election, *, take_over: bool) -> None:
    """Ask an on-demand monitor to hand over, and with `take_over` any; wait for another one, however long: a supervisor would only
    restart us."""
    from monitor_service import systemd

    logger.info("another monitor runs in %s: waiting for its end", paths.directory)
    # Whoever waits is as ready as it will be: systemd shall not time it out.
    systemd.notify("READY=1", "STATUS=waiting for the monitor that runs to end")
    ask_at = 0.0
    pause = LOCK_POLL
    refusal = ""
    while not election.try_acquire():
        now = time.monotonic()
        if now >= ask_at:
            ask_at = now + ASK_AGAIN
            reason = _ask_to_hand_over(paths, take_over=take_over)
            pause = HANDING_OVER_POLL if reason == "" else LOCK_POLL
            if reason == "":
                logger.info("it hands over")
            elif reason is not None and reason != refusal:
                refusal = reason
                logger.info("it stays: %s", reason)
        systemd.notify("WATCHDOG=1")
        time.sleep(pause)


def _ask_to_hand_over(paths: MonitorPaths, *, take_over: bool) -> str | None:
    """Return why the monitor does not hand over: empty when it does, None when it does not say."""
    from monitor_service.client import MonitorConnection
    from wrapper.monitor.messages import DrainRequest, Ok, Refused, StopRequest

    try:
        with MonitorConnection(paths) as connection:
            if take_over:
                connection.ask(DrainRequest(), timeout=1.0)
            answer = connection.ask(StopRequest(drain=True), timeout=1.0)
    except TimeoutError as error:
        return str(error)
    if isinstance(answer, Ok):
        return ""
    return answer.reason if isinstance(answer, Refused) else None
