"""Fixtures of the tests that hold for every flavour of both engines: a lab of each, and the wrapper's connections to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest

from tests.integration.conftest import client, eventually
from wrapper import AwsWrapperConnection
from wrapper.testing import LocalAurora

# Quick to give a host up, and not so quick that a busy machine makes a healthy one look silent.
FAST: dict[str, Any] = {"failure_detection_interval_ms": 100, "failure_detection_count": 6}
# Who answers, asked of what the flavours have in common: the address itself.
_WHO = {"postgresql": "SELECT host(inet_server_addr())", "mysql": "SELECT @@report_host"}
_SLEEP = {"postgresql": "SELECT pg_sleep(60)", "mysql": "SELECT SLEEP(60)"}


@dataclass(frozen=True)
class Flavoured:
    """A lab and the wrapper's connections to it."""

    lab: LocalAurora
    open: Callable[..., Any]

    @property
    def sleep(self) -> str:
        """A statement that lasts longer than any test."""
        return _SLEEP[self.lab.engine]

    def connect(self, instance: str | None = None, **parameters: Any) -> Any:
        """Connect to the writer endpoint, or to an instance."""
        return self.open(**{"autocommit": True, **self.lab.parameters(instance), **parameters})

    def watched(self, instance: str | None = None, **parameters: Any) -> Any:
        """Connect, and return once the monitor knows the roles of all hosts."""
        connection = self.connect(instance, **parameters)
        key = connection.plugin_service.watch.key

        def is_known() -> bool:
            found = client().state.by_watch(key)
            return (
                client().is_live
                and found is not None
                and found.topology.writer is not None
                and len(found.health) == len(self.lab.instances)
                and all(health.proved_at is not None for health in found.health.values())
            )

        eventually(is_known, "the monitor to publish a writer and the roles of all hosts")
        return connection

    def run(self, connection: Any, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement on a new cursor; return its rows."""
        with closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def instance_of(self, connection: Any) -> str:
        """Return which instance answers on the connection."""
        ((answer,),) = self.run(connection, _WHO[self.lab.engine])
        return next(one.id for one in self.lab.instances if answer in (one.id, one.address))

    def is_asleep(self, instance: str) -> bool:
        """Whether an application's `sleep` runs on an instance."""
        return any("60)" in session["query"] for session in self.lab.sessions(instance))

    def is_superseded(self, connection: Any) -> bool:
        """Whether this process knows that another host is the writer now."""
        cluster = client().state.by_watch(connection.plugin_service.watch.key)
        return cluster is not None and cluster.topology.writer not in (None, connection.plugin_service.current_host_info.key)


def _connect(engine: str) -> Callable[..., Any]:
    target = psycopg.Connection.connect if engine == "postgresql" else mysql.connector.connect
    return lambda **parameters: AwsWrapperConnection.connect(target, **parameters)


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def multi_az_lab(engine: str) -> Iterator[LocalAurora]:
    with LocalAurora(engine=engine, flavor="multi-az") as lab:
        yield lab


@pytest.fixture(scope="module")
def rds_lab(engine: str) -> Iterator[LocalAurora]:
    with LocalAurora(instances=1, engine=engine, flavor="rds") as lab:
        yield lab


def _mended(lab: LocalAurora, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flavoured]:
    lab.reset()
    for name, value in lab.environment().items():
        monkeypatch.setenv(name, value)
    opened: list[Any] = []

    def open_one(**parameters: Any) -> Any:
        opened.append(_connect(lab.engine)(**parameters))
        return opened[-1]

    yield Flavoured(lab, open_one)
    for connection in opened:
        connection.close()


@pytest.fixture
def multi_az(multi_az_lab: LocalAurora, monkeypatch: pytest.MonkeyPatch, monitor_directory: Path) -> Iterator[Flavoured]:
    """A Multi-AZ DB cluster with one writer and no faults."""
    yield from _mended(multi_az_lab, monkeypatch)


@pytest.fixture
def rds(rds_lab: LocalAurora, monkeypatch: pytest.MonkeyPatch, monitor_directory: Path) -> Iterator[Flavoured]:
    """A single instance of RDS's, up."""
    yield from _mended(rds_lab, monkeypatch)
