"""What the wrapper adds to fetching rows that are in memory already."""

from __future__ import annotations

from tests.benchmarks.bench import Bench, Figure, Line, Row, Side
from tests.benchmarks.rows.query_cost import cost

ROWS = 20_000
# The very same function as the driver's; what is left is the noise of the measurement.
GOAL = 1.02


def measure(bench: Bench, side: Side) -> list[Figure]:
    with bench.stage(side) as stage:
        found = cost(stage, "fetch_rows", times=ROWS, rounds=bench.rounds(30, 8))
    text = (
        f"{found['ratio']:.2f} x ({found['raw'] * 1e9:.0f} → {found['seconds'] * 1e9:.0f} ns; raw over raw {found['control']:.2f})"
    )
    return [Figure(text, found["ratio"] <= GOAL, found)]


ROW = Row(
    "fetch_cost",
    (Line("fetching 20,000 rows one `fetchone()` at a time, over raw psycopg", "45-63 x", "1.0 x by construction"),),
    measure,
)
