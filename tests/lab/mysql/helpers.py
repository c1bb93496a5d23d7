"""Raw mysql-connector: how the tests see what the lab really did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import mysql.connector
import pytest
from mysql.connector.abstracts import MySQLConnectionAbstract

from wrapper.testing import LabClient

# As the reference wrapper asks it (spec of Aurora MySQL).
TOPOLOGY = """\
SELECT SERVER_ID, CASE WHEN SESSION_ID = 'MASTER_SESSION_ID' THEN TRUE ELSE FALSE END, CPU, REPLICA_LAG_IN_MILLISECONDS,
       LAST_UPDATE_TIMESTAMP
  FROM information_schema.replica_host_status
 WHERE time_to_sec(timediff(now(), LAST_UPDATE_TIMESTAMP)) <= 300 OR SESSION_ID = 'MASTER_SESSION_ID'"""
WRITER = "SELECT SERVER_ID FROM information_schema.replica_host_status WHERE SESSION_ID = 'MASTER_SESSION_ID'"

both_clients = pytest.mark.parametrize("use_pure", [True, False], ids=["pure", "extension"])


def connect(**parameters: Any) -> MySQLConnectionAbstract:
    """Open a session; the caller closes it."""
    connection = mysql.connector.connect(**{"autocommit": True, "connection_timeout": 10, "use_pure": True, **parameters})
    assert isinstance(connection, MySQLConnectionAbstract)
    return connection


@contextmanager
def login(lab: LabClient, instance: str | None = None, **parameters: Any) -> Iterator[MySQLConnectionAbstract]:
    """A session of the application's on an instance, the writer by default, without any name service."""
    with closing(connect(**lab.parameters(instance, by_address=True, **parameters))) as connection:
        yield connection


def ask(connection: MySQLConnectionAbstract, sql: str, *parameters: Any, **how: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a statement."""
    with closing(connection.cursor(**how)) as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []  # type: ignore[arg-type]


def one(connection: MySQLConnectionAbstract, sql: str) -> Any:
    """Return the single value of a query."""
    ((value,),) = ask(connection, sql)
    return value
