"""What a worker with one open connection weighs more than one with a connection of the driver alone."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from tests.benchmarks.bench import RAW, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.stats import mebibytes

# Seconds until a fresh connection's background work has settled, the reference's included.
_SETTLE = 1.5


def _weigh(stage: Stage, side: str) -> dict[str, Any]:
    child = stage.start("footprint", side=side, driver=stage.side.driver.name)
    child.expect("connected", 30)
    time.sleep(_SETTLE)
    child.command("weigh")
    weight = dict(child.expect("weighed", 10).facts)
    stage.stop(child)
    return weight


def measure(bench: Bench, side: Side) -> list[Figure]:
    memory, threads, tasks = [], [], []
    with bench.stage(side) as stage:
        for _ in range(bench.rounds(5, 2)):
            raw, own = _weigh(stage, RAW), _weigh(stage, side.name)
            memory.append(own["private_kib"] - raw["private_kib"])
            threads.append(own["python_threads"] - raw["python_threads"])
            tasks.append(own["threads"] - raw["threads"])
    kib, started = median(memory), max(threads)
    text = f"{mebibytes(kib)}, +{started} Python threads (+{max(tasks)} threads of the kernel's counting)"
    met = kib <= 5 * 1024 and started <= 1
    return [Figure(text, met, {"private_kib": memory, "python_threads": threads, "threads": tasks})]


ROW = Row(
    "worker_footprint",
    (
        Line(
            "a worker with one open connection, over one with a connection of the driver alone: private memory, threads",
            "+41 MiB, +5 threads",
            "≤ 5 MiB, 1 thread",
        ),
    ),
    measure,
)
