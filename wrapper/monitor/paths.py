"""Where a monitor and its workers meet: one directory per user, checked before anything in it is trusted.

The directory comes from `$AWS_WRAPPER_MONITOR_DIR`, else `$XDG_RUNTIME_DIR`, else a per-uid folder under the temp directory. It
holds the two sockets, the election lock and the starter's lock. The protocol's major version is part of every name, so two versions
run side by side.
"""

from __future__ import annotations

import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .messages import PROTOCOL_MAJOR

DIRECTORY_VARIABLE = "AWS_WRAPPER_MONITOR_DIR"
# sizeof(sockaddr_un.sun_path) is 108 on Linux, one byte of it the terminating zero.
MAX_SOCKET_PATH = 107


class MonitorDirectoryError(Exception):
    """The monitor's directory cannot be used; the text names the path, the reason and the remedy."""


@dataclass(frozen=True)
class MonitorPaths:
    """The files by which workers and their monitor find each other."""

    directory: Path

    @property
    def events(self) -> Path:
        """Socket of the published events."""
        return self.directory / f"events-{PROTOCOL_MAJOR}.sock"

    @property
    def control(self) -> Path:
        """Socket of the requests."""
        return self.directory / f"control-{PROTOCOL_MAJOR}.sock"

    @property
    def lock(self) -> Path:
        """Election: the monitor holds an exclusive flock on it, and its text is the epoch. Never unlinked."""
        return self.directory / f"monitor-{PROTOCOL_MAJOR}.lock"

    @property
    def starter_lock(self) -> Path:
        """Held by the worker that is starting a monitor, so that eight workers start one."""
        return self.directory / f"starter-{PROTOCOL_MAJOR}.lock"

    @property
    def log(self) -> Path:
        """Output of a monitor that was started on demand."""
        return self.directory / f"monitor-{PROTOCOL_MAJOR}.log"

    @property
    def events_url(self) -> str:
        return f"ipc://{self.events}"

    @property
    def control_url(self) -> str:
        return f"ipc://{self.control}"


def candidates() -> list[Path]:
    """Return every directory that the rules can lead to for this user, the one in force first."""
    uid = os.getuid()
    found = []
    explicit = os.environ.get(DIRECTORY_VARIABLE)
    if explicit:
        found.append(Path(explicit))
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        found.append(Path(runtime) / "aws-shared-monitor")
    found.append(Path(tempfile.gettempdir()) / f"aws-shared-monitor-{uid}")
    return found


def prepare(directory: Path | None = None) -> MonitorPaths:
    """Return the paths in force, with the directory made (mode 0700) and checked.

    Raises `MonitorDirectoryError` when it cannot be made, belongs to somebody else, is open to others, or makes socket paths longer
    than the kernel takes.
    """
    chosen = directory if directory is not None else candidates()[0]
    if not chosen.is_absolute():
        raise MonitorDirectoryError(f"{DIRECTORY_VARIABLE}={str(chosen)!r} is not an absolute path")
    paths = MonitorPaths(chosen)
    longest = max(len(os.fsencode(path)) for path in (paths.events, paths.control))
    if longest > MAX_SOCKET_PATH:
        raise MonitorDirectoryError(
            f"monitor directory {str(chosen)!r} makes a socket path of {longest} bytes, the kernel takes {MAX_SOCKET_PATH}; "
            f"set {DIRECTORY_VARIABLE} to a shorter path"
        )
    try:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        # lstat: a symbolic link planted in the temp directory must not lead us elsewhere.
        found = os.lstat(chosen)
    except OSError as error:
        raise MonitorDirectoryError(
            f"monitor directory {str(chosen)!r} cannot be used: {error.strerror}; set {DIRECTORY_VARIABLE} to a directory "
            f"that uid {os.getuid()} can write"
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise MonitorDirectoryError(f"monitor directory {str(chosen)!r} is not a directory; remove it")
    if found.st_uid != os.getuid():
        raise MonitorDirectoryError(
            f"monitor directory {str(chosen)!r} belongs to uid {found.st_uid}, not to uid {os.getuid()}; "
            f"set {DIRECTORY_VARIABLE} to a directory of your own"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise MonitorDirectoryError(
            f"monitor directory {str(chosen)!r} has mode {stat.S_IMODE(found.st_mode):04o}; others could reach the monitor: "
            "run chmod 700 on it"
        )
    return paths
