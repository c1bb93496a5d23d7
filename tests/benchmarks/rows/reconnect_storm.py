"""A writer dies under 200 connections: how many log in to its successor at once, and how soon have all moved?"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence

from tests.benchmarks.bench import WORKERS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.stats import seconds
from tests.drivers import POSTGRESQL
from wrapper.testing import LabError

CONNECTIONS = 25
PROMOTION_DELAY = 1.0
WINDOW = 0.1
PATIENCE = 30.0
UNLIMITED: dict[str, float] = {"failover_reconnect_rate": 0}


def peak(logins: Sequence[float], window: float = WINDOW) -> int:
    """Return the largest number of logins within any `window` seconds; `logins` in order.

    >>> peak([0.0, 0.05, 0.12, 0.13, 0.5])
    3
    """
    return max((number - bisect_left(logins, at - window) for number, at in enumerate(logins, 1)), default=0)


def _play(stage: Stage, parameters: dict[str, float]) -> tuple[int, float, int]:
    """Return the peak of logins, the seconds from the first until all have moved, and how many have not."""
    workers = [stage.start("storm", connections=CONNECTIONS, pause=0.05, parameters=parameters) for _ in range(WORKERS)]
    for worker in workers:
        worker.expect("connected", 60)
    stage.monitor.wait_until_watching(len(stage.lab.instances), clients=WORKERS)
    time.sleep(1.0)  # the workers tell how many connections they have
    struck = time.monotonic()
    stage.lab.kill(stage.lab.writer.id)
    stage.lab.promote_later(PROMOTION_DELAY, stage.lab.readers[0].id, rejoin=False)
    total = WORKERS * CONNECTIONS
    deadline = struck + PATIENCE
    while time.monotonic() < deadline and sum(len(worker.events("moved", struck)) for worker in workers) < total:
        time.sleep(0.05)
    promoted = stage.lab.wait_for_promotion().at
    moved = [event for worker in workers for event in worker.events("moved", struck)]
    for worker in workers:
        stage.stop(worker)
    if not moved:
        raise LabError(f"not one of {total} connections has moved within {PATIENCE:g} s")
    logins = sorted(event.facts["login"] for event in moved)
    return peak(logins), max(event.at for event in moved) - promoted, total - len(moved)


def measure(bench: Bench, side: Side) -> list[Figure]:
    figures: list[Figure] = []
    if side.driver.engine is not POSTGRESQL:
        return figures  # its workers are psycopg's alone
    for parameters in ({}, UNLIMITED):
        rounds = []
        for _ in range(bench.rounds(5, 2)):
            with bench.stage(side) as stage:
                rounds.append(_play(stage, parameters))
        peaks, times, missing = zip(*rounds, strict=True)
        text = (
            f"at most {max(peaks)} logins in {WINDOW * 1000:.0f} ms; all moved after {seconds(max(times))} (worst of {len(rounds)})"
        )
        if any(missing):
            text += f"; {sum(missing)} did not move"
        met = None if parameters else max(times) <= 1.0 and not any(missing)
        figures.append(Figure(text, met, {"peaks": peaks, "times": times, "missing": missing}))
    return figures


ROW = Row(
    "reconnect_storm",
    (
        Line(
            f"writer killed under {WORKERS} processes with {CONNECTIONS} connections each: logins begun at the new writer, "
            "time until all have moved",
            "",
            "all moved in ≤ 1 s",
            engine=POSTGRESQL.name,
        ),
        Line("the same without a limit (`failover_reconnect_rate=0`)", "", "", engine=POSTGRESQL.name),
    ),
    measure,
    compares=False,
)
