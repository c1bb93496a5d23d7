"""The writer dies, another one is promoted a second later: how much longer than the database itself are the workers out?"""

from __future__ import annotations

import time

from tests.benchmarks.bench import OURS, RAW, WORKERS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.outages import PAUSE, back, describe, played
from tests.benchmarks.stats import median_and_worst, phases

GOAL = 0.050
WINDOW = 25.0


def _floor(stage: Stage, rounds: int) -> list[float]:
    """Have as many raw connections dropped by a server in good health; return the seconds until each writes again.

    What eight processes that connect at once cost on this machine, without anything to detect or to decide.
    """
    workers = [stage.start("load", side=RAW, pause=PAUSE) for _ in range(WORKERS)]
    for worker in workers:
        worker.expect("back", 30)
    taken: list[float] = []
    for _ in range(rounds):
        dropped = time.monotonic()
        stage.lab.drop_sessions("writer")
        returned = [back(worker, dropped, dropped + 10) for worker in workers]
        first = min(event.at for worker in workers for event in worker.events("failed", dropped))
        taken += [at - first for at in returned if at is not None]
    for worker in workers:
        stage.stop(worker)
    return taken


def measure(bench: Bench, side: Side) -> list[Figure]:
    figures = []
    is_ours = side.name == OURS
    rounds = bench.rounds(10, 3) if is_ours else bench.rounds(2, 1)
    for drop_sessions in (False, True):
        with bench.stage(side) as stage:
            floor = _floor(stage, rounds) if is_ours else []
            moments = list(phases(rounds, 1.0))
            outages = played(stage, stage.lab.kill, moments, drop_sessions=drop_sessions, window=10.0 if is_ours else WINDOW)
        values = [value for outage in outages for value in outage.beyond]
        missing = sum(outage.missing for outage in outages)
        met = bool(values) and not missing and max(values) <= GOAL
        text = describe(outages, values, WINDOW)
        if values:
            proved = [value for outage in outages for value in outage.beyond_proof]
            text += f"; counted from then {median_and_worst(proved)}"
        if floor:
            text += f"; control, {WORKERS} raw connections dropped by a healthy server: {median_and_worst(floor)}"
        figures.append(Figure(text, met, {"beyond": values, "missing": missing, "control": floor}))
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
