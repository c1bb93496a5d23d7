"""The wrapper's own queries over a psycopg connection, without its transactions, cursors, row factories or unlimited waits.

They run on libpq directly: nothing the application configured takes part, no BEGIN is sent, and there is a deadline.
"""

from __future__ import annotations

import select
import time
from typing import Any

from psycopg import pq

from wrapper.errors import QueryTimeoutError

_BOOL = 16
_INTEGERS = frozenset((20, 21, 23, 26))
_FLOATS = frozenset((700, 701, 1700))


def run(pgconn: Any, sql: bytes, timeout: float) -> list[list[tuple[Any, ...]]]:
    """Return the rows of each statement in `sql`. Booleans and numbers are converted, everything else is text.

    Raises the driver's error when the server refuses, `QueryTimeoutError` after `timeout` seconds: the connection is then in the
    middle of a query and good for nothing but closing.
    """
    deadline = time.monotonic() + timeout
    pgconn.send_query(sql)
    while pgconn.flush():
        _wait(pgconn.socket, select.POLLOUT | select.POLLIN, deadline, timeout)
        pgconn.consume_input()
    results: list[list[tuple[Any, ...]]] = []
    failed: Any = None
    while True:
        while pgconn.is_busy():
            _wait(pgconn.socket, select.POLLIN, deadline, timeout)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        if result.status == pq.ExecStatus.TUPLES_OK:
            results.append(_rows(result))
        elif result.status == pq.ExecStatus.FATAL_ERROR:
            failed = result
    if failed is not None:
        from psycopg.errors import error_from_result

        raise error_from_result(failed)
    return results


def _wait(fd: int, events: int, deadline: float, timeout: float) -> None:
    poll = select.poll()
    poll.register(fd, events)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise QueryTimeoutError(f"a query of the wrapper's own got no answer within {timeout:g} s (auxiliary_query_timeout_sec)")


def _rows(result: Any) -> list[tuple[Any, ...]]:
    converters = [_converter(result.ftype(column)) for column in range(result.nfields)]
    return [
        tuple(
            None if (value := result.get_value(row, column)) is None else convert(value.decode())
            for column, convert in enumerate(converters)
        )
        for row in range(result.ntuples)
    ]


def _converter(oid: int) -> Any:
    if oid == _BOOL:
        return lambda text: text == "t"
    if oid in _INTEGERS:
        return int
    if oid in _FLOATS:
        return float
    return str
