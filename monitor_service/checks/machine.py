"""Clocks, limits and the kernel's settings."""

from __future__ import annotations

import ctypes
import resource
import time
from collections.abc import Iterator
from pathlib import Path

from monitor_service.checks.finding import NOTE, OK, WARNING, Finding

CLOCK = "clock"
LIMITS = "limits"
KEEPALIVE = "keepalive"

# Seconds. Wall clock and monotonic clock drift apart by less during a doctor's visit.
JUMP = 0.05
# Seconds within which both clocks are read: who is interrupted in between would see a jump.
ONE_MOMENT = 0.005
# Descriptors below which a machine with a few hundred workers gets into trouble.
FEW_DESCRIPTORS = 4096
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_SYSCTL = Path("/proc/sys/net/ipv4")
# The floor that every connection gets (docs/parameters.md).
FLOOR = "idle 10 s, interval 3 s, count 3"


def read_clocks() -> tuple[float, float]:
    """Return the monotonic and the wall clock of one moment."""
    while True:
        before, wall, after = time.monotonic(), time.time(), time.monotonic()
        if after - before < ONE_MOMENT:
            return before, wall


def clock(before: tuple[float, float]) -> Iterator[Finding]:
    """Tell whether the wall clock kept pace with the monotonic one since `before`, and who sets it."""
    now, wall = read_clocks()
    jump = (wall - before[1]) - (now - before[0])
    if abs(jump) > JUMP:
        yield Finding(CLOCK, WARNING, f"the wall clock jumped by {jump:+.3f} s just now: the expiry of tokens is judged by it")
    else:
        yield Finding(CLOCK, OK, f"wall and monotonic clock kept pace over {now - before[0]:.1f} s", {"jump": round(jump, 6)})
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
    if asleep > 1:
        text = f"this machine was suspended for {asleep:.0f} s since it booted, or this is a time namespace"
        yield Finding(CLOCK, NOTE, f"{text}: monitor and workers need the same monotonic clock", {"asleep": round(asleep)})
    synchronized = is_synchronized()
    if synchronized is False:
        yield Finding(CLOCK, NOTE, "the kernel's clock is not synchronized (NTP); tokens of a few minutes' life may seem expired")
    elif synchronized:
        yield Finding(CLOCK, OK, "the kernel's clock is synchronized (NTP)")


def is_synchronized() -> bool | None:
    """Whether the kernel takes its clock for synchronized; None when it does not say."""
    libc = ctypes.CDLL(None)
    # struct timex with modes = 0: nothing is changed.
    state = libc.adjtimex(ctypes.create_string_buffer(512))
    return None if state < 0 else bool(state != _TIME_ERROR)


def limits() -> Iterator[Finding]:
    """Tell of descriptors and core files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    facts = {"soft": soft, "hard": hard}
    text = f"{_number(soft)} descriptors, up to {_number(hard)} (the monitor raises its own)"
    is_few = hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS
    yield Finding(LIMITS, WARNING if is_few else OK, text + (": few for one per host and per worker" if is_few else ""), facts)
    core = resource.getrlimit(resource.RLIMIT_CORE)[0]
    if core:
        yield Finding(
            LIMITS, NOTE, "core files are on for this shell's processes; the monitor writes none, your workers' hold logins"
        )


def keepalive() -> Iterator[Finding]:
    """Tell what ends a connection to a vanished host when no monitor runs."""
    names = ("tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes", "tcp_retries2")
    facts = {name: value for name in names if (value := _sysctl(name)) is not None}
    text = f"each connection gets {FLOOR} unless it sets its own"
    if facts:
        text += f"; the kernel's are {', '.join(f'{name} {value}' for name, value in facts.items())}"
    yield Finding(KEEPALIVE, OK, text, facts)
    yield Finding(
        KEEPALIVE, NOTE, "no floor sees a stopped server: its kernel answers for it. Without a monitor, set a time-out on queries"
    )


def _sysctl(name: str) -> int | None:
    try:
        return int((_SYSCTL / name).read_text())
    except (OSError, ValueError):
        return None


def _number(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
