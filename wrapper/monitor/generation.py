"""One integer per process that changes whenever something a connection should look at has changed: new shared state, or a fork.

A connection remembers the last value it saw and compares before each call: that comparison is all the shared state costs on the
hot path. The integer lives in a page that the kernel zeroes in a forked child (`MADV_WIPEONFORK`, Linux 4.14), so a child
notices at its first call that it is one, even under servers that fork without running Python's hooks (uwsgi).
"""

from __future__ import annotations

import mmap
import os
import time
from _queue import Empty, SimpleQueue

from wrapper.monitor.threads import is_cooperative

# mmap.MADV_WIPEONFORK is not exported by every supported Python; the number is part of the Linux ABI.
_MADV_WIPEONFORK = getattr(mmap, "MADV_WIPEONFORK", 18)
_PID_SHIFT = 32
# Seconds between two looks where waiting must let greenlets run.
_LOOK_AGAIN = 0.005


def _make_page() -> memoryview:
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_MADV_WIPEONFORK)
    except (AttributeError, OSError):
        os.register_at_fork(after_in_child=_wipe)
    return memoryview(page).cast("Q")


def _wipe() -> None:
    GENERATION[0] = 0


# Read as GENERATION[0]; 0 in a process that has not started its client, such as a freshly forked child.
GENERATION = _make_page()


def advance() -> int:
    """Move on to a value that no process of this family has had, and return it. Called by one thread of a process at a time."""
    value = GENERATION[0]
    GENERATION[0] = value = value + 1 if value else (os.getpid() << _PID_SHIFT) + 1
    for waiter in tuple(_waiting):
        waiter.put(None)
    return value


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
