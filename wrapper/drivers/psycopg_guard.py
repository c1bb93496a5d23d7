"""The guard at psycopg's single I/O point, `Connection.wait`: every statement, COPY, fetch and commit goes through it.

It tells the connection's listener of failures, remembers what a rollback would bring back, and ends waits for `socket_timeout`. It
is put on by changing the class of a connection. Each class has a single base: an object can change its class only to one with the
same layout, and a second base would alter it.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Generator
from functools import cache
from typing import Any

import psycopg
from psycopg import pq

from wrapper.drivers import psycopg_session
from wrapper.drivers.base import FailureListener
from wrapper.errors import QueryTimeoutError, for_driver

# Before 3.2.11 the compiled wait loop leaves a generator alone while nothing arrives.
CAN_LIMIT = tuple(int(part) for part in re.findall(r"\d+", psycopg.__version__)[:3]) >= (3, 2, 11)
_ATTRIBUTES = ("_failure_listener", "_wait_limit", psycopg_session.BEFORE_TRANSACTION)


def put_on(connection: Any, listener: FailureListener, timeout: float | None = None) -> None:
    """Guard a connection. `timeout`: seconds of silence after which a wait ends; None or 0 for no limit."""
    connection._failure_listener = listener
    connection._wait_limit = timeout
    base = getattr(connection, "guarded_class", connection.__class__)
    connection.__class__ = _limited(base) if timeout else guarded(base)


def take_off(connection: Any) -> None:
    """Make a connection the driver's alone again."""
    connection.__class__ = getattr(connection, "guarded_class", connection.__class__)
    for name in _ATTRIBUTES:
        connection.__dict__.pop(name, None)


@cache
def guarded(connection_class: Any) -> Any:
    driver_wait = connection_class.wait
    driver_begin = connection_class._get_tx_start_command

    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return driver_wait(self, *args, **kwargs)
        except psycopg.OperationalError as error:
            self._failure_listener.physical_failure(self, error)
            raise
        finally:
            # Kept when the connection was lost: its status is unknown then.
            if self._before_transaction is not None and self.pgconn.transaction_status == pq.TransactionStatus.IDLE:
                self._before_transaction = None

    def begin(self: Any) -> bytes:
        self._before_transaction = psycopg_session.reported(self.pgconn)
        return driver_begin(self)  # type: ignore[no-any-return]

    return _derived(
        connection_class,
        connection_class,
        {"wait": wait, "_get_tx_start_command": begin, psycopg_session.BEFORE_TRANSACTION: None},
    )


@cache
def _limited(connection_class: Any) -> Any:
    base = guarded(connection_class)

    def wait(self: Any, gen: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return base.wait(self, _until(gen, self.pgconn, self._wait_limit), *args, **kwargs)
        except QueryTimeoutError as error:
            # The answer may still come: the connection is good for nothing any more.
            _sever(self.pgconn)
            self._failure_listener.physical_failure(self, error)
            raise

    return _derived(connection_class, base, {"wait": wait})


def _derived(connection_class: type, base: type, names: dict[str, Any]) -> type:
    """Return a subclass of `base` that looks like `connection_class` and remembers it."""
    names = {**names, "guarded_class": connection_class, "__module__": connection_class.__module__}
    return type(connection_class.__name__, (base,), names)


def _until(gen: Any, pgconn: Any, limit: float) -> Generator[Any, Any, Any]:
    """Run a generator of psycopg's, which yields what it waits for; `QueryTimeoutError` when the server owes something and nothing
    moves for `limit` seconds. psycopg resumes it every tenth of a second, ready or not."""
    deadline = time.monotonic() + limit
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                deadline = time.monotonic() + limit
            elif time.monotonic() >= deadline and pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                raise for_driver(QueryTimeoutError, psycopg.OperationalError)(f"no answer within {limit:g} s (socket_timeout)")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value
    finally:
        gen.close()


def _sever(pgconn: Any) -> None:
    """Break a connection in such a way that libpq knows."""
    with socket.socket(fileno=os.dup(pgconn.socket)) as own:
        own.shutdown(socket.SHUT_RDWR)
    try:
        # What had arrived already comes before the end.
        while pgconn.status == pq.ConnStatus.OK:
            pgconn.consume_input()
    except psycopg.OperationalError:
        pass  # so it does
