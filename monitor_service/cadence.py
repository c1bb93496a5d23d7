"""How long to wait before asking again. Pure: times and a random number in, seconds out."""

from __future__ import annotations

from wrapper.decisions.panic import LOGIN_PATIENCE, PANIC_LONGEST, panic_pause
from wrapper.monitor.state import ANSWERED, REFUSED, SILENT

# Seconds. After this long nobody is waiting any more.
PANIC_GIVES_UP = 300.0
# Between two attempts to connect to one host, unless the server was silent: then the attempt's own time-out has passed already.
CONNECT_PAUSE = 0.100
# Between two logins of an offer that worked before, while they are refused because the database is being mended. Not less: a server
# may count failures.
LOGIN_RETRY = 0.250
# Between two questions to one host, whatever the number of hints.
SHORTEST = 0.010


def pause(
    kind: str, interval: float, *, has_session: bool, slow: bool, failing_for: float, outage: float | None, chance: float
) -> float:
    """Return the seconds from the end of one probe to the start of the next.

    `kind`: how the last one ended. `failing_for`: length of the failing run. `outage`: seconds since the cluster's writer was lost,
    None when all is well. `slow`: a login or a right is missing, so haste would only add failing logins; except where logins are
    refused because the outage is being mended.
    """
    if kind == SILENT:
        return 0.0 if failing_for < PANIC_GIVES_UP else interval
    shortest = 0.0 if has_session else CONNECT_PAUSE
    if slow and (has_session or not is_being_mended(outage)):
        return max(interval, shortest)
    if outage is not None and outage < PANIC_GIVES_UP:
        return max(panic_pause(outage, chance), shortest)
    if kind == ANSWERED:
        # Never longer than the interval: the promised detection time is built on it.
        return interval * (0.9 + 0.1 * chance) if has_session else max(min(interval, 1.0), shortest)
    return max(min(interval, PANIC_LONGEST if kind == REFUSED else interval), shortest)


def is_being_mended(outage: float | None) -> bool:
    """Whether logins may be refused because the database is rebooting or promoting an instance."""
    return outage is not None and outage < LOGIN_PATIENCE


def login_backoff(failures: int) -> float:
    """Return the seconds before an offer that failed `failures` times in a row may be tried again: 1, 2, 4 … 60."""
    return float(min(2 ** max(failures - 1, 0), 60))
