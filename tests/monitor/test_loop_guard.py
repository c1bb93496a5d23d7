"""The guard against blaming others for our own standstill, on a real loop that really stands still."""

from __future__ import annotations

import asyncio
import time

from monitor_service.loop_guard import PAUSE, Deadline, LoopGuard, bounded, guarded_loop


def test_a_standstill_is_measured_before_any_timer_is_judged() -> None:
    loop, guard = guarded_loop()

    async def stand_still() -> None:
        mark = guard.mark()
        expired = asyncio.Event()
        deadline = Deadline(guard, 0.3, expired.set)
        await asyncio.sleep(0)
        time.sleep(PAUSE + 0.1)  # noqa: ASYNC251  the standstill
        # The timer is overdue, and fires in this turn; it must see the lag and go on waiting.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not expired.is_set()
        assert guard.paused_since(mark)
        assert guard.take_pause() >= PAUSE
        assert guard.take_pause() == 0.0
        await asyncio.wait_for(expired.wait(), 10)
        assert deadline.expired

    try:
        loop.run_until_complete(stand_still())
    finally:
        loop.close()


def test_bounded_ends_what_takes_too_long_and_lets_the_rest_through() -> None:
    loop, guard = guarded_loop()

    async def both() -> tuple[int, str]:
        async def quick() -> int:
            return 7

        try:
            await bounded(guard, 0.05, asyncio.sleep(60))
        except TimeoutError as error:
            return await bounded(guard, 5, quick()), str(error)
        raise AssertionError("it did not end")

    try:
        assert loop.run_until_complete(both()) == (7, "no end within 0.05 s")
    finally:
        loop.close()


def test_ordinary_lateness_is_no_lag() -> None:
    guard = LoopGuard()
    guard.late(0.004)
    guard.late(0.1)
    assert (guard.lag, guard.pauses) == (0.1, 0)
