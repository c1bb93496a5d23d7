"""The monitor cannot help when the writer dies: it dies with it, or is stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.benchmarks.bench import WORKERS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.outages import Fleet, Outage, describe, play, recover
from tests.benchmarks.stats import phases

GOAL = 1.0
WINDOW = 15.0
# Seconds the monitor has been stopped when the writer dies: its silence has not been noticed yet, and has been.
_STOPPED_FOR = (0.0, 2.0)


def _killed_together(stage: Stage, fleet: Fleet, turn: int) -> Outage:
    monitor = stage.monitor.wait_until_watching(len(stage.lab.instances), clients=WORKERS)

    def strike(victim: str) -> None:
        os.kill(monitor, signal.SIGKILL)
        stage.lab.kill(victim)

    return play(stage, fleet, strike, window=WINDOW)


def _monitor_stopped(stage: Stage, fleet: Fleet, turn: int) -> Outage:
    monitor = stage.monitor.wait_until_watching(len(stage.lab.instances), clients=WORKERS)
    os.kill(monitor, signal.SIGSTOP)
    try:
        time.sleep(_STOPPED_FOR[turn % len(_STOPPED_FOR)])
        return play(stage, fleet, stage.lab.kill, window=WINDOW)
    finally:
        os.kill(monitor, signal.SIGCONT)


def _measure(bench: Bench, side: Side, strike: Callable[[Stage, Fleet, int], Outage]) -> Figure:
    outages: list[Outage] = []
    with bench.stage(side) as stage:
        fleet = Fleet(stage)
        for turn, delay in enumerate(phases(bench.rounds(8, 2), 1.0)):
            if turn:
                recover(stage, fleet)
            time.sleep(delay)
            outages.append(strike(stage, fleet, turn))
        fleet.stop()
    values = [value for outage in outages for value in outage.beyond]
    missing = sum(outage.missing for outage in outages)
    met = bool(values) and not missing and max(values) <= GOAL
    return Figure(describe(outages, values, WINDOW), met, {"beyond": values, "missing": missing})


def measure(bench: Bench, side: Side) -> list[Figure]:
    return [_measure(bench, side, strike) for strike in (_killed_together, _monitor_stopped)]


ROW = Row(
    "monitor_and_writer_lost",
    (
        Line("monitor and writer SIGKILLed in the same 10 ms: outage beyond the database's own", "-", "≤ 1 s"),
        Line("writer killed while the monitor is SIGSTOPped: outage beyond the database's own", "-", "≤ 1 s"),
    ),
    measure,
    compares=False,
)
