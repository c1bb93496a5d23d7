"""Minor upgrades of RDS Multi-AZ DB clusters: how much longer than the database itself was a writing connection out?

python -m tests.benchmarks.upgrades [ROUNDS]
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import mysql.connector
import psycopg

import wrapper
from monitor_service.cli import main as monitor
from tests.benchmarks.stats import median_and_worst
from tests.integration.conftest import forget_client
from wrapper import AwsWrapperConnection
from wrapper.monitor.process import current_client
from wrapper.testing import LocalAurora

FAST: dict[str, Any] = {"failure_detection_interval_ms": 100, "failure_detection_count": 3}
_PAUSE = 0.002
_PATIENCE = 20.0
_TARGETS: dict[str, Callable[..., Any]] = {"postgresql": psycopg.Connection.connect, "mysql": mysql.connector.connect}


@dataclass
class Writer:
    """A connection that writes row after row on a thread of its own. `confirmed`: each row and when the server had it; `refused`:
    what the connection raised instead."""

    connection: Any
    confirmed: list[tuple[int, float]] = field(default_factory=list)
    refused: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        self._number = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._number += 1
            try:
                with closing(self.connection.cursor()) as cursor:
                    cursor.execute(f"INSERT INTO written VALUES ({self._number})")
            except Exception as error:  # noqa: BLE001  whoever started this looks at it
                self.refused.append(error)
                if not isinstance(error, wrapper.FailoverSuccessError):
                    return
            else:
                self.confirmed.append((self._number, time.monotonic()))
            self._stopping.wait(_PAUSE)

    def wait_for_write_after(self, moment: float) -> None:
        """Wait until a row was confirmed after `moment`."""
        deadline = time.monotonic() + _PATIENCE
        while not self.confirmed or self.confirmed[-1][1] <= moment:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"no write went through any more: {self.refused[-1:]}")
            time.sleep(_PAUSE)

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(_PATIENCE)


@dataclass(frozen=True)
class Interruption:
    """Seconds for which the cluster had no writer, and for which the connection could not write."""

    own: float
    seen: float

    @property
    def beyond(self) -> float:
        return self.seen - self.own


def play(lab: LocalAurora, writer: Writer) -> Interruption:
    """Upgrade the cluster under a connection that writes."""
    writer.wait_for_write_after(time.monotonic())
    report = lab.upgrade()
    writer.wait_for_write_after(report.promoted_at)
    before = max(at for _, at in writer.confirmed if at < report.promoted_at)
    after = min(at for _, at in writer.confirmed if at > report.promoted_at)
    return Interruption(report.timings["without_writer"], after - before)


def connect(lab: LocalAurora) -> Any:
    """Connect with fast settings, and wait until the monitor knows every host."""
    connection = AwsWrapperConnection.connect(_TARGETS[lab.engine], autocommit=True, **lab.parameters(), **FAST)
    watch = connection.plugin_service.watch
    assert watch is not None
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        state = current_client().state.by_watch(watch.key)
        if state is not None and all(host.proved_at is not None for host in state.health.values()) and state.topology.writer:
            return connection
        time.sleep(_PAUSE)
    raise RuntimeError("the monitor did not see every host")


def measure(engine: str, rounds: int) -> list[Interruption]:
    """Play `rounds` upgrades."""
    found = []
    # A monitor resolves names by the file that it was started with, so each lab has its own.
    with LocalAurora(engine=engine, flavor="multi-az") as lab, tempfile.TemporaryDirectory(prefix="asm-") as directory:
        os.environ.update(lab.environment(), AWS_WRAPPER_MONITOR_DIR=directory)
        forget_client()
        for _ in range(rounds):
            lab.reset()
            with closing(connect(lab)) as connection:
                with closing(connection.cursor()) as cursor:
                    cursor.execute("DROP TABLE IF EXISTS written")
                    cursor.execute("CREATE TABLE written (x INT PRIMARY KEY)")
                writer = Writer(connection)
                try:
                    found.append(play(lab, writer))
                finally:
                    writer.stop()
        wrapper.release_resources()
        monitor(["stop"])
    return found


def main() -> None:
    """Print a line per engine."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    for engine in _TARGETS:
        found = measure(engine, rounds)
        own = median_and_worst([one.own for one in found])
        beyond = median_and_worst([one.beyond for one in found])
        print(f"{engine}: without a writer {own}; the connection beyond that {beyond} ({len(found)} upgrades)")


if __name__ == "__main__":
    main()
