"""What the wrapper adds to a query."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.bench import Bench, Figure, Line, Row, Side, Stage

GOAL = 1.10


def cost(stage: Stage, operation: str, times: int, rounds: int) -> dict[str, Any]:
    """Have one operation measured raw and wrapped in turns, in one process; return the medians."""
    child = stage.start("cost", direct=True, operation=operation, times=times, rounds=rounds)
    measured = child.expect("measured", timeout=120)
    return dict(measured.facts)


def measure(bench: Bench, side: Side) -> list[Figure]:
    figures = []
    with bench.stage(side) as stage:
        for operation in ("select_one", "select_one_new_cursor"):
            found = cost(stage, operation, times=300, rounds=bench.rounds(100, 30))
            absolute = f"{found['raw'] * 1e6:.0f} → {found['seconds'] * 1e6:.0f} µs"
            text = f"{found['ratio']:.2f} x ({absolute}; raw over raw {found['control']:.2f})"
            figures.append(Figure(text, found["ratio"] <= GOAL, found))
    return figures


ROW = Row(
    "query_cost",
    (
        Line(
            '`execute("SELECT 1")` + `fetchone()` on one cursor, default plugins, p50 over the raw driver', "2.8-3.6 x", "≤ 1.10 x"
        ),
        Line("the same with a new cursor for each query", "", "≤ 1.10 x"),
    ),
    measure,
)
