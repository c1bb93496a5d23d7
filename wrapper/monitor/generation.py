"""One integer per process that changes whenever something a connection should look at has changed: new shared state, or a fork.

A connection remembers the last value it saw and compares before each call: that comparison is all the shared state costs on the
hot path. The integer lives in a page that the kernel zeroes in a forked child (`MADV_WIPEONFORK`, Linux 4.14), so a child
notices at its first call that it is one, even under servers that fork without running Python's hooks (uwsgi).

Its last bytes lie in the memory that follows, which is the monitor's own once there is one: so the same comparison sees that the
monitor rang its bell (`wrapper.monitor.bell`).
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from _queue import Empty, SimpleQueue

from wrapper.monitor.threads import is_cooperative

# mmap.MADV_WIPEONFORK is not exported by every supported Python; the number is part of the Linux ABI.
_MADV_WIPEONFORK = getattr(mmap, "MADV_WIPEONFORK", 18)
BELL_BYTES = 1 << 16
# Bytes of the integer that are this process's, the rest are the bell's. A pid takes 22 bits; the counter may wrap around.
_OWN_BYTES = 6
_OWN_BITS = 8 * _OWN_BYTES
_PID_SHIFT = _OWN_BITS - 22
# Seconds between two looks where waiting must let greenlets run.
_LOOK_AGAIN = 0.005


def _make_pages() -> mmap.mmap:
    pages = mmap.mmap(-1, mmap.PAGESIZE + BELL_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        pages.madvise(_MADV_WIPEONFORK, 0, mmap.PAGESIZE)
    except (AttributeError, OSError):
        os.register_at_fork(after_in_child=_wipe)
    return pages


def _wipe() -> None:
    _own[:] = bytes(_OWN_BYTES)


PAGES = _make_pages()
_own = memoryview(PAGES)[mmap.PAGESIZE - _OWN_BYTES : mmap.PAGESIZE]
# Read as GENERATION[0], never written. The process's own bytes are 0 until it has started its client, as in a freshly forked child.
GENERATION = memoryview(PAGES)[mmap.PAGESIZE - _OWN_BYTES : mmap.PAGESIZE + 8 - _OWN_BYTES].cast("Q").toreadonly()
# What the monitor writes, zeros until there is one.
BELL = memoryview(PAGES)[mmap.PAGESIZE :].toreadonly()


def advance() -> int:
    """Move on to a value that no process of this family has had, and return it. Threads that do so at once may share one: what
    each has changed is in place by then."""
    value = int.from_bytes(_own, sys.byteorder)
    value = value + 1 if value else (os.getpid() << _PID_SHIFT) + 1
    _own[:] = (value % (1 << _OWN_BITS)).to_bytes(_OWN_BYTES, sys.byteorder)
    for waiter in tuple(_waiting):
        waiter.put(None)
    return GENERATION[0]


# One queue per waiting thread. Putting into one never blocks, so a fork at any moment leaves the child nothing to trip over.
_waiting: set[SimpleQueue[None]] = set()


def wait_for_change(seen: int, timeout: float) -> None:
    """Return when the generation is no longer `seen`, and after `timeout` seconds at the latest."""
    if is_cooperative():
        deadline = time.monotonic() + timeout
        while GENERATION[0] == seen and time.monotonic() < deadline:
            time.sleep(_LOOK_AGAIN)
        return
    waiter: SimpleQueue[None] = SimpleQueue()
    _waiting.add(waiter)
    try:
        if GENERATION[0] == seen:
            waiter.get(timeout=max(0.0, timeout))
    except Empty:
        pass
    finally:
        _waiting.discard(waiter)
