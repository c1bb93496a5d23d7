"""The writer dies, another one is promoted a second later: how much longer than the database itself are the workers out?"""

from __future__ import annotations

from tests.benchmarks.bench import OURS, Bench, Figure, Line, Row, Side
from tests.benchmarks.outages import describe, played
from tests.benchmarks.stats import phases

GOAL = 0.050
WINDOW = 25.0


def measure(bench: Bench, side: Side) -> list[Figure]:
    figures = []
    rounds = bench.rounds(10, 3) if side.name == OURS else bench.rounds(2, 1)
    for drop_sessions in (False, True):
        with bench.stage(side) as stage:
            outages = played(
                stage,
                stage.lab.kill,
                list(phases(rounds, 1.0)),
                drop_sessions=drop_sessions,
                window=WINDOW if side.name != OURS else 10.0,
            )
        values = [value for outage in outages for value in outage.beyond]
        missing = sum(outage.missing for outage in outages)
        met = bool(values) and not missing and max(values) <= GOAL
        figures.append(Figure(describe(outages, values, WINDOW), met, {"beyond": values, "missing": missing}))
    return figures


ROW = Row(
    "writer_killed",
    (
        Line(
            "writer killed, another promoted after 1 s, 8 workers writing: first write after the new writer takes one; it keeps "
            "its sessions",
            "13-83 ms",
            "all 8 in ≤ 50 ms",
        ),
        Line("the same; the promoted server drops its sessions, as Aurora does", "never: 0 of 8 within 25 s", "all 8 in ≤ 50 ms"),
    ),
    measure,
)
