"""How late the event loop runs, measured where it cannot be raced.

A monitor that was stopped, swapped out or starved must not blame a server for its own silence. The lag is taken inside the loop's
selector, before any callback of that turn runs: whoever judges a time-out afterwards sees it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds. A turn of the loop that is this late is a pause: whatever was being measured across it is void.
PAUSE = 0.5
# Lateness below this is ordinary scheduling and is not counted as lag.
NOISE = 0.005


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the loop's life, for `LoopGuard.lag_since` and `paused_since`."""

    lag: float
    pauses: int


class LoopGuard:
    """The lag of one event loop: its sum, its pauses, and the pauses that nobody has settled yet. Seconds."""

    def __init__(self) -> None:
        self.lag = 0.0
        self.pauses = 0
        self.longest = 0.0
        self._unsettled = 0.0

    def late(self, seconds: float) -> None:
        """Record one turn of the loop that was late by `seconds`."""
        if seconds <= NOISE:
            return
        self.lag += seconds
        self.longest = max(self.longest, seconds)
        if seconds >= PAUSE:
            self.pauses += 1
            self._unsettled += seconds

    def mark(self) -> Mark:
        return Mark(self.lag, self.pauses)

    def lag_since(self, mark: Mark) -> float:
        return self.lag - mark.lag

    def paused_since(self, mark: Mark) -> bool:
        return self.pauses > mark.pauses

    def take_pause(self) -> float:
        """Return the seconds of all pauses since the last call; whoever takes them extends leases and voids verdicts."""
        seconds, self._unsettled = self._unsettled, 0.0
        return seconds


class _GuardedSelector(selectors.DefaultSelector):
    def __init__(self, guard: LoopGuard) -> None:
        super().__init__()
        self._guard = guard
        self._left = monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        entered = monotonic()
        ready = super().select(timeout)
        left = monotonic()
        overslept = left - entered - max(timeout, 0.0) if timeout is not None else 0.0
        # One sum: a stop can fall half into the callbacks and half into the sleep.
        self._guard.late(entered - self._left + max(overslept, 0.0))
        self._left = left
        return ready


def guarded_loop() -> tuple[asyncio.SelectorEventLoop, LoopGuard]:
    """Return a new event loop and the guard that measures it."""
    guard = LoopGuard()
    return asyncio.SelectorEventLoop(_GuardedSelector(guard)), guard


class Deadline:
    """Calls `expire` once `seconds` of the loop's live time have passed: lag does not count against whoever is being timed."""

    def __init__(self, guard: LoopGuard, seconds: float, expire: Callable[[], object]) -> None:
        self._guard = guard
        self._seconds = seconds
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._armed = self._loop.time()
        self._mark = guard.mark()
        self._timer = self._loop.call_later(seconds, self._judge)
        self.expired = False

    def _judge(self) -> None:
        left = self._seconds - (self._loop.time() - self._armed - self._guard.lag_since(self._mark))
        if left > 0.001:
            self._timer = self._loop.call_later(left, self._judge)
            return
        self.expired = True
        self._expire()

    def cancel(self) -> None:
        self._timer.cancel()


async def bounded(guard: LoopGuard, seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await `coroutine` for `seconds` of live loop time. Raises `TimeoutError`.

    It ends the coroutine by cancelling it: not for driver calls on an open session, which wait for the server even then.
    """
    task = asyncio.ensure_future(coroutine)
    deadline = Deadline(guard, seconds, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        if not deadline.expired:
            raise
        raise TimeoutError(f"no end within {seconds:g} s") from None
    finally:
        deadline.cancel()
