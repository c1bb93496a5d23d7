"""Starting the shared monitor on demand, as a process of its own that outlives the worker that needed it first."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from pathlib import Path

from wrapper.monitor.paths import DIRECTORY_VARIABLE, MonitorPaths


def is_served(paths: MonitorPaths) -> bool:
    """Whether some process listens on the control socket. A stopped monitor still does: the kernel accepts for it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(paths.control))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True  # its backlog is full: somebody is there
    return True


def start_monitor(paths: MonitorPaths) -> bool:
    """Start a monitor unless another worker is doing so; return whether this call did. Raises `OSError` when it cannot.

    The child detaches itself (new session, closed descriptors) and exits at once when another monitor holds the election lock, so a
    needless start does no harm.
    """
    import subprocess  # rarely needed, and not small

    with open(paths.starter_lock, "ab") as starter:
        try:
            fcntl.flock(starter, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        # The short-lived first process is reaped here; the monitor itself is nobody's child.
        subprocess.run(
            [interpreter(), "-I", "-m", "monitor_service", "run", "--on-demand", "--detach"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            start_new_session=True,
            cwd="/",
            env={**os.environ, DIRECTORY_VARIABLE: str(paths.directory)},
            timeout=10,
            check=True,
        )
    return True


def interpreter() -> str:
    """Return the Python that can import this package. Under uWSGI with a virtual environment `sys.executable` is the base
    Python (or
    uwsgi itself), so the environment's own comes first."""
    candidate = Path(sys.prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return str(candidate) if candidate.exists() else sys.executable
