"""What the wrapper adds to fetching rows: those that are in memory already, and those that a cursor reads from the network."""

from __future__ import annotations

from tests.benchmarks.bench import Bench, Figure, Line, Row, Side
from tests.benchmarks.rows.query_cost import cost
from tests.drivers import MYSQL

ROWS = 20_000
# In memory: the very same function as the driver's; what is left is the noise of the measurement.
GOALS = {"fetch_rows": 1.02, "fetch_rows_unbuffered": 1.05}


def measure(bench: Bench, side: Side) -> list[Figure]:
    figures = []
    with bench.stage(side) as stage:
        for operation, _ in zip(GOALS, ROW.lines_for(side.driver), strict=False):
            found = cost(stage, operation, times=ROWS, rounds=bench.rounds(30, 8))
            absolute = f"{found['raw'] * 1e9:.0f} → {found['seconds'] * 1e9:.0f} ns"
            text = f"{found['ratio']:.2f} x ({absolute}; raw over raw {found['control']:.2f})"
            figures.append(Figure(text, found["ratio"] <= GOALS[operation], found))
    return figures


ROW = Row(
    "fetch_cost",
    (
        Line("fetching 20,000 rows one `fetchone()` at a time, over the raw driver", "45-63 x", "1.0 x by construction"),
        Line("the same on a cursor that is not buffered and reads the network", "", "≤ 1.05 x", MYSQL.name),
    ),
    measure,
)
