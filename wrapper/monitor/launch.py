"""Starting the shared monitor on demand, as a process of its own that outlives the worker that needed it first."""

from __future__ import annotations

import _socket
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

from wrapper.monitor.paths import DIRECTORY_VARIABLE, MonitorPaths, prepare
from wrapper.monitor.threads import original, sleep

_START_PATIENCE = 10.0


def is_served(paths: MonitorPaths) -> bool:
    """Whether some process listens on the control socket. A stopped monitor still does: the kernel accepts for it. Of one that is
    reached by TCP nothing is known before it answers."""
    if paths.url is not None:
        return True
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        probe.connect(str(paths.control))
    except (FileNotFoundError, ConnectionRefusedError, PermissionError):
        return False
    except BlockingIOError:
        return True  # its backlog is full: somebody is there
    finally:
        probe.close()
    return True


def ensure_monitor() -> None:
    """Start the shared monitor unless one runs. Raises `MonitorDirectoryError`, and `OSError` when it cannot be started."""
    paths = prepare()
    if not is_served(paths):
        start_monitor(paths)


def start_monitor(paths: MonitorPaths) -> bool:
    """Start a monitor unless another worker is doing so; return whether this call did. Raises `OSError` when it cannot, and
    `MonitorDirectoryError`.

    The child detaches itself (new session, closed descriptors) and exits at once when another monitor holds the election lock, so a
    needless start does no harm.
    """
    prepare(paths.directory)  # it may have been removed, like all that is old and lies in a temp directory
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
    # Not gevent's, which works on its own loop's thread alone.
    pid = original("os", "posix_spawn")(command[0], command, environment, file_actions=null, setsid=True)
    deadline = time.monotonic() + _START_PATIENCE
    while True:
        try:
            ended, status = original("os", "waitpid")(pid, os.WNOHANG)
        except ChildProcessError:
            return  # a server that collects all its children was faster; what came of it shows soon enough
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        sleep(0.005)
    if status:
        raise OSError(f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}")


def interpreter() -> str:
    """Return the Python that can import this package. Under uWSGI with a virtual environment `sys.executable` is the base
    Python (or
    uwsgi itself), so the environment's own comes first."""
    candidate = Path(sys.prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(candidate) if candidate.exists() else sys.executable
