"""When a login that was refused is tried again: as a wrong password, or as one that the database does not want just now."""

from __future__ import annotations

from itertools import pairwise

import pytest

from monitor_service.cadence import CONNECT_PAUSE, LOGIN_RETRY, pause
from monitor_service.credentials import CredentialBook, fingerprint
from wrapper.decisions.panic import LOGIN_PATIENCE
from wrapper.monitor.messages import Offer
from wrapper.monitor.state import ANSWERED

OFFER = Offer(parameters={"user": "app", "password": "secret"})
KEY = fingerprint(OFFER)


def book_of(*, worked: bool) -> CredentialBook:
    book = CredentialBook()
    book.replace([OFFER])
    if worked:
        book.accepted(KEY, "a")
    return book


def refusals(book: CredentialBook, until: float, outage_at: float | None) -> list[float]:
    """Return when host `a`, which refuses every login, is tried. It is asked every 10 ms; the outage begins at `outage_at`."""
    tried = []
    for turn in range(int(until * 100)):
        now = turn / 100
        if book.pick("a", now, now) is not None:
            tried.append(now)
            book.refused(KEY, "a", now, None if outage_at is None else now - outage_at)
    return tried


def test_a_login_that_worked_is_tried_again_soon_while_the_writer_is_searched_for() -> None:
    tried = refusals(book_of(worked=True), LOGIN_PATIENCE, outage_at=0.0)
    pauses = [after - before for before, after in pairwise(tried)]
    assert len(tried) > 50
    assert pauses == [pytest.approx(LOGIN_RETRY, abs=0.011)] * len(pauses)


@pytest.mark.parametrize(
    ("worked", "outage_at"),
    [(False, 0.0), (True, None), (True, -LOGIN_PATIENCE)],
    ids=["it never worked", "there is no outage", "the outage lasts"],
)
def test_any_other_one_is_tried_ever_more_seldom(worked: bool, outage_at: float | None) -> None:
    assert refusals(book_of(worked=worked), 40.0, outage_at) == pytest.approx([0, 1, 3, 7, 15, 31], abs=0.1)


def test_the_quick_attempts_do_not_count_when_the_patience_is_over() -> None:
    tried = [at for at in refusals(book_of(worked=True), 40.0, outage_at=0.0) if at >= LOGIN_PATIENCE]
    assert tried[1] - tried[0] == pytest.approx(2, abs=0.1)


def test_a_host_is_asked_in_the_same_rhythm() -> None:
    def seconds(outage: float | None, *, has_session: bool = False) -> float:
        return pause(ANSWERED, 5.0, has_session=has_session, slow=True, failing_for=0.0, outage=outage, chance=0.5)

    assert seconds(1.0) == CONNECT_PAUSE
    # A right that is missing does not come back with the writer.
    assert seconds(None) == seconds(LOGIN_PATIENCE) == seconds(1.0, has_session=True) == 5.0
