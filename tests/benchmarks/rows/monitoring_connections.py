"""How many database connections watching costs, in peace and while the writer is gone."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg

from tests.benchmarks.bench import OURS, WORKERS, Bench, Figure, Line, Row, Side, Stage
from tests.benchmarks.outages import PROMOTION_DELAY, Fleet
from tests.benchmarks.stats import seconds

# Everything but the workers' own connections, which are known by their last query.
_COUNT = """\
SELECT count(*) FILTER (WHERE application_name LIKE 'aws-shared-monitor%'), count(*)
  FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND usename = 'app' AND query NOT LIKE 'INSERT INTO bench_writes%'"""
_SAMPLE_INTERVAL = 0.02
# Seconds that peace and aftermath are watched for.
_PEACE = 3.0
_AFTERMATH = 8.0
BACK_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Sessions on all instances at one moment: the shared monitor's, and all that are not a worker's own."""

    at: float
    monitor: int
    all: int


class Counter:
    """Counts over a superuser connection to each instance, opened again when it is lost."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._connections: dict[str, psycopg.Connection[tuple[int, int]]] = {}

    def sample(self, seconds_long: float) -> list[Sample]:
        samples = []
        until = time.monotonic() + seconds_long
        while time.monotonic() < until:
            counts = [self._count(instance.id) for instance in self._stage.lab.instances]
            samples.append(Sample(time.monotonic(), sum(count[0] for count in counts), sum(count[1] for count in counts)))
            time.sleep(_SAMPLE_INTERVAL)
        return samples

    def _count(self, instance: str) -> tuple[int, int]:
        try:
            if instance not in self._connections:
                self._connections[instance] = self._stage.admin(instance)
            row = self._connections[instance].execute(_COUNT).fetchone()
        except psycopg.OperationalError:
            self._close(instance)
            return 0, 0  # it is down: nobody is connected
        assert row is not None
        return row

    def _close(self, instance: str) -> None:
        connection = self._connections.pop(instance, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        for instance in list(self._connections):
            self._close(instance)


def measure(bench: Bench, side: Side) -> list[Figure]:
    with bench.stage(side) as stage:
        Fleet(stage)
        hosts = len(stage.lab.instances)
        time.sleep(2.0)
        counter = Counter(stage)
        try:
            steady = max(sample.all for sample in counter.sample(_PEACE))
            struck = time.monotonic()
            stage.lab.kill("writer")
            stage.lab.promote_later(PROMOTION_DELAY, rejoin=True)
            # Nobody can have moved before the promotion: whatever appears until then looks for the writer.
            panic = [sample for sample in counter.sample(PROMOTION_DELAY * 0.95) if sample.at > struck]
            after = counter.sample(_AFTERMATH)
        finally:
            counter.close()
    promoted = struck + PROMOTION_DELAY
    peak = max(sample.all for sample in panic)
    monitors = max(sample.monitor for sample in (*panic, *after))
    above = [sample.at - promoted for sample in after if sample.all > steady]
    is_back = after[-1].all <= steady
    restored = max(above, default=0.0)
    numbers = {"steady": steady, "panic": peak, "panic_monitor": monitors, "restored": restored if is_back else None}
    text = f"{steady} steady; {peak} in panic" + (f" (the monitor's own at most {monitors})" if side.name == OURS else "")
    text += f"; back after {seconds(restored)}" if is_back else f"; {after[-1].all} after {_AFTERMATH:.0f} s"
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
