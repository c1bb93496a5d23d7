"""The verdicts on what connections saw when a cluster moved, and that the table of events has no holes."""

from __future__ import annotations

import pytest

from tests.benchmarks.moves.events import CONNECTING, EVENTS, FAILS, FLAVOURS, IDLE, MOVES, NOTHING, USES, right_for
from tests.benchmarks.moves.users import User
from tests.benchmarks.moves.verdicts import (
    DRIVERS_OWN,
    TOLERANCE,
    Cell,
    Refusal,
    Right,
    Seen,
    as_markdown,
    as_text,
    errors,
    is_late,
)

MOVED = Refusal(1.0, "FailoverSuccessError", "not_sent", row=7)
UNKNOWN = Refusal(1.0, "FailoverSuccessError", "unknown", "lost", row=7)
EITHER = Right((("FailoverSuccessError", "not_sent"), ("FailoverSuccessError", "unknown")))


@pytest.mark.parametrize(
    ("right", "seen", "expected"),
    [
        (EITHER, Seen((MOVED,), 1.0, 1.1), ()),
        (EITHER, Seen((UNKNOWN,), 1.0, 0.9, {7}), ()),
        (MOVES[IDLE], Seen((UNKNOWN,), 0.0, 0.1), ("FailoverSuccessError, unknown: lost",)),
        (EITHER, Seen((MOVED,), 1.0, 1.1, {7}), ("row 7 was stored and said not to be sent",)),
        (EITHER, Seen((), 1.0, 0.0), ("0 errors, not 1",)),
        (Right(EITHER.errors, most=2), Seen((MOVED,) * 3, 1.0, 1.1), ("3 errors, not 1 to 2",)),
        (EITHER, Seen((MOVED,), 1.0, None), ("never back",)),
        (NOTHING[IDLE], Seen((), 1.0, 0.0), ()),
        (FAILS[IDLE], Seen((Refusal(1.0, DRIVERS_OWN),), 1.0, 1.1), ()),
        (FAILS[IDLE], Seen((MOVED,), 1.0, 1.1), ("FailoverSuccessError, not_sent: ",)),
    ],
)
def test_errors(right: Right, seen: Seen, expected: tuple[str, ...]) -> None:
    assert errors(right, seen) == expected


@pytest.mark.parametrize(
    ("own", "without", "expected"),
    [(1.0, 1.0 + TOLERANCE - 0.01, False), (1.0, 1.0 + TOLERANCE + 0.01, True), (1.0, 0.2, False), (1.0, None, False)],
)
def test_lateness(own: float, without: float | None, expected: bool) -> None:
    assert is_late(Seen((), own, without)) is expected


def test_a_connection_is_back_with_the_first_success_after_the_last_failure() -> None:
    user = User()
    assert user.back(1.0) is None
    user.done = [0.5, 1.1, 1.4]
    assert user.back(1.0) == 1.0
    user.refusals = [Refusal(0.9, "old"), Refusal(1.2, "x"), Refusal(1.3, "x")]
    assert user.back(1.0) == 1.4
    user.refusals.append(Refusal(1.5, "x"))
    assert user.back(1.0) is None


def test_every_flavour_has_its_events_and_every_use_its_right() -> None:
    for event in EVENTS:
        assert set(event.flavours) <= set(FLAVOURS)
        for flavour in event.flavours:
            assert set(USES) <= set(right_for(event, flavour)) <= {*USES, CONNECTING}
    assert {flavour for event in EVENTS for flavour in event.flavours} == set(FLAVOURS)


def test_the_table_has_a_line_per_event_and_a_mark_where_something_is_amiss() -> None:
    good, late, wrong = Seen((MOVED,), 1.0, 1.02), Seen((UNKNOWN, UNKNOWN), 1.0, 2.0), Seen((), 1.0, None)
    cells = [
        Cell("writer killed", "aurora", "mysql", use, seen, found)
        for use, seen, found in zip(USES, (good, late, wrong), ((), (), ("never back",)), strict=True)
    ]
    assert [cell.verdict for cell in cells] == ["", "late", "wrong"]
    line = as_markdown(cells).splitlines()[2]
    assert line == (
        "| writer killed | aurora | mysql | 1.00 s | FailoverSuccessError, not_sent; +20 ms "
        "| FailoverSuccessError, unknown x2; +1000 ms; **late** | nothing; **wrong** |  |"
    )
    assert as_text(cells).splitlines()[-1] == "    never back"
