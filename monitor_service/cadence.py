"""How long to wait before asking again. Pure: times and a random number in, seconds out."""

from __future__ import annotations

from wrapper.decisions.panic import PANIC_LONGEST, panic_pause
from wrapper.monitor.state import ANSWERED, REFUSED, SILENT

# Seconds. After this long nobody is waiting any more.
PANIC_GIVES_UP = 300.0
# Between two attempts to connect to one host, unless the server was silent: then the attempt's own time-out has passed already.
CONNECT_PAUSE = 0.100
# Before a login that was refused is tried again.
LOGIN_PAUSE = 1.0
# Between two questions to one host, whatever the number of hints.
SHORTEST = 0.010


def pause(
    kind: str, interval: float, *, has_session: bool, slow: bool, failing_for: float, outage: float | None, chance: float
) -> float:
    """Return the seconds from the end of one probe to the start of the next.

    `kind`: how the last one ended. `failing_for`: length of the failing run. `outage`: seconds since the cluster's writer was lost,
    None when all is well. `slow`: a login or a right is missing, so haste would only add failing logins.
    """
    if kind == SILENT:
        return 0.0 if failing_for < PANIC_GIVES_UP else interval
    shortest = 0.0 if has_session else CONNECT_PAUSE
    is_searching = outage is not None and outage < PANIC_GIVES_UP
    if slow:
        return max(min(interval, LOGIN_PAUSE) if is_searching else interval, shortest)
    if outage is not None and is_searching:
        return max(panic_pause(outage, chance), shortest)
    if kind == ANSWERED:
        # Never longer than the interval: the promised detection time is built on it.
        return interval * (0.9 + 0.1 * chance) if has_session else max(min(interval, 1.0), shortest)
    return max(min(interval, PANIC_LONGEST if kind == REFUSED else interval), shortest)


def login_backoff(failures: int, *, searching: bool = False) -> float:
    """Return the seconds before an offer that failed `failures` times in a row may be tried again: 1, 2, 4 … 60.

    They do not grow while the writer is searched for: a host that is being promoted may refuse for a moment what it took before.
    """
    return LOGIN_PAUSE if searching else min(LOGIN_PAUSE * 2 ** max(failures - 1, 0), 60.0)
