"""Fixtures of the tests with real MySQL servers: wrapper connections of both of the driver's implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mysql.connector
import pytest
from mysql.connector.connection import MySQLConnection

from tests.integration.conftest import forget_client
from wrapper import AwsWrapperConnection
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]


@pytest.fixture(params=[True, False], ids=["pure", "extension"])
def use_pure(request: pytest.FixtureRequest) -> bool:
    """Which of the driver's implementations the test is about."""
    return bool(request.param)


@pytest.fixture
def connect(aurora_mysql: LocalAurora, use_pure: bool) -> Iterator[Connect]:
    """Connects to the lab's writer endpoint through the wrapper, without a monitor; closes everything at the end."""
    opened: list[Any] = []
    forget_client()

    def connect(instance: str | None = None, **parameters: Any) -> Any:
        parameters = {
            "autocommit": True,
            "cluster_instance_host_pattern": aurora_mysql.instance_host_pattern,
            "monitor_mode": "off",
            "use_pure": use_pure,
            **aurora_mysql.parameters(instance),
            **parameters,
        }
        connection = AwsWrapperConnection.connect(mysql.connector.connect, **parameters)
        assert isinstance(connection, MySQLConnection) is use_pure  # an extension that cannot be loaded is nobody's success
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()
    forget_client()


@pytest.fixture
def raw(aurora_mysql: LocalAurora, use_pure: bool) -> Iterator[Connect]:
    """Connects to an instance, the writer by default, with the driver alone."""
    opened: list[Any] = []

    def raw(instance: str | None = None, **parameters: Any) -> Any:
        parameters = {"autocommit": True, "use_pure": use_pure, **parameters}
        name = instance or aurora_mysql.writer.id
        connection = mysql.connector.connect(**aurora_mysql.parameters(name, by_address=True, **parameters))
        opened.append(connection)
        return connection

    yield raw
    for connection in opened:
        connection.close()


def wait_for_readers(lab: LocalAurora) -> None:
    """Wait until every reader has what the writer has: an Aurora's share their storage, these follow a moment later."""

    def ask(instance: str, sql: str, *values: Any) -> Any:
        with mysql.connector.connect(**lab.admin_parameters(instance), use_pure=True) as admin, admin.cursor() as cursor:
            cursor.execute(sql, values)
            ((value,),) = cursor.fetchall()
            return value

    position = ask(lab.writer.id, "SELECT @@gtid_binlog_pos")
    for reader in lab.readers:
        assert ask(reader.id, "SELECT MASTER_GTID_WAIT(%s, 20)", position) == 0, f"{reader.id} does not follow"


@pytest.fixture
def table(aurora_mysql: LocalAurora, raw: Connect) -> str:
    """An empty table with one column `x`, a primary key."""
    connection = raw()
    cursor = connection.cursor()
    cursor.execute("DROP TABLE IF EXISTS numbers")
    cursor.execute("CREATE TABLE numbers (x INT PRIMARY KEY)")
    wait_for_readers(aurora_mysql)
    return "numbers"


def one(connection: Any, sql: str, **how: Any) -> Any:
    """Return the single value of a query on a new cursor."""
    cursor = connection.cursor(**how)
    cursor.execute(sql)
    ((value,),) = cursor.fetchall()
    cursor.close()
    return value


def stands_for(thing: object, kind: type) -> bool:
    """Whether `isinstance` holds; mypy thinks that nothing can be both ours and the driver's."""
    return isinstance(thing, kind)
