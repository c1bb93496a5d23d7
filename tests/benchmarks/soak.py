"""`python -m tests.benchmarks.soak`: random faults for half an hour; the monitor and its workers must not grow.

Faults strike a cluster under load, one after the other. After each the cluster is put in order, the workers write again, and what
every process holds is counted. Each worker opens and closes connections besides, so that whatever a connection leaves behind shows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks.bench import OURS, Bench, Side, Stage
from tests.benchmarks.outages import TUNED, Fleet, recover
from tests.drivers import PSYCOPG

WORKERS = 4
# Growth from the second quarter of the run to the last that is still called flat.
RSS_TOLERANCE = 1.05
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted in a calm moment, `at` seconds from the start. Resident memory in MiB; of the workers, the largest."""

    at: float
    monitor_rss: float
    monitor_descriptors: int
    monitor_threads: int
    worker_rss: float
    worker_descriptors: int
    worker_threads: int
    sessions: int


def rss(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 2**20


def entries(pid: int, folder: str) -> int:
    return len(os.listdir(f"/proc/{pid}/{folder}"))


def take(stage: Stage, fleet: Fleet, monitor: int, began: float) -> Sample:
    workers = [worker.pid for worker in fleet.workers]
    return Sample(
        at=time.monotonic() - began,
        monitor_rss=rss(monitor),
        monitor_descriptors=entries(monitor, "fd"),
        monitor_threads=entries(monitor, "task"),
        worker_rss=max(map(rss, workers)),
        worker_descriptors=max(entries(pid, "fd") for pid in workers),
        worker_threads=max(entries(pid, "task") for pid in workers),
        sessions=sum(stage.lab.monitoring_sessions().values()),
    )


# -- faults --------------------------------------------------------------------------------------------------------------------


def _replaced(stage: Stage, strike: Callable[[str], None]) -> None:
    strike("writer")
    stage.lab.promote_later(0.3, rejoin=False)
    stage.lab.wait_for_promotion()


def _paused(stage: Stage) -> None:
    monitor = stage.monitor.document()
    if monitor is not None:
        os.kill(monitor["pid"], signal.SIGSTOP)
        time.sleep(2.0)
        os.kill(monitor["pid"], signal.SIGCONT)


def _for_a_moment(stage: Stage, fault: Callable[[str, bool], None]) -> None:
    reader = stage.lab.readers[0].id
    fault(reader, True)
    stage.lab.drop_sessions(reader)
    time.sleep(1.0)
    fault(reader, False)


FAULTS: Mapping[str, Callable[[Stage], object]] = {
    "writer killed, another promoted": lambda stage: _replaced(stage, stage.lab.kill),
    "writer hung, another promoted": lambda stage: _replaced(stage, stage.lab.hang),
    "switchover": lambda stage: stage.lab.failover(),
    "reader killed": lambda stage: stage.lab.kill("reader"),
    "reader hung": lambda stage: stage.lab.hang("reader"),
    "all sessions of the writer ended": lambda stage: stage.lab.drop_sessions(stage.lab.writer.id),
    "logins refused": lambda stage: _for_a_moment(stage, lambda name, on: stage.lab.refuse_logins(name, on)),
    "too many connections": lambda stage: _for_a_moment(stage, lambda name, on: stage.lab.too_many_connections(name, on)),
    "monitor stopped for 2 s": _paused,
}


def soak(stage: Stage, seconds: float, chance: random.Random) -> tuple[list[Sample], Counter[str]]:
    """Strike until the time is over; return the samples and how often each fault struck."""
    fleet = Fleet(stage, WORKERS, parameters=dict(TUNED), churn=True)
    instances = len(stage.lab.instances)
    monitor = stage.monitor.wait_until_watching(instances, clients=WORKERS)
    began = time.monotonic()
    samples: list[Sample] = []
    struck: Counter[str] = Counter()
    while time.monotonic() - began < seconds:
        fault = chance.choice(list(FAULTS))
        struck[fault] += 1
        FAULTS[fault](stage)
        time.sleep(chance.uniform(0.2, 2.0))
        recover(stage, fleet)
        if stage.monitor.wait_until_watching(instances, clients=WORKERS) != monitor:
            raise RuntimeError(f"the monitor was replaced after {fault!r}")
        samples.append(_calm(stage, fleet, monitor, began))
        print(f"{samples[-1].at:6.0f} s  {fault:34}  {samples[-1]}", file=sys.stderr, flush=True)
    return samples, struck


def _calm(stage: Stage, fleet: Fleet, monitor: int, began: float) -> Sample:
    """Sample once what a fault brought with it is gone: the extra sessions of a search end within seconds."""
    deadline = time.monotonic() + 10.0
    while True:
        sample = take(stage, fleet, monitor, began)
        if sample.sessions <= len(stage.lab.instances) + 1 or time.monotonic() > deadline:
            return sample
        time.sleep(0.25)


# -- judging -------------------------------------------------------------------------------------------------------------------


def growth(samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """Return, by name, the median of the second quarter of the run and of the last."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    names = [name for name in asdict(samples[0]) if name != "at"]
    return {name: (median(getattr(one, name) for one in second), median(getattr(one, name) for one in last)) for name in names}


def leaks(found: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of what grew: memory by more than a twentieth, anything that is counted by one or more."""
    return [
        name
        for name, (before, after) in found.items()
        if after > (before * RSS_TOLERANCE if name.endswith("rss") else before + 0.9)
    ]


def as_markdown(samples: Sequence[Sample], struck: Counter[str]) -> str:
    found = growth(samples)
    lines = ["| held | second quarter | last quarter |", "|---|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {before:.1f} | {after:.1f} |" for name, (before, after) in found.items()]
    faults = ", ".join(f"{count} x {name}" for name, count in struck.most_common())
    verdict = f"grew: {', '.join(leaks(found))}" if leaks(found) else "flat"
    return "\n".join([*lines, "", f"{samples[-1].at / 60:.0f} minutes, {len(samples)} faults ({faults}): {verdict}."])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6), help="repeats the faults of another run"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all samples to FILE")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)
    bench = Bench(quick=False)
    try:
        with bench.stage(Side(OURS, sys.executable, PSYCOPG)) as stage:
            samples, struck = soak(stage, options.minutes * 60, random.Random(options.seed))
    finally:
        bench.close()
    if len(samples) < 8:
        print("too short to say anything: fewer than 8 faults struck", file=sys.stderr)
        return 2
    print(as_markdown(samples, struck))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in samples], indent=1) + "\n", encoding="utf-8")
    return 1 if leaks(growth(samples)) else 0


if __name__ == "__main__":
    sys.exit(main())
