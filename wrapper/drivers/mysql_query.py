"""The wrapper's own queries over a connection of mysql-connector-python: with a deadline, and without the application's cursors and
converters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from mysql.connector import Error
from mysql.connector.connection import MySQLConnection

from wrapper.drivers import mysql_errors
from wrapper.drivers.mysql_guard import number_of
from wrapper.errors import QueryTimeoutError
from wrapper.monitor.handles import Handle
from wrapper.monitor.threads import allocate_lock, start_thread

if TYPE_CHECKING:
    import _thread

Rows = list[tuple[str | None, ...]]


def run(connection: Any, sql: str, timeout: float) -> Rows:
    """Return the rows of a statement, every value as text.

    Raises the driver's error when the server refuses, `QueryTimeoutError` after `timeout` seconds: the connection is then good for
    nothing but closing.
    """
    with limited(connection, timeout):
        connection.cmd_query(sql, raw=True, buffered=True)
        rows, _ = connection.get_rows(raw=True)
    return [tuple(None if value is None else bytes(value).decode() for value in row) for row in rows]


def limited(connection: Any, timeout: float) -> AbstractContextManager[None]:
    """A block in which the connection may wait `timeout` seconds for the server."""
    if isinstance(connection, MySQLConnection):
        return _limited_by_socket(connection, timeout)
    number = number_of(connection)
    return nullcontext() if number is None else _limited_by_thread(number, timeout)


@contextmanager
def _limited_by_socket(connection: Any, timeout: float) -> Iterator[None]:
    before = connection._read_timeout, connection._write_timeout
    # Not by the public properties, which take whole seconds.
    connection._read_timeout = connection._write_timeout = timeout
    try:
        yield
    except Error as error:
        if mysql_errors.is_timeout(error):
            raise _expired(timeout) from error
        raise
    finally:
        connection._read_timeout, connection._write_timeout = before


@contextmanager
def _limited_by_thread(number: int, timeout: float) -> Iterator[None]:
    """Shut the socket down when the block takes too long: nothing else ends a call of the C extension."""
    handle = Handle(number, "", "", 0.0)
    done = allocate_lock()
    done.acquire()
    expired: list[bool] = []
    start_thread(partial(_shut_down_late, handle, done, timeout, expired))
    try:
        yield
    except Exception as error:
        if expired:
            raise _expired(timeout) from error
        raise
    finally:
        done.release()
        handle.close()


def _shut_down_late(handle: Handle, done: _thread.LockType, timeout: float, expired: list[bool]) -> None:
    if not done.acquire(timeout=timeout):
        expired.append(True)
        handle.shut_down()


def _expired(timeout: float) -> QueryTimeoutError:
    return QueryTimeoutError(f"a query of the wrapper's own got no answer within {timeout:g} s (auxiliary_query_timeout_sec)")
