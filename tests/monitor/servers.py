"""The lab's instances as the monitor's tests want them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import mysql.connector
import psycopg

from wrapper.hosts import host_key
from wrapper.testing import LocalAurora

# Seconds. Less than the longest intervals of probes here: what is to come at once must not come with the next one.
PATIENCE = 20.0


def eventually(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Return the first true result of `condition`. Fails with what was waited for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout:g} s for {what}")


@dataclass(frozen=True)
class Server:
    """One instance of a lab."""

    lab: LocalAurora
    id: str
    endpoint: str
    port: int
    engine: str = "postgresql"

    @property
    def key(self) -> str:
        return host_key(self.endpoint, self.port)

    @property
    def dialect(self) -> str:
        """What a lone server of its kind is watched as."""
        return {"postgresql": "pg", "mysql": "mariadb"}[self.engine]

    def admin(self, query: str) -> list[tuple[Any, ...]]:
        """Run SQL as superuser."""
        if self.engine == "mysql":
            with (
                closing(mysql.connector.connect(**self.lab.admin_parameters(self.id), autocommit=True, use_pure=True)) as session,
                closing(session.cursor()) as asked,
            ):
                asked.execute(query)
                return [tuple(row) for row in asked.fetchall()] if asked.description else []
        with psycopg.connect(self.lab.admin_dsn(self.id), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def sessions(self) -> int:
        """The number of the monitor's sessions here."""
        return sum(session["application_name"] == "aws-shared-monitor" for session in self.lab.sessions(self.id))

    def hang(self) -> None:
        self.lab.hang(self.id)

    def resume(self) -> None:
        self.lab.resume(self.id)

    def kill(self) -> None:
        self.lab.kill(self.id)

    def start(self) -> None:
        self.lab.start(self.id)

    def drop_sessions(self) -> None:
        self.lab.drop_sessions(self.id)


def servers_of(lab: LocalAurora) -> list[Server]:
    return [Server(lab, one.id, one.endpoint, one.port, lab.engine) for one in lab.instances]


def writer_of(lab: LocalAurora) -> Server:
    writer = lab.writer.id
    return next(server for server in servers_of(lab) if server.id == writer)


def readers_of(lab: LocalAurora) -> list[Server]:
    writer = lab.writer.id
    return [server for server in servers_of(lab) if server.id != writer]
