"""A worker forked after a connection was opened (preload): is the child watched, does it leave the parent's connection alone?"""

from __future__ import annotations

import signal
import time

from tests.benchmarks.bench import OURS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.children import Child
from tests.benchmarks.outages import PROMOTION_DELAY, TUNED
from tests.benchmarks.stats import median_and_worst, phases, seconds

# As for a worker that opened its own connection (row writer_hung_tuned).
GOAL = 1.3
WINDOW = 25.0
# Seconds for which the writer is silent in the second line: long enough for a verdict by the tuned settings.
_SILENCE = 1.0


def _forked(stage: Stage) -> Child:
    """Start a parent and its child; return when the child's own connection works and is watched."""
    worker = stage.start("forking", parameters=dict(TUNED))
    worker.expect("child_back", WINDOW)
    if stage.side.name == OURS:
        stage.monitor.wait_until_watching(len(stage.lab.instances))
    return worker


def _are_both_watched(stage: Stage) -> bool:
    try:
        stage.monitor.wait_until_watching(len(stage.lab.instances), clients=2, timeout=3.0)
    except TimeoutError:
        return False
    return True


def _outage(stage: Stage, delay: float) -> float | None:
    """Hang the writer; return after how many seconds the child has its answers from another one, None when it does not."""
    worker = _forked(stage)
    time.sleep(delay)
    struck = time.monotonic()
    stage.lab.hang("writer")
    # Dropped sessions are more than the reference survives even without a fork.
    stage.lab.promote_later(PROMOTION_DELAY, rejoin=False, drop_sessions=stage.side.name == OURS)
    found = worker.wait_for("child_back", WINDOW, struck)
    stage.stop(worker, 0.5)
    return found.at - struck if found is not None else None


def _is_parent_unharmed(stage: Stage) -> bool:
    """Have the child give up a silent host while the parent is stopped and cannot; return whether the parent's session lives."""
    worker = _forked(stage)
    session = worker.expect("connected", 30).facts["session"]
    worker.signal(signal.SIGSTOP)
    try:
        struck = time.monotonic()
        stage.lab.hang("writer")
        time.sleep(_SILENCE)
        stage.lab.resume("writer")
        worker.wait_for("child_back", WINDOW, struck)
    finally:
        worker.signal(signal.SIGCONT)
    worker.command("end")
    worker.expect("ended", 10)
    worker.command("query")
    answer = worker.expect("answered", 15)
    stage.stop(worker)
    return bool(answer.facts["session"] == session)


def measure(bench: Bench, side: Side) -> list[Figure]:
    rounds = bench.rounds(6, 3) if side.name == OURS else 1
    outages: list[float] = []
    watched = 0
    for delay in phases(rounds, 0.1):
        with bench.stage(side) as stage:
            outage = _outage(stage, delay)
        if outage is not None:
            outages.append(outage)
        if side.name == OURS:
            with bench.stage(side) as stage:
                _forked(stage)
                watched += _are_both_watched(stage)
    with bench.stage(side) as stage:
        unharmed = _is_parent_unharmed(stage)
    missing = rounds - len(outages)
    text = median_and_worst(outages) if outages else f"no answer within {WINDOW:.0f} s"
    text += f", {missing} of {rounds} never" if missing and outages else ""
    parent = "it lives" if unharmed else "it is dead"
    if side.name == OURS:
        parent += f"; after a fork during the first connection's start-up both processes are watched in {watched} of {rounds}"
    return [
        Figure(
            f"{text} (promotion after {seconds(PROMOTION_DELAY)})",
            not missing and max(outages) <= GOAL,
            {"outages": outages, "missing": missing},
        ),
        Figure(parent, unharmed and watched == rounds, {"unharmed": unharmed, "both_watched": watched}),
    ]


ROW = Row(
    "forked_worker",
    (
        Line(
            "worker forked after its parent opened a connection (preload), writer hung, settings 100 ms x 3: outage of the child",
            "hangs 10 s and fails, or is silently unwatched",
            "as not forked: ≤ 1.3 s",
        ),
        Line("the parent's connection after the child's verdict and exit", "", "lives, and is watched as the child is"),
    ),
    measure,
)
