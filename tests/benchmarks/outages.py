"""A fleet of writing workers, a prober that stands for the database itself, and what an outage looked like to each."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.benchmarks.bench import OURS, RAW, WORKERS, Stage
from tests.benchmarks.children import Child, Event
from tests.benchmarks.stats import median_and_worst, seconds

# Seconds between two writes of a worker, and of the prober, which sets the resolution of the database's own gap.
PAUSE = 0.01
PROBER_PAUSE = 0.002
# Seconds after the fault at which another instance is promoted.
PROMOTION_DELAY = 1.0
# A worker is back when nothing has failed for this long since: a promoted server may drop its sessions once more.
_QUIET = 0.3
# The keys of the tuned rows.
TUNED = {"failure_detection_interval_ms": 100, "failure_detection_count": 3}


class Fleet:
    """Workers that write all the time, each in a process of its own."""

    def __init__(self, stage: Stage, workers: int = WORKERS, **arguments: Any) -> None:
        self._stage = stage
        self.workers = [stage.start("load", pause=PAUSE, **arguments) for _ in range(workers)]
        for worker in self.workers:
            worker.expect("back", 30)
        if stage.side.name == OURS:
            stage.monitor.wait_until_watching(len(stage.lab.instances), clients=workers)

    def stop(self, patience: float = 3.0) -> None:
        """End the workers. One that hangs in a call is ended by force after `patience` seconds."""
        for worker in self.workers:
            worker.command("stop")
        for worker in self.workers:
            self._stage.stop(worker, patience)

    def failed(self, since: float) -> list[Event]:
        """Return the failures that any worker met."""
        return [event for worker in self.workers for event in worker.events("failed", since)]

    def wait_until_back(self, since: float, deadline: float) -> list[float | None]:
        """Return when each worker was back for good after a fault at `since`; None for those that are not by the deadline."""
        return [back(worker, since, deadline) for worker in self.workers]


def back(worker: Child, since: float, deadline: float) -> float | None:
    """Return when a worker's first write of a run without failures was confirmed, None when that is not by the deadline."""
    while True:
        found = worker.wait_for("back", deadline - time.monotonic(), since)
        if found is None:
            return None
        failed = max((event.at for event in worker.events("failed", since)), default=since)
        # The first of them: a later one only says that a write took long.
        first = next((event.at for event in worker.events("back", failed)), None)
        if first is not None and time.monotonic() - first > _QUIET:
            return first
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Outage:
    """One fault. `struck`: when it began; `database`: when the new writer took writes; `published`: when its own status function
    said that it is the writer, which is what either wrapper goes by; `back`: when each worker's writes were taken."""

    struck: float
    database: float
    published: float
    back: tuple[float | None, ...]

    @property
    def beyond(self) -> list[float]:
        """Seconds that each recovered worker needed longer than the database."""
        return [at - self.database for at in self.back if at is not None]

    @property
    def beyond_proof(self) -> list[float]:
        """Seconds that each recovered worker needed after the new writer called itself that."""
        return [at - self.published for at in self.back if at is not None]

    @property
    def total(self) -> list[float]:
        """Seconds from the fault until each recovered worker wrote again."""
        return [at - self.struck for at in self.back if at is not None]

    @property
    def missing(self) -> int:
        """Workers that did not come back in time."""
        return self.back.count(None)


def play(stage: Stage, fleet: Fleet, strike: Callable[[str], None], *, drop_sessions: bool = True, window: float = 15.0) -> Outage:
    """Strike the writer, have another one promoted after `PROMOTION_DELAY`, and watch for `window` seconds at most."""
    lab = stage.lab
    victim, target = lab.writer, lab.readers[0]
    # Until the promotion every write of it is refused, which is the point.
    prober = stage.start("load", side=RAW, instance=target.id, pause=PROBER_PAUSE)
    prober.expect("connected", 10)
    struck = time.monotonic()
    strike(victim.id)
    lab.promote_later(max(0.0, struck + PROMOTION_DELAY - time.monotonic()), target.id, rejoin=False, drop_sessions=drop_sessions)
    deadline = struck + window
    workers = fleet.wait_until_back(struck, deadline)
    database = back(prober, struck, max(deadline, time.monotonic() + 2 * _QUIET))
    if database is None:
        raise RuntimeError(f"instance {target.id} took no write within {window:g} s of its promotion")
    stage.stop(prober)
    first = min([database, *(at for at in workers if at is not None)])
    return Outage(struck, first, lab.wait_for_promotion().at, tuple(workers))


def recover(stage: Stage, fleet: Fleet) -> None:
    """Bring the cluster back into good health, and the fleet with it, before the next round."""
    began = time.monotonic()
    stage.lab.reset()
    if stage.side.name == OURS:
        stage.monitor.wait_until_watching(len(stage.lab.instances), clients=len(fleet.workers))
    else:
        # Time for the reference's monitors to find every instance again.
        time.sleep(2.0)
    if any(at is None for at in fleet.wait_until_back(0.0, time.monotonic() + 5.0)):
        raise RuntimeError(f"a worker does not write {time.monotonic() - began:.1f} s after the cluster was repaired")


def played(
    stage: Stage,
    strike: Callable[[str], None],
    delays: list[float],
    *,
    drop_sessions: bool = True,
    window: float = 15.0,
    parameters: dict[str, Any] | None = None,
) -> list[Outage]:
    """Play one outage per delay, each that many seconds after everything was well. A fleet with casualties is replaced."""
    outages: list[Outage] = []
    fleet: Fleet | None = None
    for delay in delays:
        if fleet is None:
            stage.lab.reset()
            fleet = Fleet(stage, parameters=parameters or {})
        else:
            recover(stage, fleet)
        time.sleep(delay)
        outages.append(play(stage, fleet, strike, drop_sessions=drop_sessions, window=window))
        if outages[-1].missing:
            fleet.stop(0.5)
            fleet = None
    if fleet is not None:
        fleet.stop()
    return outages


def describe(outages: list[Outage], values: list[float], window: float) -> str:
    """Return `p50 …, worst … (n workers x rounds)`, or how many never came back."""
    missing = sum(outage.missing for outage in outages)
    asked = sum(len(outage.back) for outage in outages)
    gap = median(outage.database - outage.struck for outage in outages)
    published = median(outage.published - outage.database for outage in outages)
    counted = (
        f"{asked - missing} of {asked} workers back, {len(outages)} rounds; the database's own {seconds(gap)}, "
        f"it calls itself the writer {published * 1000:+.0f} ms later"
    )
    if not values:
        return f"never within {window:g} s ({counted})"
    return f"{median_and_worst(values)} ({counted})"
