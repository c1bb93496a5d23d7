"""The monitor is stopped for a minute and continued, under load: nothing may happen."""

from __future__ import annotations

import os
import signal
import time

from tests.benchmarks.bench import WORKERS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.outages import Fleet

# Seconds after the pause in which a wrong conclusion would show.
_AFTERMATH = 4.0


def _sessions(stage: Stage) -> set[int]:
    """Return the server processes of the workers' connections."""
    return {
        session["pid"]
        for session in stage.lab.sessions(stage.lab.writer.id)
        if session["usename"] == stage.lab.user and not session["application_name"].startswith("aws-shared-monitor")
    }


def measure(bench: Bench, side: Side) -> list[Figure]:
    pause = 10.0 if bench.quick else 60.0
    with bench.stage(side) as stage:
        fleet = Fleet(stage)
        idle = [stage.start("load", idle=True) for _ in range(WORKERS // 2)]
        for worker in idle:
            worker.expect("connected", 30)
        monitor = stage.monitor.wait_until_watching(len(stage.lab.instances), clients=WORKERS + len(idle))
        before = _sessions(stage)
        began = time.monotonic()
        os.kill(monitor, signal.SIGSTOP)
        try:
            time.sleep(pause)
        finally:
            os.kill(monitor, signal.SIGCONT)
        time.sleep(_AFTERMATH)
        aborted = len(before - _sessions(stage))
        failed = len(fleet.failed(began))
        fleet.stop()
    text = f"{aborted} of {len(before)} connections aborted, {failed} failed queries (stopped for {pause:.0f} s)"
    return [Figure(text, aborted == failed == 0, {"aborted": aborted, "failed": failed, "pause": pause})]


ROW = Row(
    "monitor_paused",
    (
        Line(
            "monitor SIGSTOPped 60 s (`--quick`: 10 s) and continued, 8 busy and 4 idle workers: connections aborted, failed "
            "queries",
            "-",
            "0, 0",
        ),
    ),
    measure,
    compares=False,
)
