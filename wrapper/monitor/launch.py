"""Starting the shared monitor on demand, as a process of its own that outlives the worker that needed it first."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
from pathlib import Path

from wrapper.monitor.paths import DIRECTORY_VARIABLE, MonitorPaths

_START_PATIENCE = 10.0


def is_served(paths: MonitorPaths) -> bool:
    """Whether some process listens on the control socket. A stopped monitor still does: the kernel accepts for it. Of one that is
    reached by TCP nothing is known before it answers."""
    if paths.url is not None:
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(paths.control))
        except (FileNotFoundError, ConnectionRefusedError, PermissionError):
            return False
        except BlockingIOError:
            return True  # its backlog is full: somebody is there
    return True


def start_monitor(paths: MonitorPaths) -> bool:
    """Start a monitor unless another worker is doing so; return whether this call did. Raises `OSError` when it cannot.

    The child detaches itself (new session, closed descriptors) and exits at once when another monitor holds the election lock, so a
    needless start does no harm.
    """
    with open(paths.starter_lock, "ab") as starter:
        try:
            fcntl.flock(starter, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            _run([interpreter(), "-I", "-m", "monitor_service", "run", "--on-demand", "--detach"], paths)
        finally:
            # Not left to close(): a process that is forked meanwhile has the descriptor too.
            fcntl.flock(starter, fcntl.LOCK_UN)
    return True


def _run(command: list[str], paths: MonitorPaths) -> None:
    """Run the first, short-lived process and reap it; the monitor itself is nobody's child.

    Not by subprocess: that waits for a pipe to close, and a process that is forked meanwhile keeps it open for as long as it lives.
    """
    environment = {**os.environ, DIRECTORY_VARIABLE: str(paths.directory)}
    null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    pid = os.posix_spawn(command[0], command, environment, file_actions=null, setsid=True)
    deadline = time.monotonic() + _START_PATIENCE
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    if status:
        raise OSError(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")


def interpreter() -> str:
    """Return the Python that can import this package. Under uWSGI with a virtual environment `sys.executable` is the base
    Python (or
    uwsgi itself), so the environment's own comes first."""
    candidate = Path(sys.prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(candidate) if candidate.exists() else sys.executable
