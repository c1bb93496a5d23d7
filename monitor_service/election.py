"""One monitor per directory: an exclusive flock on a file that is never unlinked, whose text is the epoch.

The kernel releases the lock however the process ends. Binding a socket proves nothing: a second `bind` of an `ipc://` path silently
takes it over.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from wrapper.monitor.launch import is_served
from wrapper.monitor.paths import DIRECTORY_VARIABLE, MonitorDirectoryError, MonitorPaths


class Election:
    """The lock of one monitor. `epoch` is this run's number, larger than that of every earlier run."""

    def __init__(self, paths: MonitorPaths) -> None:
        self._paths = paths
        self._descriptor: int | None = None
        self._identities: dict[Path, tuple[int, int]] = {}
        self.epoch = 0

    def try_acquire(self) -> bool:
        """Take the lock if it is free, and raise the epoch under it."""
        path = self._paths.lock
        while True:
            # Python opens with O_CLOEXEC: no child inherits the lock.
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except OSError as error:
                raise _unusable(path, error) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            if _identity(path) == _identity(descriptor):
                break
            # Somebody replaced the file between open and lock: the one that has the name counts.
            os.close(descriptor)
        self._descriptor = descriptor
        self.epoch = _next_epoch(os.pread(descriptor, 64, 0))
        line = f"{self.epoch}\n".encode()
        try:
            # In place, and shortened afterwards: on a full disk an epoch that is there already can still be raised.
            os.pwrite(descriptor, line, 0)
            os.ftruncate(descriptor, len(line))
        except OSError as error:
            self.release()
            raise _unusable(path, error) from error
        self._remember(path)
        return True

    def own(self, sockets: tuple[Path, ...]) -> None:
        """Remember the sockets that were bound under the lock."""
        for path in sockets:
            self._remember(path)

    def lost(self) -> str | None:
        """Return what of the monitor's files is no longer its own, None when all is well."""
        for path, identity in self._identities.items():
            if _identity(path) != identity:
                return str(path)
        return None

    def release(self) -> None:
        """Give the lock up; the last act of a monitor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _remember(self, path: Path) -> None:
        identity = _identity(path)
        if identity is not None:
            self._identities[path] = identity


def is_held(paths: MonitorPaths) -> bool:
    """Whether some process holds the lock (that is: whether a monitor runs, or starts). Of another user's monitor only the socket
    can be asked: whoever may open the lock could hold it for ever."""
    try:
        descriptor = os.open(paths.lock, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return is_served(paths)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(paths: MonitorPaths) -> tuple[int, str] | None:
    """Return the pid that holds the lock and the letter of its state (proc(5): T is stopped), as far as the kernel tells."""
    try:
        inode = str(os.stat(paths.lock).st_ino)
        locks = Path("/proc/locks").read_text()
        for line in locks.splitlines():
            # 1: FLOCK  ADVISORY  WRITE 3381 fe:00:1835021 0 EOF
            words = line.split()
            if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode:
                pid = int(words[4])
                return pid, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        pass  # another user's, another kernel, or gone meanwhile
    return None


def _unusable(path: Path, error: OSError) -> MonitorDirectoryError:
    return MonitorDirectoryError(
        f"{path} cannot be written: {error.strerror}. The file holds a number of a few bytes: make room for it, or name another "
        f"directory in {DIRECTORY_VARIABLE}"
    )


def _next_epoch(text: bytes) -> int:
    # The clock as a floor: should the file be lost, a worker that remembers an earlier epoch still sees a larger one. In
    # milliseconds: a directory can be cleaned away and made again within a second.
    stored = int(text) if text.strip().isdigit() else 0
    return max(stored + 1, int(time.time() * 1000))


def _identity(file: Path | int) -> tuple[int, int] | None:
    try:
        status = os.fstat(file) if isinstance(file, int) else os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
