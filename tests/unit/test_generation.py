"""Waiting for news of the shared state: nobody misses any, however many wait."""

from __future__ import annotations

import threading
import time

from wrapper.monitor.generation import _waiting, advance, wait_for_change

# Far beyond the deadline of every wait below: a thread that only returns at its time-out fails the test.
NEVER = 300.0
PATIENCE = 20.0
MANY = 16


def waiting_threads(seen: int) -> list[threading.Thread]:
    """Threads that wait for the generation to leave `seen`, all of them well inside their wait."""
    before = len(_waiting)
    threads = [threading.Thread(target=wait_for_change, args=(seen, NEVER), daemon=True) for _ in range(MANY)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    while len(_waiting) < before + MANY:
        assert time.monotonic() < deadline, f"waited {PATIENCE:g} s in vain for {MANY} threads to wait"
        time.sleep(0.001)
    return threads


def assert_ended(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "some thread was not woken"


def test_one_change_wakes_everybody_who_waits() -> None:
    threads = waiting_threads(advance())
    advance()
    assert_ended(threads)


def test_a_change_between_the_look_and_the_wait_is_not_missed() -> None:
    seen = advance()
    advance()
    threads = [threading.Thread(target=wait_for_change, args=(seen, NEVER), daemon=True) for _ in range(MANY)]
    for thread in threads:
        thread.start()
    assert_ended(threads)


def test_nobody_is_remembered_after_the_wait() -> None:
    before = set(_waiting)
    seen = advance()
    wait_for_change(seen, 0.001)
    threads = waiting_threads(seen)
    advance()
    assert_ended(threads)
    assert _waiting == before
