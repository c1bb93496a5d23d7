"""How long a process waits before it connects to a host that many others want at the same moment.

Pure and without coordination: every process draws from the same window, so the sum of all stays bounded. The window follows from
how many connections the state says will come; a handful is let through at once.
"""

from __future__ import annotations

# Connects that a database host takes at once without harm, and how many more it takes per second.
BURST = 32
RATE = 400.0
LONGEST = 5.0


def admission_delay(expected: int, draw: float) -> float:
    """Seconds to wait, `expected` being the connections that are coming and `draw` a random number in [0, 1).

    >>> admission_delay(8, 0.9)
    0.0
    >>> admission_delay(432, 0.5)
    0.5
    """
    return draw * min(max(0, expected - BURST) / RATE, LONGEST)
