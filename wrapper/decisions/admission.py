"""How long a process waits before it connects to a host that many others want at the same moment.

Pure and without coordination: every connection draws a place in one queue, which is as long as the state says that connections will
come. The first few places go at once, the others at a bounded rate; so the sum of all processes stays bounded.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Connects that a database host takes at once without harm, how many more it takes per second (0: any number), and the longest
    that one of them waits, in seconds."""

    burst: int = 32
    rate: float = 400.0
    longest: float = 5.0


def admission_delay(expected: int, draw: float, bounds: Bounds, elapsed: float = 0.0) -> float:
    """Seconds to wait. `expected`: how many connections are coming; `draw`: a random number in [0, 1); `elapsed`: for how long they
    have been coming, since whoever comes late has waited already.

    >>> admission_delay(8, 0.9, Bounds())
    0.0
    >>> admission_delay(432, 0.5, Bounds())
    0.46
    >>> admission_delay(432, 0.5, Bounds(), elapsed=0.4)
    0.06
    """
    behind = draw * expected - bounds.burst
    if behind <= 0 or bounds.rate <= 0:
        return 0.0
    queue = expected - bounds.burst
    return round(max(0.0, behind / queue * min(queue / bounds.rate, bounds.longest) - elapsed), 6)
