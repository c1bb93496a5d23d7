"""The drivers under test, in words that tests and benchmarks of any of them share.

No test framework and no wrapper here, and a driver only when it is used: processes that are weighed import this, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any


@dataclass(frozen=True, slots=True)
class Engine:
    """What one kind of server calls by a name of its own: SQL expressions, unless something else is said."""

    name: str
    instance: str
    session: str
    server_address: str
    # With the seconds to be filled in.
    sleep: str
    # A query of the application's sessions: number, and what the client calls itself.
    sessions: str
    # A query of so many rows.
    rows: str


POSTGRESQL = Engine(
    "postgresql",
    instance="aurora_db_instance_identifier()",
    session="pg_backend_pid()",
    server_address="host(inet_server_addr())",
    sleep="pg_sleep({})",
    sessions="SELECT pid, application_name FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = 'app'",
    rows="SELECT generate_series(1, {})",
)
MYSQL = Engine(
    "mysql",
    instance="@@aurora_server_id",
    session="CONNECTION_ID()",
    server_address="@@bind_address",
    sleep="SLEEP({})",
    sessions="SELECT id, COALESCE(attr_value, '') FROM information_schema.processlist LEFT JOIN "
    "performance_schema.session_connect_attrs ON processlist_id = id AND attr_name = 'program_name' WHERE user = 'app'",
    rows="SELECT seq FROM seq_1_to_{}",
)


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver. `package`: what is imported; `options`: what its `connect` must be told besides."""

    name: str
    engine: Engine
    package: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def module(self) -> ModuleType:
        """The driver's own DB-API module."""
        return import_module(self.package)

    @property
    def connect(self) -> Callable[..., Any]:
        """The driver's connect function."""
        connect: Callable[..., Any] = self.module.connect
        return connect

    def open(self, **parameters: Any) -> Any:
        """Open a connection of the driver alone, in autocommit mode."""
        return self.connect(autocommit=True, **self.options, **parameters)

    def is_closed(self, connection: Any) -> bool:
        """Whether a connection of the driver alone is closed; mysql-connector-python has to ask the server."""
        return bool(connection.closed) if self.engine is POSTGRESQL else not connection.is_connected()


def engine_of(connection: Any) -> Engine:
    """Return which engine a connection is for, the driver's own or the wrapper's: its class says so."""
    return MYSQL if "mysql" in type(connection).__module__ else POSTGRESQL


def transaction(connection: Any) -> AbstractContextManager[Any]:
    """A block in a transaction, begun and ended as the driver's users do it."""
    if engine_of(connection) is MYSQL:
        return _transaction(connection)
    block: AbstractContextManager[Any] = connection.transaction()
    return block


@contextmanager
def _transaction(connection: Any) -> Iterator[None]:
    connection.start_transaction()
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the first error is the one that says what happened
            connection.rollback()
        raise
    connection.commit()


def ask(connection: Any, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Execute a statement on a cursor of its own; return its rows, none if it has none."""
    cursor = connection.cursor()
    cursor.execute(sql, parameters)
    rows = list(cursor.fetchall()) if cursor.description else []
    cursor.close()
    return rows


def one(connection: Any, expression: str) -> Any:
    """Return the value of an SQL expression."""
    ((value,),) = ask(connection, f"SELECT {expression}")
    return value


PSYCOPG = Driver("psycopg", POSTGRESQL, "psycopg")
MYSQL_PURE = Driver("mysql-pure", MYSQL, "mysql.connector", {"use_pure": True})
MYSQL_EXTENSION = Driver("mysql-extension", MYSQL, "mysql.connector", {"use_pure": False})
DRIVERS = {driver.name: driver for driver in (PSYCOPG, MYSQL_PURE, MYSQL_EXTENSION)}
