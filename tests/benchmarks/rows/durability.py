"""Failovers under load with synchronous replication: nothing acknowledged is lost, nothing is written twice."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.benchmarks.bench import WORKERS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.children import Child
from tests.benchmarks.outages import TUNED
from tests.benchmarks.workers.ledger import PARTS

MODES = ("autocommit", "transaction")


def _fail_over(stage: Stage, turn: int) -> None:
    """Move the writer in one of three ways: it is killed, it hangs, or it is stopped in order."""
    way = turn % 3
    if way == 2:
        stage.lab.failover()
        return
    (stage.lab.kill, stage.lab.hang)[way]("writer")
    stage.lab.promote_later(0.2, rejoin=False)
    stage.lab.wait_for_promotion()


def _wait_for_progress(workers: list[Child]) -> None:
    since = time.monotonic()
    for worker in workers:
        worker.expect("wrote", 30, since)


def measure(bench: Bench, side: Side) -> list[Figure]:
    failovers = bench.rounds(20, 6)
    with bench.stage(side, synchronous=True) as stage, tempfile.TemporaryDirectory(prefix="bench-") as directory:
        # No unique index: a row that is written twice must show.
        stage.ask(
            "DROP TABLE IF EXISTS bench_ledger",
            "CREATE TABLE bench_ledger (worker int, n int, part int)",
            "CREATE INDEX bench_ledger_key ON bench_ledger (worker, n)",
        )
        files = [Path(directory) / str(number) for number in range(WORKERS)]
        workers = [
            stage.start("ledger", mode=MODES[number % 2], worker=number, file=str(file), parameters=dict(TUNED))
            for number, file in enumerate(files)
        ]
        for worker in workers:
            worker.expect("connected", 30)
        stage.monitor.wait_until_watching(len(stage.lab.instances), clients=WORKERS)
        for turn in range(failovers):
            _fail_over(stage, turn)
            _wait_for_progress(workers)
            stage.lab.reset()
            stage.monitor.wait_until_watching(len(stage.lab.instances), clients=WORKERS)
        for worker in workers:
            worker.command("stop")
        for worker in workers:
            worker.expect("done", 30)
        return [_compare(stage, files, failovers)]


def _compare(stage: Stage, files: list[Path], failovers: int) -> Figure:
    rows = Counter(stage.ask("SELECT worker, n, part FROM bench_ledger"))
    account: Counter[str] = Counter()
    acknowledged = lost = 0
    for number, file in enumerate(files):
        kept = json.loads(file.read_text(encoding="utf-8"))
        account.update(kept["account"])
        acknowledged += len(kept["acknowledged"])
        parts = PARTS if MODES[number % 2] == "transaction" else 1
        lost += sum(any((number, n, part) not in rows for part in range(parts)) for n in kept["acknowledged"])
    twice = sum(count > 1 for count in rows.values())
    met_errors = ", ".join(f"{count} {name}" for name, count in sorted(account.items()))
    text = f"{lost} of {acknowledged} lost, {twice} written twice ({failovers} failovers; {met_errors})"
    return Figure(text, lost == twice == 0, {"acknowledged": acknowledged, "lost": lost, "twice": twice, "account": dict(account)})


ROW = Row(
    "durability",
    (
        Line(
            "failovers (kill, hang, orderly) with synchronous replication, load in autocommit and in transactions, redone by the "
            "rule of `outcome`",
            "-",
            "0 acknowledged writes lost, 0 written twice",
        ),
    ),
    measure,
    compares=False,
)
