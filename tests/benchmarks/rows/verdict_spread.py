"""How fast everybody knows: the writer is killed, and every process of the host, busy or idle, has it in its shared state."""

from __future__ import annotations

import time

from tests.benchmarks.bench import RAW, WORKERS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.children import Child
from tests.benchmarks.outages import PROBER_PAUSE, Fleet, recover
from tests.benchmarks.stats import median_and_worst, phases
from wrapper.hosts import host_key

GOAL = 0.050


def measure(bench: Bench, side: Side) -> list[Figure]:
    times: list[float] = []
    with bench.stage(side) as stage:
        busy = Fleet(stage, WORKERS // 2, observe=True)
        idle = [stage.start("load", idle=True, observe=True) for _ in range(WORKERS // 2)]
        for worker in idle:
            worker.expect("connected", 30)
        for turn, delay in enumerate(phases(bench.rounds(20, 4), 1.0)):
            if turn:
                recover(stage, busy)
            stage.monitor.wait_until_watching(len(stage.lab.instances), clients=WORKERS)
            times.append(_spread(stage, busy, idle, delay))
    text = f"{median_and_worst(times)} ({len(times)} kills)"
    return [Figure(text, max(times) <= GOAL, {"seconds": times})]


def _spread(stage: Stage, busy: Fleet, idle: list[Child], delay: float) -> float:
    """Kill the writer; return the seconds from the first sign of it to the last process that has it."""
    victim = stage.lab.writer
    key = host_key(victim.address, victim.port)
    # A raw connection that writes all the time tells when the first sign could be seen.
    canary = stage.start("load", side=RAW, pause=PROBER_PAUSE)
    canary.expect("back", 10)
    time.sleep(delay)
    struck = time.monotonic()
    stage.lab.kill(victim.id)
    stage.lab.promote_later(0.1, rejoin=False)
    workers = (*busy.workers, *idle)
    known = [worker.expect("state", 10, struck, lambda event: key in event.facts["failing"]).at for worker in workers]
    seen = min([canary.expect("failed", 10, struck).at, *known])
    stage.stop(canary)
    busy.wait_until_back(struck, struck + 10)
    return max(known) - seen


ROW = Row(
    "verdict_spread",
    (
        Line(
            "writer killed (reset): until every process, 4 busy and 4 idle, has the verdict in its shared state, after the "
            "first sign of it",
            "each on its own",
            "≤ 50 ms",
        ),
    ),
    measure,
    compares=False,
)
