"""Host availability: the cases in tests/spec/availability.json, properties of the pure functions, and the book that holds marks."""

from __future__ import annotations

import json
import threading
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrapper.decisions.availability import (
    EXPONENTIAL_BACKOFF,
    FORGOTTEN_AFTER,
    ONE_FAILURE,
    PASS_THROUGH,
    STRATEGIES,
    UNMARKED,
    AvailabilityBook,
    Marks,
    availability,
    mark,
)
from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostAvailability

UP, DOWN = HostAvailability.AVAILABLE, HostAvailability.UNAVAILABLE
NAMES = {"up": UP, "down": DOWN}
CASES = json.loads((Path(__file__).parents[1] / "spec" / "availability.json").read_text())["cases"]

# Marks as (seconds since the one before, what was found).
marks_of_a_host = st.lists(st.tuples(st.floats(0, 400), st.sampled_from([UP, DOWN, DOWN, DOWN])), max_size=12)
pauses = st.floats(0, 2 * FORGOTTEN_AFTER)
limits = st.integers(1, 12)
backoffs = st.floats(1, 120)


def after(history: list[tuple[float, HostAvailability]]) -> Marks:
    state, now = UNMARKED, 0.0
    for pause, found in history:
        now += pause
        state = mark(state, found, now)
    return state


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    state = reduce(lambda state, step: mark(state, NAMES[step[1]], step[0]), case["marks"], UNMARKED)
    for strategy, answers in case["expected"].items():
        for now, expected in answers:
            found = availability(state, strategy, case.get("max_retries", 2), case.get("initial_backoff", 10), now)
            assert found is NAMES[expected], (strategy, now)


@given(marks_of_a_host, limits, backoffs, pauses)
def test_a_failed_host_stays_out_for_its_pause_and_not_longer(
    history: list[tuple[float, HostAvailability]], limit: int, backoff: float, passed: float
) -> None:
    state = after(history)
    found = availability(state, EXPONENTIAL_BACKOFF, limit, backoff, state.at + passed)
    # The time may be rounded when it is added to the mark's.
    passed = state.at + passed - state.at
    pause = FORGOTTEN_AFTER if state.failures >= limit else min(backoff * 2**state.failures, FORGOTTEN_AFTER)
    assert found is (UP if state.failures == 0 or passed >= pause else DOWN)


@given(marks_of_a_host, limits, backoffs, pauses, pauses, st.sampled_from(STRATEGIES))
def test_between_marks_a_host_only_ever_comes_back(
    history: list[tuple[float, HostAvailability]], limit: int, backoff: float, passed: float, more: float, strategy: str
) -> None:
    state = after(history)
    early, late = state.at + passed, state.at + passed + more
    if availability(state, strategy, limit, backoff, early) is UP:
        assert availability(state, strategy, limit, backoff, late) is UP


@given(marks_of_a_host, limits, backoffs, pauses)
def test_the_back_off_never_keeps_a_host_out_for_longer_than_passing_on_does(
    history: list[tuple[float, HostAvailability]], limit: int, backoff: float, passed: float
) -> None:
    state = after(history)
    if availability(state, PASS_THROUGH, limit, backoff, state.at + passed) is UP:
        assert availability(state, EXPONENTIAL_BACKOFF, limit, backoff, state.at + passed) is UP


@given(marks_of_a_host)
def test_a_success_leaves_nothing_behind_and_a_failure_is_seen_at_once(history: list[tuple[float, HostAvailability]]) -> None:
    state = after(history)
    now = state.at + 1.0
    for strategy in STRATEGIES:
        assert availability(mark(state, UP, now), strategy, 5, 30, now) is UP
        assert availability(mark(state, DOWN, now), strategy, 5, 30, now) is DOWN
    assert mark(mark(state, UP, now), DOWN, now + 1).failures == 1


@given(marks_of_a_host, st.floats(ONE_FAILURE, FORGOTTEN_AFTER, exclude_max=True), st.integers(1, 100))
def test_connections_that_fail_together_count_as_one_try(
    history: list[tuple[float, HostAvailability]], passed: float, connections: int
) -> None:
    state = Marks(after(history).failures)
    for number in range(connections):
        state = mark(state, DOWN, passed + number / 1000)
    assert state.failures == after(history).failures + 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 200), st.sampled_from([UP, DOWN])), max_size=20), limits, backoffs)
def test_the_book_answers_for_each_host_as_if_it_were_alone_and_keeps_nothing_that_is_forgotten(
    history: list[tuple[str, float, HostAvailability]], limit: int, backoff: float
) -> None:
    book = AvailabilityBook()
    alone = dict.fromkeys("abc", UNMARKED)
    now = 0.0
    for key, pause, found in history:
        now += pause
        book.mark(key, found, now)
        alone[key] = mark(alone[key], found, now)
        for strategy in STRATEGIES:
            for host, state in alone.items():
                assert book.get(host, strategy, limit, backoff, now) is availability(state, strategy, limit, backoff, now)
        if found is DOWN:
            assert len(book.marks) == sum(not state.is_forgotten(now) for state in alone.values())


def test_an_unreasonable_number_of_tries_is_no_overflow() -> None:
    assert availability(Marks(100_000, 0.0), EXPONENTIAL_BACKOFF, 1_000_000, 30, 299) is DOWN


def test_an_unknown_strategy_is_named() -> None:
    with pytest.raises(AwsWrapperError, match=r"default_host_availability_strategy='exponential'.*exponential_backoff"):
        availability(UNMARKED, "exponential", 5, 30, 0)


def test_threads_lose_no_host_of_each_others() -> None:
    book = AvailabilityBook()
    ready = threading.Barrier(4)

    def fail(thread: int) -> None:
        ready.wait(10)
        for number in range(200):
            book.mark(f"{thread}-{number}", DOWN, 0.0)

    threads = [threading.Thread(target=fail, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(book.marks) == 800
