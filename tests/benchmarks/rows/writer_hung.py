"""The writer falls silent, another one is promoted a second later: how long is each worker out?"""

from __future__ import annotations

from typing import Any

from tests.benchmarks.bench import OURS, Bench, Figure, Line, Row, Side
from tests.benchmarks.outages import describe, played
from tests.benchmarks.stats import phases

GOAL = 3.0
# The reference needs 40 s or so.
WINDOW = 75.0


def outage(bench: Bench, side: Side, parameters: dict[str, Any], rounds: int, span: float, goal: float) -> list[Figure]:
    """Hang the writer at moments spread over the probe interval `span`; the worst outage of any worker decides.

    The promoted server drops its sessions, as Aurora does. The reference may not survive that: it gets a second round without.
    """
    is_ours = side.name == OURS
    texts, values, missing = [], [], 0
    for drop_sessions in (True,) if is_ours else (True, False):
        with bench.stage(side) as stage:
            moments = list(phases(rounds, span)) if is_ours else [0.0]
            outages = played(stage, stage.lab.hang, moments, drop_sessions=drop_sessions, window=WINDOW, parameters=parameters)
        found = [value for outage in outages for value in outage.total]
        texts.append(describe(outages, found, WINDOW) + ("" if drop_sessions else " where the promoted server keeps its sessions"))
        values += found
        missing += sum(outage.missing for outage in outages)
    met = bool(values) and not missing and max(values) <= goal
    return [Figure("; ".join(texts), met, {"total": values, "missing": missing})]


def measure(bench: Bench, side: Side) -> list[Figure]:
    return outage(bench, side, {}, bench.rounds(20, 4), 1.0, GOAL)


ROW = Row(
    "writer_hung",
    (
        Line(
            "writer hung (SIGSTOP), another promoted after 1 s, 8 workers writing, default settings: outage per worker",
            "40.0 s",
            "≤ 3 s",
        ),
    ),
    measure,
)
