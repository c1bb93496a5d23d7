"""As `writer_hung`, with failure detection tuned to 100 ms x 3."""

from __future__ import annotations

from tests.benchmarks.bench import OURS, Bench, Figure, Line, Row, Side
from tests.benchmarks.outages import TUNED
from tests.benchmarks.rows.writer_hung import outage

# What the reference's earlier figure was measured with.
_REFERENCE = {"failure_detection_time_ms": 1000, "failure_detection_interval_ms": 500, "failure_detection_count": 3}
GOAL = 1.3


def measure(bench: Bench, side: Side) -> list[Figure]:
    return outage(bench, side, dict(TUNED) if side.name == OURS else _REFERENCE, bench.rounds(20, 4), 0.1, GOAL)


ROW = Row(
    "writer_hung_tuned",
    (
        Line(
            "the same with `failure_detection_interval_ms=100`, `failure_detection_count=3` (reference: 1000/500/3)",
            "7.1 s with 1000/500/3",
            "≤ 1.3 s",
        ),
    ),
    measure,
)
