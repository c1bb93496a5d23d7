"""The socket under a connection of mysql-connector-python: found, described, and given a keepalive.

The pure Python implementation has a socket object. The C extension has no API for its descriptor: it stands in the C library's
structure, at a place that depends on how that was compiled. A number that is read there is only believed if it is a socket that
was opened during this very connect and leads to the right peer; otherwise the connection has no handle and cannot be ended from
outside. A descriptor is remembered with its inode: the C library closes it inside a failing call, and its number may belong to
something else a moment later.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import sys
from dataclasses import dataclass
from typing import Any

# `MYSQL` begins with `NET` (mysql.h), whose descriptor comes after five pointers; the extension's object has it behind its header.
_OFFSET = object.__basicsize__ + 5 * ctypes.sizeof(ctypes.c_void_p)
_DESCRIPTORS = "/dev/fd"  # on Linux it is /proc/self/fd
# Looser than any verdict: what ends a connection to a vanished host when no monitor runs.
_TCP_USER_TIMEOUT_MS = 15000


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A socket by its number, and by the inode that tells whether the number is still its own."""

    number: int
    inode: int

    @property
    def is_current(self) -> bool:
        return _inode(self.number) == self.inode


@dataclass(frozen=True, slots=True)
class Keepalive:
    """TCP keepalive: seconds before the first one and between two, how many may be lost; `is_on` alone matters when false."""

    is_on: bool
    idle: int
    interval: int
    count: int


def open_sockets() -> dict[int, int]:
    """Return the inode of every socket that this process has open, by descriptor."""
    try:
        numbers = [int(name) for name in os.listdir(_DESCRIPTORS)]
    except OSError:
        return {}
    return {number: inode for number in numbers if (inode := _inode(number)) is not None}


def _inode(number: int) -> int | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_ino if stat.S_ISSOCK(status.st_mode) else None


def find(connection: Any, before: dict[int, int]) -> Descriptor | None:
    """Return the descriptor of a fresh connection of the C extension, None if there is any doubt.

    `before`: `open_sockets()` as it was before the connect.
    """
    number = descriptor_of(connection._cmysql)
    inode = _inode(number) if number > 0 else None
    if inode is None or before.get(number) == inode or not _leads_to(number, connection._host, connection._port):
        return None
    return Descriptor(number, inode)


def descriptor_of(session: Any) -> int:
    """Return what stands where the C extension's object should have its descriptor; 0 for nothing. Not to be believed as it is."""
    if sys.getsizeof(session) < _OFFSET + ctypes.sizeof(ctypes.c_int):
        return 0
    return ctypes.c_int.from_address(id(session) + _OFFSET).value


def _leads_to(number: int, host: str, port: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as sock:
        try:
            peer = sock.getpeername()
        except OSError:
            return False
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or peer[1] != port:
        return False
    return not _is_numeric(host) or peer[0] == host


def _is_numeric(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            # In the one way of writing it that the peer's has too.
            return socket.inet_ntop(family, socket.inet_pton(family, host)) == host
        except OSError:
            continue
    return False


def keep_alive(number: int, keepalive: Keepalive) -> None:
    """Set the keepalive of a TCP socket; others are left alone."""
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(keepalive.is_on))
        if not keepalive.is_on:
            return
        for name, value in (
            ("TCP_KEEPIDLE", keepalive.idle),
            ("TCP_KEEPINTVL", keepalive.interval),
            ("TCP_KEEPCNT", keepalive.count),
            ("TCP_USER_TIMEOUT", _TCP_USER_TIMEOUT_MS),
        ):
            option = getattr(socket, name, None)  # not every system has all of them
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)


def cut_off(number: int) -> None:
    """In a forked child: have a descriptor lead nowhere. The parent's connection stays as it is, whatever is done to ours."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.dup2(nowhere, number, inheritable=False)
    finally:
        os.close(nowhere)


def peer_address(number: int) -> str | None:
    """Return the numeric address that a TCP socket leads to."""
    with socket.socket(fileno=os.dup(number)) as sock:
        try:
            return str(sock.getpeername()[0]) if sock.family in (socket.AF_INET, socket.AF_INET6) else None
        except OSError:
            return None
