"""The monitor's bell: a page of memory that says, before the news has come, that there is news.

A worker's client thread has to wait for the interpreter's lock before it can read a message. Beside a thread that computes, that
takes many milliseconds, in which the next call would go to a host that is known to be dead. So the monitor counts in a file what it
is about to publish, every worker maps it behind its generation (`wrapper.monitor.generation`), and a call that sees the count
changed gives way to the client thread for a moment.

The page, in the machine's byte order: how often the bell rang (two bytes, which are the last ones of the generation), at 8 the
epoch, then slots of eight bytes, each with the sequence number for which the bell last rang for a topic that falls into it. Two
topics of one slot cost a moment's wait at worst, as does everything else that may be wrong with a page.

Only the monitor writes to the file, and never makes it shorter: who has mapped a file that is cut off dies of it (SIGBUS). That is
why the file has to be the monitor's own; its user alone could do that.
"""

from __future__ import annotations

import logging
import mmap
import os
import stat
import sys
from typing import TYPE_CHECKING
from zlib import crc32

from .generation import BELL_PAGE, PAGES

if TYPE_CHECKING:
    from .paths import MonitorPaths
    from .state import SharedState

logger = logging.getLogger(__name__)

PAGE_BYTES = mmap.PAGESIZE
WORD = 8
RINGS_BYTES = 2
EPOCH_AT = WORD
_FIRST_SLOT = 2
_SLOTS = PAGE_BYTES // WORD - _FIRST_SLOT


def slot_at(topic: str) -> int:
    """Return where the page has the last sequence number of a topic."""
    return (_FIRST_SLOT + crc32(topic.encode()) % _SLOTS) * WORD


def word(page: memoryview | bytes, at: int) -> int:
    """Return the number of eight bytes at a place."""
    return int.from_bytes(page[at : at + WORD], sys.byteorder)


def rings(page: memoryview | bytes) -> int:
    """Return how often the bell rang; starts again after 65,536 times."""
    return int.from_bytes(page[:RINGS_BYTES], sys.byteorder)


def is_behind(page: memoryview | bytes, state: SharedState) -> bool:
    """Whether the bell rang for something that `state` does not hold yet."""
    return word(page, EPOCH_AT) == state.epoch and any(
        word(page, slot_at(topic)) > state.seqs.get(topic, 0) for topic in state.confirmed
    )


def attach(paths: MonitorPaths, epoch: int) -> None:
    """Have this process hear the bell of a monitor, by its epoch, from now on. Without one it works as with one that never rings.

    Another user's file is not mapped, nor one that others could change: see above.
    """
    if paths.url is not None or word(BELL_PAGE, EPOCH_AT) == epoch:
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
    if not stat.S_ISREG(found.st_mode) or found.st_size != PAGE_BYTES:
        return f"it is not a file of {PAGE_BYTES} bytes"
    if found.st_uid != uid or found.st_mode & 0o022:
        return f"it is of uid {found.st_uid}, not {uid}, or others may write to it"
    if word(os.pread(descriptor, PAGE_BYTES, 0), EPOCH_AT) != epoch:
        return f"it is not of the monitor with epoch {epoch}"
    return None


def _map(descriptor: int) -> None:
    """Put a file where the bell's page is. Not by Python's `mmap`, which takes no address."""
    import ctypes

    # PyDLL keeps the interpreter's lock: nobody looks meanwhile.
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    address = ctypes.addressof(ctypes.c_char.from_buffer(PAGES, PAGE_BYTES))
    map_fixed = 0x10
    if libc.mmap(address, PAGE_BYTES, mmap.PROT_READ, mmap.MAP_SHARED | map_fixed, descriptor, 0) != address:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
