"""Whether connecting to a host is worth another try: what connects found out, and what the two strategies make of it.

`""` passes on what was found out last; `"exponential_backoff"` has a host tried again after ever longer pauses. Whatever the
strategy, a mark is forgotten after five minutes, so no host is left out for ever and a pause never lasts longer than that.
"""

from __future__ import annotations

from dataclasses import dataclass

from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostAvailability

PASS_THROUGH = ""
EXPONENTIAL_BACKOFF = "exponential_backoff"
STRATEGIES = (PASS_THROUGH, EXPONENTIAL_BACKOFF)

# Seconds after which a mark is worth nothing.
FORGOTTEN_AFTER = 300.0
# Marks that follow each other this closely (in seconds) are one failure met by several connections, not several tries. The shortest
# pause that can be configured is twice as long.
ONE_FAILURE = 1.0


@dataclass(frozen=True, slots=True)
class Marks:
    """What is known of one host. `failures`: how many tries in a row have failed, 0 when the last one succeeded; `at`: when the
    host was last marked, in seconds of a monotonic clock."""

    failures: int = 0
    at: float = 0.0

    def is_forgotten(self, now: float) -> bool:
        """Whether nothing follows from the marks any more."""
        return self.failures == 0 or now - self.at >= FORGOTTEN_AFTER


UNMARKED = Marks()


def mark(state: Marks, availability: HostAvailability, now: float) -> Marks:
    """Return the state of a host after it was found available or not."""
    if availability is HostAvailability.AVAILABLE:
        return Marks(0, now)
    if state.is_forgotten(now):
        return Marks(1, now)
    return Marks(state.failures + (now - state.at >= ONE_FAILURE), now)


def availability(
    state: Marks, strategy: str, max_retries: int, initial_backoff: float, now: float, heard_at: float | None = None
) -> HostAvailability:
    """Return what a strategy makes of the marks of a host. `heard_at`: when the monitor last had an answer from it.

    Without a strategy the latest word counts, a mark or the monitor's.
    With `exponential_backoff` a host that failed n times in a row is available again after 2**n x `initial_backoff` seconds, and
    not before its marks are forgotten once n has reached `max_retries`. Raises `AwsWrapperError` for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise AwsWrapperError(
            f"default_host_availability_strategy={strategy!r} is not valid: expected empty text or {EXPONENTIAL_BACKOFF}"
        )
    if state.is_forgotten(now):
        return HostAvailability.AVAILABLE
    if strategy == EXPONENTIAL_BACKOFF:
        is_due = state.failures < max_retries and now - state.at >= _pause(state.failures, initial_backoff)
    else:
        is_due = heard_at is not None and heard_at > state.at
    return HostAvailability.AVAILABLE if is_due else HostAvailability.UNAVAILABLE


def _pause(failures: int, initial_backoff: float) -> float:
    # A bounded exponent, because a larger one may not fit into a float; the marks are long forgotten by then.
    return initial_backoff * 2.0 ** min(failures, 64)


class AvailabilityBook:
    """The marks of all hosts that this process met, by host key. May be used by any thread and inherited by a fork: it takes no
    lock, every step on its dictionary is atomic, and the values are immutable. `marks` is empty nearly always."""

    def __init__(self) -> None:
        self.marks: dict[str, Marks] = {}

    def mark(self, key: str, found: HostAvailability, now: float) -> None:
        """Note that a host was found available or not, and drop the marks that are forgotten."""
        if found is HostAvailability.AVAILABLE:
            # The same as never having been marked, which is what nearly all hosts are nearly always.
            self.marks.pop(key, None)
            return
        self.marks[key] = mark(self.marks.get(key, UNMARKED), found, now)
        for other, state in self.marks.copy().items():
            if state.is_forgotten(now):
                self.marks.pop(other, None)

    def get(
        self, key: str, strategy: str, max_retries: int, initial_backoff: float, now: float, heard_at: float | None = None
    ) -> HostAvailability:
        """Return whether connecting to a host is worth a try, see `availability`."""
        return availability(self.marks.get(key, UNMARKED), strategy, max_retries, initial_backoff, now, heard_at)


BOOK = AvailabilityBook()
