"""A server falls silent while a call waits for its answer: when does the call end?"""

from __future__ import annotations

import time
from typing import Any

from tests.benchmarks.bench import Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.stats import median_and_worst, phases

# By the line: the wrapper's parameters, the interval of the probes, and the goal.
_SETTINGS: tuple[tuple[dict[str, Any], float, float], ...] = (
    ({}, 1.0, 3.0),
    ({"failure_detection_interval_ms": 150, "failure_detection_count": 3}, 0.15, 0.7),
)
_WINDOW = 30.0


def _lasted(stage: Stage, parameters: dict[str, Any], delay: float) -> tuple[float, str]:
    """Hang the writer under a call; return the seconds until it ended, and with which error."""
    # Failover would go on to look for a writer.
    child = stage.start("calling", parameters={"plugins": "host_monitoring_v2", **parameters})
    child.expect("calling", 30)
    stage.monitor.wait_until_watching(len(stage.lab.instances))
    time.sleep(delay)
    struck = time.monotonic()
    stage.lab.hang("writer")
    ended = child.expect("ended", _WINDOW, struck)
    stage.lab.resume("writer")
    stage.stop(child)
    return ended.at - struck, str(ended.facts["error"])


def measure(bench: Bench, side: Side) -> list[Figure]:
    figures = []
    for parameters, interval, goal in _SETTINGS:
        with bench.stage(side) as stage:
            found = [_lasted(stage, parameters, delay) for delay in phases(bench.rounds(10, 4), interval)]
        lasted = [seconds for seconds, _ in found]
        errors = ", ".join(sorted({error for _, error in found}))
        text = f"{median_and_worst(lasted)} ({len(lasted)} times, {errors})"
        figures.append(Figure(text, max(lasted) <= goal, {"seconds": lasted}))
    return figures


ROW = Row(
    "call_in_flight",
    (
        Line(
            "writer hung (SIGSTOP) under a call, `plugins=host_monitoring_v2`, default settings: until the call ends", "", "≤ 3 s"
        ),
        Line("the same with `failure_detection_interval_ms=150`, `failure_detection_count=3`", "", "≤ 0.7 s"),
    ),
    measure,
    compares=False,
)
