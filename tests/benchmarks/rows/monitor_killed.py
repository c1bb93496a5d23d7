"""The monitor is killed under load: does any query notice, and when does a new one watch again?"""

from __future__ import annotations

import os
import signal
import time

from tests.benchmarks.bench import WORKERS, Bench, Figure, Line, Row, Side
from tests.benchmarks.outages import Fleet
from tests.benchmarks.stats import median_and_worst, phases

GOAL = 2.0


def measure(bench: Bench, side: Side) -> list[Figure]:
    times: list[float] = []
    with bench.stage(side) as stage:
        fleet = Fleet(stage, observe=True)
        began = time.monotonic()
        for delay in phases(bench.rounds(10, 3), 1.0):
            time.sleep(delay)
            old = stage.monitor.wait_until_watching(len(stage.lab.instances), clients=WORKERS)
            struck = time.monotonic()
            os.kill(old, signal.SIGKILL)
            known = [
                worker.expect(
                    "state",
                    15,
                    since=struck,
                    accept=lambda event: event.facts["live"] and event.facts["confirmed"] and event.facts["writer"] is not None,
                ).at
                for worker in fleet.workers
            ]
            times.append(max(known) - struck)
        failed = len(fleet.failed(began))
        fleet.stop()
    text = f"{failed} failed queries; {median_and_worst(times)} until all {WORKERS} workers follow a new monitor"
    return [Figure(text, failed == 0 and max(times) <= GOAL, {"failed": failed, "seconds": times})]


ROW = Row(
    "monitor_killed",
    (Line("monitor SIGKILLed under load: failed queries; time until a new monitor watches again", "-", "0; ≤ 2 s"),),
    measure,
    compares=False,
)
