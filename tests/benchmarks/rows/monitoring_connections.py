"""How many database connections watching costs, in peace and while the writer is gone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.bench import OURS, WORKERS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.outages import PROMOTION_DELAY, Fleet
from tests.benchmarks.stats import seconds
from tests.drivers import ask

_SAMPLE_INTERVAL = 0.02
# Seconds that peace and aftermath are watched for.
_PEACE = 3.0
_AFTERMATH = 8.0
BACK_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The application's sessions on all instances at one moment: address of the server, number there, name of the client."""

    at: float
    sessions: frozenset[tuple[str, int, str]]

    @property
    def monitor(self) -> int:
        """How many are the shared monitor's."""
        return sum(name.startswith("aws-shared-monitor") for _, _, name in self.sessions)

    def without(self, own: set[tuple[str, int]]) -> int:
        """How many are not among `own`."""
        return sum((address, number) not in own for address, number, _ in self.sessions)


class Counter:
    """Counts over a superuser connection to each instance, opened again when it is lost."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._connections: dict[str, Any] = {}

    def sample(self, seconds_long: float) -> list[Sample]:
        samples = []
        until = time.monotonic() + seconds_long
        while time.monotonic() < until:
            instances = self._stage.lab.instances
            sessions = frozenset((each.direct_address, *session) for each in instances for session in self._list(each.id))
            samples.append(Sample(time.monotonic(), sessions))
            time.sleep(_SAMPLE_INTERVAL)
        return samples

    def _list(self, instance: str) -> list[tuple[Any, ...]]:
        driver = self._stage.side.driver
        try:
            if instance not in self._connections:
                self._connections[instance] = self._stage.admin(instance)
            return ask(self._connections[instance], driver.engine.sessions)
        except driver.module.Error:
            self._close(instance)
            return []  # it is down: nobody is connected

    def _close(self, instance: str) -> None:
        connection = self._connections.pop(instance, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        for instance in list(self._connections):
            self._close(instance)


def measure(bench: Bench, side: Side) -> list[Figure]:
    with bench.stage(side) as stage:
        fleet = Fleet(stage)
        hosts = len(stage.lab.instances)
        time.sleep(2.0)
        counter = Counter(stage)
        try:
            peace = counter.sample(_PEACE)
            struck = time.monotonic()
            stage.lab.kill("writer")
            stage.lab.promote_later(PROMOTION_DELAY, rejoin=True)
            # Nobody can have moved before the promotion: whatever appears until then looks for the writer.
            panic = [sample for sample in counter.sample(PROMOTION_DELAY * 0.95) if sample.at > struck]
            after = counter.sample(_AFTERMATH)
        finally:
            counter.close()
        # The workers' own are those that they ever wrote on.
        own = {(event.facts["host"], event.facts["session"]) for worker in fleet.workers for event in worker.events("back")}
    promoted = struck + PROMOTION_DELAY
    steady = max(sample.without(own) for sample in peace)
    peak = max(sample.without(own) for sample in panic)
    monitors = max(sample.monitor for sample in (*panic, *after))
    above = [sample.at - promoted for sample in after if sample.without(own) > steady]
    is_back = after[-1].without(own) <= steady
    restored = max(above, default=0.0)
    numbers = {"steady": steady, "panic": peak, "panic_monitor": monitors, "restored": restored if is_back else None}
    text = f"{steady} steady; {peak} in panic" + (f" (the monitor's own at most {monitors})" if side.name == OURS else "")
    text += f"; back after {seconds(restored)}" if is_back else f"; {after[-1].without(own)} after {_AFTERMATH:.0f} s"
    met = steady <= hosts + 1 and max(peak, monitors) <= 2 * hosts + 1 and is_back and restored <= BACK_WITHIN
    return [Figure(text, met, numbers)]


ROW = Row(
    "monitoring_connections",
    (
        Line(
            f"database connections held for monitoring, {WORKERS} processes with 1 connection each, 3 hosts: steady, in panic, "
            "seconds until back",
            "8 to 16, grows with processes",
            "4 steady, 7 in panic, back within 5 s",
        ),
    ),
    measure,
)
