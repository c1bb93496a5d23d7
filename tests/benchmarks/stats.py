"""Numbers into text. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median


def seconds(value: float) -> str:
    """Return a time in the unit that people read it in."""
    if value < 0.0995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 9.95 else f"{value:.1f} s"


def median_and_worst(values: Sequence[float]) -> str:
    """Return `p50 …, worst …` of times in seconds."""
    return f"p50 {seconds(median(values))}, worst {seconds(max(values))}"


def mebibytes(kibibytes: float) -> str:
    return f"{kibibytes / 1024:+.1f} MiB"


def phases(rounds: int, span: float) -> Iterable[float]:
    """Return `rounds` delays that cover `span` seconds evenly: the moments at which something periodic is struck.

    >>> list(phases(4, 1.0))
    [0.125, 0.375, 0.625, 0.875]
    """
    return [(turn + 0.5) * span / rounds for turn in range(rounds)]
