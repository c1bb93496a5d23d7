"""Static host names of the wrapper's own: `$AWS_WRAPPER_HOSTS_FILE`, in the syntax of /etc/hosts.

Where instance endpoints do not resolve on this machine (an SSH tunnel, a private DNS zone, the test lab), the file maps them to
addresses. The wrapper and its monitor hand the address to the driver beside the name, so that TLS still verifies the name.
"""

from __future__ import annotations

import os

from wrapper.environment import variable

HOSTS_FILE_VARIABLE = "AWS_WRAPPER_HOSTS_FILE"

_cached: tuple[tuple[str, int, int], dict[str, str]] | None = None


def parse_hosts(text: str) -> dict[str, str]:
    """Return name -> address; the first line that names a host wins, as in /etc/hosts. Names are lower-cased."""
    names: dict[str, str] = {}
    for line in text.splitlines():
        address, *aliases = line.partition("#")[0].split() or [""]
        for alias in aliases:
            names.setdefault(alias.lower().rstrip("."), address)
    return names


def static_address(host: str) -> str | None:
    """Return the address that the hosts file gives to `host`, None without a file or an entry.

    The file is read again when its inode, size or time changes (writers should replace it by rename). Raises `OSError` when the
    variable names a file that cannot be read.
    """
    global _cached
    path = variable(HOSTS_FILE_VARIABLE)
    if not path:
        return None
    status = os.stat(path)
    version = (path, status.st_ino, status.st_mtime_ns ^ status.st_size)
    if _cached is None or _cached[0] != version:
        with open(path, encoding="utf-8") as file:
            _cached = (version, parse_hosts(file.read()))
    return _cached[1].get(host.lower().rstrip("."))
