"""The monitor's bell: memory in which a call finds the latest news when the client thread has not come to reading it.

A worker's client thread has to wait for the interpreter's lock before it can read a message. Beside a thread that computes, that
takes many milliseconds, in which the next call would go to a host that is known to be dead. So the monitor writes every update of a
cluster to a file before it sends it, and the workers have the file mapped behind their generation (`wrapper.monitor.generation`):
the comparison that a call pays in any case tells it that the bell has rung, and it takes the news in by itself. The client thread
finds it known.

The file, in the machine's byte order: how often the bell rang (two bytes, which are the last ones of the generation), at 8 the
epoch, at 16 how often it rang in full, then the latest messages in cells, each with its number, its length and its checksum. A
message that does not fit leaves its cell empty, and one may be replaced while it is read: nothing depends on it, because all are
sent as well.

Only the monitor writes to the file, and never makes it shorter: who has mapped a file that is cut off dies of it (SIGBUS). That is
why the file has to be the monitor's own; its user alone could do that.
"""

from __future__ import annotations

import logging
import mmap
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from zlib import crc32

from .generation import BELL, BELL_BYTES, PAGES
from .messages import Garbage, decode_body, decode_envelope
from .state import Gap, SharedState, Update, apply

if TYPE_CHECKING:
    from .paths import MonitorPaths

logger = logging.getLogger(__name__)

Page = bytes | bytearray | memoryview

HEADER = struct.Struct("H6xQQ")
CELL = struct.Struct("QII")
CELLS = 15
CELL_BYTES = 4096
_MAP_FIXED = 0x10


def cell_at(number: int) -> int:
    """Return where the file has the message of a ring."""
    return (1 + number % CELLS) * CELL_BYTES


def header(epoch: int, number: int) -> bytes:
    """Return what the file begins with after so many rings."""
    return HEADER.pack(number % (1 << 16), epoch, number)


def cell(number: int, message: bytes) -> bytes:
    """Return what the file holds of a message."""
    if CELL.size + len(message) > CELL_BYTES:
        message = b""
    return CELL.pack(number, len(message), crc32(message)) + message


def position(page: Page) -> tuple[int, int]:
    """Return the epoch of the monitor whose bell it is, 0 when it is none, and how often it rang."""
    _, epoch, number = HEADER.unpack_from(page)
    return epoch, number


def messages(page: Page, after: int) -> Iterator[bytes]:
    """Yield the messages of the rings that came `after` so many, as far as they are there."""
    _, latest = position(page)
    for number in range(max(after, latest - CELLS) + 1, latest + 1):
        at = cell_at(number)
        found, length, checksum = CELL.unpack_from(page, at)
        message = bytes(page[at + CELL.size : at + min(CELL.size + length, CELL_BYTES)])
        if message and found == number and crc32(message) == checksum:
            yield message


def heard(state: SharedState, news: Iterable[bytes]) -> SharedState:
    """Return `state` after messages of the bell's, as far as they follow from it."""
    for data in news:
        try:
            envelope = decode_envelope(data)
            message = decode_body(envelope)
        except Garbage:
            continue
        if envelope.topic in state.confirmed:
            with suppress(Gap):  # the client thread's business
                state = apply(state, envelope.epoch, envelope.topic, envelope.seq, message if isinstance(message, Update) else None)
    return state


def attach(paths: MonitorPaths, epoch: int) -> None:
    """Have this process hear the bell of a monitor, by its epoch, from now on. Without one it works as with one that never rings.

    Another user's file is not mapped, nor one that others could change: see above.
    """
    if paths.url is not None or position(BELL)[0] == epoch:
        return
    try:
        # A FIFO that somebody put in its place must not hold us up.
        descriptor = os.open(paths.bell, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            trouble = _trouble_with(descriptor, os.getuid() if paths.owner is None else paths.owner, epoch)
            if trouble is None:
                _map(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        trouble = error.strerror or str(error)
    if trouble is not None:
        logger.debug("the bell %s is not used: %s", paths.bell, trouble)


def _trouble_with(descriptor: int, uid: int, epoch: int) -> str | None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size != BELL_BYTES:
        return f"it is not a file of {BELL_BYTES} bytes"
    if found.st_uid != uid or found.st_mode & 0o022:
        return f"it is of uid {found.st_uid}, not {uid}, or others may write to it"
    if position(os.pread(descriptor, HEADER.size, 0))[0] != epoch:
        return f"it is not of the monitor with epoch {epoch}"
    return None


def _map(descriptor: int) -> None:
    """Put a file where the bell's memory is. Not by Python's `mmap`, which takes no address."""
    import ctypes

    # PyDLL keeps the interpreter's lock: nobody looks meanwhile.
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    address = ctypes.addressof(ctypes.c_char.from_buffer(PAGES, mmap.PAGESIZE))
    if libc.mmap(address, BELL_BYTES, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, descriptor, 0) != address:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
