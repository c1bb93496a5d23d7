"""What wrapper connections and cursors have because psycopg's have it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from wrapper.connection import AwsWrapperConnection
from wrapper.cursor import REPLACED, AwsWrapperCursor
from wrapper.errors import AwsWrapperError, for_driver
from wrapper.monitor.generation import GENERATION

if TYPE_CHECKING:
    from wrapper.connection import Calls


class PsycopgWrapperConnection(AwsWrapperConnection):
    """A wrapper connection in place of a `psycopg.Connection`."""

    __slots__ = ()

    @property
    def connection(self) -> Any:
        """This connection, as the driver's adaptation contexts have it."""
        return self

    @property
    def pgconn(self) -> Any:
        """psycopg's libpq connection. It asks for this with every statement of a new cursor, and `__getattr__` is a detour."""
        return self._target.pgconn

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """psycopg's I/O point, which cursors that the application makes itself (`psycopg.ClientCursor(connection)`) call here. No
        plugin sees their statements; but nothing is sent on a connection that is known to be lost, or to lead to the wrong host."""
        target = self._target
        if target.closed:
            self._calls.look()
        self._look()
        if self._target is not target:
            raise for_driver(AwsWrapperError, self._calls.interface_error)(REPLACED)
        return target.wait(*args, **kwargs)

    def execute(self, query: Any, *params: Any, binary: bool = False, **options: Any) -> Any:
        """Execute a query on a new cursor and return the cursor (psycopg's shortcut)."""
        cursor = self.cursor(binary=True) if binary else self.cursor()
        return cursor.execute(query, *params, **options)

    def tpc_begin(self, xid: Any) -> None:
        """Begin a two-phase transaction."""
        self._call("Connection.tpc_begin", "tpc_begin", xid)

    def tpc_prepare(self) -> None:
        """Perform the first phase of a two-phase transaction."""
        self._call("Connection.tpc_prepare", "tpc_prepare")

    def tpc_commit(self, *xid: Any) -> None:
        """Commit a two-phase transaction."""
        self._call("Connection.tpc_commit", "tpc_commit", *xid)

    def tpc_rollback(self, *xid: Any) -> None:
        """Roll a two-phase transaction back."""
        self._call("Connection.tpc_rollback", "tpc_rollback", *xid)

    def tpc_recover(self) -> Any:
        """Return the two-phase transactions that wait for a decision."""
        return self._call("Connection.tpc_recover", "tpc_recover")

    def transaction(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        """A block that is a transaction (psycopg). Its `connection` is this one."""
        self._look()
        return self._transaction(self._target.transaction(*args, **kwargs))

    @contextmanager
    def _transaction(self, manager: Any) -> Iterator[Any]:
        with self.driver_block("Connection.transaction", "Connection.commit", manager) as transaction:
            transaction.__class__ = _leading_here(transaction.__class__)
            yield transaction

    def pipeline(self) -> AbstractContextManager[Any]:
        """A block in pipeline mode (psycopg)."""
        self._look()
        return self.driver_block("Connection.pipeline", "Connection.pipeline", self._target.pipeline())


@cache
def _leading_here(transaction_class: Any) -> Any:
    """Return the class of the driver's transactions with a `connection` that is the wrapper's."""

    def connection(self: Any) -> Any:
        return self._conn._calls.wrapper() or self._conn

    return type(
        transaction_class.__name__,
        (transaction_class,),
        {"connection": property(connection), "__module__": transaction_class.__module__},
    )


class PsycopgWrapperCursor(AwsWrapperCursor):
    """Mixed into all cursors of psycopg."""

    __slots__ = ()

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Iterate over a result as it arrives (psycopg). Sending and the first row go through the plugin chain; failures after it
        surface as the driver's errors."""
        calls: Calls = self._conn._calls
        if GENERATION[0] != calls.seen:
            calls.look()
            return self.stream(*args, **kwargs)
        rows = self.driver_class.stream(self, *args, **kwargs)  # type: ignore[attr-defined]
        return _routed_to_the_first(calls, self._conn, rows)

    def copy(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        """A COPY block (psycopg)."""
        calls: Calls = self._conn._calls
        if GENERATION[0] != calls.seen:
            calls.look()
            return self.copy(*args, **kwargs)
        manager = self.driver_class.copy(self, *args, **kwargs)  # type: ignore[attr-defined]
        wrapper = calls.wrapper()
        if wrapper is None:
            return manager  # type: ignore[no-any-return]
        return wrapper.driver_block("Cursor.copy", "Cursor.copy", manager)


class NetworkFetch:
    """Mixed into server-side cursors, whose fetches reach the network."""

    __slots__ = ()

    driver_class: type
    _conn: Any

    def _fetch(self, name: str, *args: Any) -> Any:
        return self._conn._calls.run("ServerCursor.fetch", self, getattr(self.driver_class, name), self, *args)

    def fetchone(self) -> Any:
        return self._fetch("fetchone")

    def fetchmany(self, *args: Any) -> Any:
        return self._fetch("fetchmany", *args)

    def fetchall(self) -> Any:
        return self._fetch("fetchall")


_END = object()


def _routed_to_the_first(calls: Calls, connection: Any, rows: Generator[Any, None, None]) -> Iterator[Any]:
    """Yield the rows, the first one (which sends the statement) through the plugin chain."""
    with closing(rows):
        first = calls.run("Cursor.stream", connection, next, rows, _END)
        if first is not _END:
            yield first
            yield from rows
