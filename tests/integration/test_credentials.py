"""The monitor logs in with what the workers' connections logged in with, and follows when that changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from tests.integration.conftest import client, eventually
from wrapper import AwsWrapperConnection
from wrapper.testing import LocalAurora

USER = "rotating"


class Login:
    """A database user whose password is in a password file alone."""

    def __init__(self, aurora: LocalAurora, passfile: Path) -> None:
        self._aurora = aurora
        self._passfile = passfile

    def admin(self, statement: str, *values: str) -> None:
        with psycopg.connect(self._aurora.admin_dsn(self._aurora.writer.id), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(USER), *map(sql.Literal, values)))

    def change(self, password: str) -> None:
        self._passfile.write_text(f"*:*:*:{USER}:{password}\n", encoding="ascii")
        self._passfile.chmod(0o600)
        self.admin("ALTER ROLE {} PASSWORD {}", password)

    def connect(self) -> Any:
        parameters: dict[str, Any] = {
            name: value for name, value in conninfo_to_dict(self._aurora.dsn()).items() if name != "password"
        }
        parameters |= {"user": USER, "passfile": str(self._passfile)}
        pattern = self._aurora.instance_host_pattern
        return AwsWrapperConnection.connect(psycopg.Connection.connect, cluster_instance_host_pattern=pattern, **parameters)


@pytest.fixture
def login(aurora: LocalAurora, monitor_directory: Path, tmp_path: Path) -> Iterator[Login]:
    login = Login(aurora, tmp_path / "passwords")
    login.admin("CREATE ROLE {} LOGIN")
    yield login
    login.admin("DROP ROLE {}")


def hosts_that_let_the_monitor_in() -> int:
    return sum(health.accepting for cluster in client().state.clusters.values() for health in cluster.health.values())


def test_a_new_password_in_the_file_reaches_the_monitor_with_the_next_connection(aurora: LocalAurora, login: Login) -> None:
    login.change("first")
    with login.connect():
        eventually(lambda: hosts_that_let_the_monitor_in() == 3, "the monitor to log in to three hosts")
        login.change("second")
        for instance in aurora.instances:
            aurora.drop_sessions(instance.id)
        eventually(lambda: hosts_that_let_the_monitor_in() == 0, "the monitor to be refused")
        # Opened with the same arguments as the first one.
        with login.connect():
            eventually(lambda: hosts_that_let_the_monitor_in() == 3, "the monitor to log in with the new password")
