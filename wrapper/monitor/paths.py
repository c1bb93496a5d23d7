"""Where a monitor and its workers meet: one directory per user, checked before anything in it is trusted.

The directory comes from `$AWS_WRAPPER_MONITOR_DIR`, else `$XDG_RUNTIME_DIR`, else a per-uid folder under the temp directory. It
holds the two sockets, the election lock and the starter's lock. The protocol's major version is part of every name, so two versions
run side by side.

A monitor that several users share has a directory of its own user, which a group may enter. Its workers trust that user with their
logins, so they have to name it (`$AWS_WRAPPER_MONITOR_OWNER`). Where no directory can be shared, `$AWS_WRAPPER_MONITOR_URL` and
`$AWS_WRAPPER_MONITOR_KEYS` lead to a monitor by TCP, encrypted.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from .messages import PROTOCOL_MAJOR

DIRECTORY_VARIABLE = "AWS_WRAPPER_MONITOR_DIR"
OWNER_VARIABLE = "AWS_WRAPPER_MONITOR_OWNER"
URL_VARIABLE = "AWS_WRAPPER_MONITOR_URL"
KEYS_VARIABLE = "AWS_WRAPPER_MONITOR_KEYS"
# What a shared monitor's group may do: enter and read. Who could write there could put other sockets in place.
SHARED_MODE = 0o2750
# sizeof(sockaddr_un.sun_path) is 108 on Linux, one byte of it the terminating zero.
MAX_SOCKET_PATH = 107
_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:/]+):(?P<port>\d{1,5})")


class MonitorDirectoryError(Exception):
    """The monitor's directory cannot be used; the text names the path, the reason and the remedy."""


@dataclass(frozen=True)
class MonitorPaths:
    """The files by which workers and their monitor find each other. `url` and `keys`: the address and the key directory by which a
    monitor is reached over TCP instead. `may_start`: whether a worker may start a monitor there. `owner`: the uid whose monitor it
    is, None for the own one."""

    directory: Path
    url: str | None = None
    keys: Path | None = None
    may_start: bool = True
    owner: int | None = None

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
    def bell(self) -> Path:
        """The monitor's bell, a page that its workers map: see `wrapper.monitor.bell`."""
        return self.directory / f"bell-{PROTOCOL_MAJOR}"

    @property
    def log(self) -> Path:
        """Output of a monitor that was started on demand."""
        return self.directory / f"monitor-{PROTOCOL_MAJOR}.log"

    @property
    def events_url(self) -> str:
        return events_url(self.url) if self.url is not None else f"ipc://{self.events}"

    @property
    def control_url(self) -> str:
        return self.url if self.url is not None else f"ipc://{self.control}"

    @property
    def longest(self) -> int:
        """Bytes of the longest socket path."""
        return max(len(os.fsencode(path)) for path in (self.events, self.control))


def events_url(url: str, given: str = URL_VARIABLE) -> str:
    """Return where events are published beside the requests of a `tcp://` address: one port higher. Raises `MonitorDirectoryError`,
    which names the parameter in which it was `given`.

    >>> events_url("tcp://127.0.0.1:5490")
    'tcp://127.0.0.1:5491'
    """
    found = _TCP.fullmatch(url)
    if found is None or not 0 < int(found["port"]) < 65535:
        raise MonitorDirectoryError(f"{given}={url!r} is not tcp://HOST:PORT with a port between 1 and 65534")
    return f"tcp://{found['host']}:{int(found['port']) + 1}"


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
    found.append(Path(_temporary()) / f"aws-shared-monitor-{uid}")
    return found


def _temporary() -> str:
    """Return the temp directory. Not by `tempfile.gettempdir`, which takes another one, or fails, when the disk is full: processes
    that have to meet would miss each other."""
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return next((directory for directory in named if directory and os.path.isdir(directory)), "/tmp")


def locate() -> MonitorPaths:
    """Return where this worker's monitor is, by its environment. Raises `MonitorDirectoryError` as `prepare` does, and when what
    leads to a shared or remote monitor is incomplete."""
    url = os.environ.get(URL_VARIABLE)
    if url:
        return _remote(url, os.environ.get(KEYS_VARIABLE, ""))
    owner = named_owner()
    if owner is None:
        return prepare()
    paths = MonitorPaths(_checked(candidates()[0]), may_start=False, owner=owner)
    try:
        found = os.lstat(paths.directory)
    except OSError as error:
        raise _unusable(paths.directory, error, "enter") from error
    return _trusted(paths, found, shared=True)


def prepare(directory: Path | None = None, *, group: int | None = None, make: bool = True) -> MonitorPaths:
    """Return the paths of a monitor of this user, with the directory made (mode 0700) and checked.

    `group`: for a monitor that is to be shared; the directory is opened to that group (mode 2750). `make`: whether one that is not
    there is made. Raises `MonitorDirectoryError` when it is not there, belongs to somebody else, is open to others, or makes socket
    paths longer than the kernel takes.
    """
    given = DIRECTORY_VARIABLE if directory is None else "--directory"
    paths = MonitorPaths(_checked(directory if directory is not None else candidates()[0], given))
    try:
        try:
            if make:
                paths.directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            pass  # what it is, comes next
        # lstat: a symbolic link planted in the temp directory must not lead us elsewhere.
        found = os.lstat(paths.directory)
        if group is not None and stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            os.chown(paths.directory, -1, group)
            os.chmod(paths.directory, SHARED_MODE)
            found = os.lstat(paths.directory)
    except OSError as error:
        raise _unusable(paths.directory, error, "write", given) from error
    return _trusted(paths, found, shared=group is not None)


def trouble_with(found: os.stat_result, uid: int, *, shared: bool) -> str | None:
    """Return why a directory cannot be trusted that should belong to `uid`; None when it can. `shared`: its group may enter it."""
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode):
        return f"is {'a symbolic link' if stat.S_ISLNK(found.st_mode) else 'not a directory'}; remove it, or name another place"
    if found.st_uid != uid:
        return (
            f"belongs to uid {found.st_uid}, not to uid {uid}; set {DIRECTORY_VARIABLE} to a directory of your own, or "
            f"{OWNER_VARIABLE} to the user of a shared monitor whom you trust with your logins"
        )
    if mode & (0o027 if shared else 0o077):
        return f"has mode {mode:04o}; others could reach the monitor: run chmod {SHARED_MODE if shared else 0o700:o} on it"
    return None


def _checked(directory: Path, given: str = DIRECTORY_VARIABLE) -> Path:
    """`given`: the parameter that names it."""
    if not directory.is_absolute():
        raise MonitorDirectoryError(f"monitor directory {str(directory)!r} is not an absolute path; name one in {given}")
    longest = MonitorPaths(directory).longest
    if longest > MAX_SOCKET_PATH:
        raise MonitorDirectoryError(
            f"monitor directory {str(directory)!r} makes a socket path of {longest} bytes, the kernel takes {MAX_SOCKET_PATH}; "
            f"name a shorter path in {given}"
        )
    return directory


def _trusted(paths: MonitorPaths, found: os.stat_result, *, shared: bool) -> MonitorPaths:
    trouble = trouble_with(found, os.getuid() if paths.owner is None else paths.owner, shared=shared)
    if trouble is not None:
        raise MonitorDirectoryError(f"monitor directory {str(paths.directory)!r} {trouble}")
    return paths


def _unusable(directory: Path, error: OSError, what: str, given: str = DIRECTORY_VARIABLE) -> MonitorDirectoryError:
    return MonitorDirectoryError(
        f"monitor directory {str(directory)!r} cannot be used: {error.strerror}; name one in {given} that uid {os.getuid()} "
        f"can {what}"
    )


def named_owner() -> int | None:
    """Return the uid of the user whom the environment names as the owner of a shared monitor, by name or by number; None when it
    names nobody. Raises `MonitorDirectoryError`."""
    name = os.environ.get(OWNER_VARIABLE)
    if not name:
        return None
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise MonitorDirectoryError(f"{OWNER_VARIABLE}={name!r} is no user of this machine; give a name or a uid") from None


def _remote(url: str, keys: str) -> MonitorPaths:
    from .curve import CLIENT_SECRET, SERVER_PUBLIC, KeyFileError, load_pair, load_public

    events_url(url)
    if not keys:
        raise MonitorDirectoryError(
            f"{URL_VARIABLE} needs {KEYS_VARIABLE}, a directory with keys: TCP is used encrypted or not at all"
        )
    directory = Path(keys)
    try:
        load_pair(directory / CLIENT_SECRET)
        load_public(directory / SERVER_PUBLIC)
    except KeyFileError as error:
        raise MonitorDirectoryError(f"{KEYS_VARIABLE}: {error}") from None
    return MonitorPaths(directory, url, directory, may_start=False)
