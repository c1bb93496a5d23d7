"""Where workers and monitor would meet, and who is there."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monitor_service.checks.finding import NOTE, OK, PROBLEM, WARNING, Finding
from monitor_service.client import STATUS_PATIENCE, MonitorConnection
from monitor_service.election import is_held
from wrapper.monitor.launch import interpreter
from wrapper.monitor.messages import Status, StatusRequest
from wrapper.monitor.paths import (
    MAX_SOCKET_PATH,
    OWNER_VARIABLE,
    URL_VARIABLE,
    MonitorDirectoryError,
    MonitorPaths,
    candidates,
    locate,
    trouble_with,
)
from wrapper.version import __version__

DIRECTORY = "directory"
MONITOR = "monitor"
# Seconds: what two readings of one clock may differ by, the time of the answer included.
CLOCK_TOLERANCE = 1.0


def directories(chosen: Path | None) -> Iterator[Finding]:
    """Tell of every directory that the rules can lead to, the one in force first."""
    if chosen is None and os.environ.get(URL_VARIABLE):
        try:
            paths = locate()
        except MonitorDirectoryError as error:
            yield Finding(DIRECTORY, PROBLEM, str(error))
        else:
            yield Finding(DIRECTORY, OK, f"none: the monitor is reached by {paths.url}, with the keys in {paths.keys}")
        return
    in_force, *others = [chosen] if chosen is not None else candidates()
    yield _directory(in_force, "in force")
    for directory in others:
        if is_held(MonitorPaths(directory)):
            text = f"{directory} has a monitor of its own: processes with another environment use that one"
            yield Finding(DIRECTORY, WARNING, text, {"path": str(directory), "in_force": False})
        else:
            yield Finding(DIRECTORY, NOTE, f"{directory} would be next", {"path": str(directory), "in_force": False})


def _directory(directory: Path, what: str) -> Finding:
    paths = MonitorPaths(directory)
    facts: dict[str, Any] = {"path": str(directory), "in_force": True, "socket_path_bytes": paths.longest}
    if not directory.is_absolute() or paths.longest > MAX_SOCKET_PATH:
        text = f"{directory} ({what}): socket path of {paths.longest} bytes; absolute and at most {MAX_SOCKET_PATH} are possible"
        return Finding(DIRECTORY, PROBLEM, text, facts)
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return Finding(DIRECTORY, OK, f"{directory} ({what}) is made by the first process that needs it", facts)
    except OSError as error:
        return Finding(DIRECTORY, PROBLEM, f"{directory} ({what}): {error.strerror}", facts)
    mode = stat.S_IMODE(found.st_mode)
    facts |= {"owner": found.st_uid, "mode": f"{mode:04o}"}
    text = f"{directory} ({what}): uid {found.st_uid}, mode {mode:04o}, socket path of {paths.longest} bytes"
    trouble = _trouble(directory, found)
    if trouble is not None:
        return Finding(DIRECTORY, PROBLEM, f"{text}: {trouble}", facts)
    doubtful = open_parent(directory)
    if doubtful is not None:
        return Finding(
            DIRECTORY, WARNING, f"{text}: others can write to {doubtful} and put a directory of theirs in its place", facts
        )
    return Finding(DIRECTORY, OK, text, facts)


def _trouble(directory: Path, found: os.stat_result) -> str | None:
    if not os.environ.get(OWNER_VARIABLE):
        return trouble_with(found, os.getuid(), shared=bool(found.st_mode & stat.S_ISGID))
    try:
        locate()
    except MonitorDirectoryError as error:
        return str(error)
    return None


def open_parent(directory: Path) -> Path | None:
    """Return the parent directory in which others may replace entries: writable for them, and not sticky."""
    for parent in directory.parents:
        try:
            mode = parent.stat().st_mode
        except OSError:
            return None
        if mode & 0o022 and not mode & stat.S_ISVTX:
            return parent
    return None


def running(chosen: Path | None) -> Iterator[Finding]:
    """Tell of the monitor in the directory in force."""
    if chosen is None and os.environ.get(URL_VARIABLE):
        try:
            paths = locate()
        except MonitorDirectoryError:
            return
    else:
        paths = MonitorPaths(chosen if chosen is not None else candidates()[0])
        if not is_held(paths):
            text = f"none runs; 'aws-shared-monitor run' starts one, and so does the first connection, with {interpreter()}"
            yield Finding(MONITOR, OK, text, {"running": False})
            return
        yield from _other_versions(paths)
    asked = time.monotonic()
    try:
        with MonitorConnection(paths) as connection:
            answer = connection.ask(StatusRequest(), STATUS_PATIENCE)
    except TimeoutError as error:
        yield Finding(MONITOR, PROBLEM, str(error), {"running": True})
        return
    if isinstance(answer, Status):
        yield from _monitor(answer.document, asked)


def _other_versions(paths: MonitorPaths) -> Iterator[Finding]:
    for lock in sorted(paths.directory.glob("monitor-*.lock")):
        if lock != paths.lock:
            text = f"{lock.name} is of a monitor that speaks another version of the protocol: both can run side by side"
            yield Finding(MONITOR, NOTE, text, {"lock": str(lock)})


def _monitor(document: dict[str, Any], asked: float) -> Iterator[Finding]:
    facts = {name: document.get(name) for name in ("version", "pid", "epoch", "mode", "uptime", "draining", "shared")}
    text = f"pid {document['pid']}, version {document['version']}, {document['mode']}, up {document['uptime']:.0f} s"
    yield Finding(MONITOR, OK, text, {"running": True, **facts})
    if document["version"] != __version__:
        text = f"it runs version {document['version']}, here is {__version__}: 'aws-shared-monitor run --take-over' replaces it"
        yield Finding(MONITOR, NOTE, text)
    if document.get("draining"):
        yield Finding(MONITOR, WARNING, "it is draining: new processes are refused until another one takes over")
    if document["loop"]["pauses"]:
        text = f"its loop stood still {document['loop']['pauses']} times, {document['loop']['longest_lag']:.1f} s at the longest"
        yield Finding(MONITOR, WARNING, f"{text}: it was stopped, or this machine is overloaded")
    refused = {name: number for name, number in document["counters"].items() if name.startswith("refused ")}
    if refused:
        said = ", ".join(f"{name.partition(' ')[2]} {number}" for name, number in sorted(refused.items()))
        yield Finding(MONITOR, WARNING, f"it refused: {said}", {"refused": refused})
    theirs = document.get("monotonic")
    if theirs is not None and not asked - CLOCK_TOLERANCE <= theirs <= time.monotonic() + CLOCK_TOLERANCE:
        text = "its monotonic clock is not ours: it runs on another machine or in another time namespace; its news looks stale"
        yield Finding(MONITOR, PROBLEM, text)
