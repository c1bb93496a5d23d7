"""The commands that ask a running monitor, or look at what there is: each takes the parsed options and returns the exit code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import msgspec

from monitor_service.client import STATUS_PATIENCE, MonitorConnection, NoMonitorError, find
from monitor_service.report import event_line, render
from wrapper.monitor.messages import STALE_AFTER, DrainRequest, Journal, Ok, Refused, Status, StatusRequest, StopRequest
from wrapper.monitor.paths import MonitorPaths

EXIT_OK = 0
EXIT_TROUBLE = 1
EXIT_NO_MONITOR = 3

# Seconds: what a stopped monitor may take to end, and between looks at whether it has.
STOP_PATIENCE = 5.0
LOOK = 0.02


def status(options: argparse.Namespace) -> int:
    """Print the status document."""
    document = _document(_find(options))
    if document is None:
        return EXIT_NO_MONITOR
    print(json.dumps(document, indent=2) if options.json else render(document))
    return EXIT_OK


def events(options: argparse.Namespace) -> int:
    """Print transitions until interrupted, or until the monitor has ended."""
    paths = _find(options)
    if paths is None:
        return EXIT_NO_MONITOR
    with MonitorConnection(paths) as connection:
        try:
            # Subscribed before what was is asked for: nothing is lost in between.
            connection.subscribe()
            answer = connection.ask(StatusRequest(), STATUS_PATIENCE)
        except TimeoutError as error:
            _complain(str(error))
            return EXIT_NO_MONITOR
        entries = answer.document["journal"] if isinstance(answer, Status) else []
        seen = max((entry["at"] for entry in entries), default=0.0)
        if options.since_start:
            for entry in entries:
                print(event_line(msgspec.convert(entry, Journal), as_json=options.json), flush=True)
        for event in connection.journal(idle=STALE_AFTER):
            if event is None:
                if _find(options) is None:
                    return EXIT_NO_MONITOR
            elif event.at > seen:
                print(event_line(event, as_json=options.json), flush=True)
    return EXIT_OK


def stop(options: argparse.Namespace) -> int:
    """End the monitor and wait for it."""
    return _end(_find(options, elsewhere=False), StopRequest(), patience=STOP_PATIENCE)


def drain(options: argparse.Namespace) -> int:
    """Have the monitor end when its clients have gone; wait for that, however long, unless told not to."""
    paths = _find(options, elsewhere=False)
    document = _document(paths)
    if document is None:
        return EXIT_NO_MONITOR
    print(f"draining; clients left: {len(document['leases'])}", flush=True)
    return _end(paths, DrainRequest(), patience=0.0 if options.no_wait else None)


def watch(options: argparse.Namespace) -> int:
    """Have a cluster watched, and print its transitions."""
    from monitor_service.watch import watch

    paths = _find(options)
    if paths is None:
        return EXIT_NO_MONITOR
    try:
        return watch(paths, options.dsn, options.interval, options.pattern, lambda line: print(line, flush=True))
    except TimeoutError as error:
        return _complain(str(error))


def doctor(options: argparse.Namespace) -> int:
    """Print what would be used and what is wrong with it."""
    from monitor_service.doctor import as_document, as_text, examine, has_problems

    findings = examine(options.directory, options.dsn)
    print(json.dumps(as_document(findings), indent=2) if options.json else as_text(findings))
    return EXIT_TROUBLE if has_problems(findings) else EXIT_OK


def keys(options: argparse.Namespace) -> int:
    """Make keys."""
    from monitor_service.keys import make_keys

    for sentence in make_keys(options.keys, options.clients) or ["nothing to do: the monitor has its keys"]:
        print(sentence)
    return EXIT_OK


def _end(paths: MonitorPaths | None, request: StopRequest | DrainRequest, patience: float | None) -> int:
    """Send the request and wait for the process that answered to end: `patience` seconds, None for ever."""
    if paths is None:
        return EXIT_NO_MONITOR
    epoch = _epoch(paths)
    try:
        with MonitorConnection(paths) as connection:
            answer = connection.ask(request)
    except TimeoutError as error:
        return _complain(str(error))
    if not isinstance(answer, Ok):
        return _complain(answer.reason if isinstance(answer, Refused) else f"unexpected answer {type(answer).__name__}")
    if patience == 0.0:
        return EXIT_OK
    deadline = time.monotonic() + patience if patience is not None else float("inf")
    while _runs(paths, epoch):
        if time.monotonic() > deadline:
            return _complain("the monitor was asked to end and still runs")
        time.sleep(LOOK)
    print("stopped")
    return EXIT_OK


def _runs(paths: MonitorPaths, epoch: str) -> bool:
    """Whether the monitor of that epoch still holds the lock: a successor may have it by now."""
    from monitor_service.election import is_held

    return is_held(paths) and _epoch(paths) == epoch


def _epoch(paths: MonitorPaths) -> str:
    return paths.lock.read_text() if paths.url is None else ""


def _complain(text: str) -> int:
    print(f"aws-shared-monitor: {text}", file=sys.stderr)
    return EXIT_TROUBLE


def _find(options: argparse.Namespace, *, elsewhere: bool = True) -> MonitorPaths | None:
    """`elsewhere`: as in `find`; for what only looks."""
    try:
        return find(options.directory, elsewhere=elsewhere)
    except NoMonitorError as error:
        _complain(str(error))
        return None


def _document(paths: MonitorPaths | None) -> dict[str, Any] | None:
    if paths is None:
        return None
    try:
        with MonitorConnection(paths) as connection:
            answer = connection.ask(StatusRequest(), STATUS_PATIENCE)
    except TimeoutError as error:
        _complain(str(error))
        return None
    return answer.document if isinstance(answer, Status) else None
