"""What wrapper connections and cursors have because mysql-connector-python's have it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

import mysql.connector
from mysql.connector.cursor import MySQLCursorBuffered

from wrapper.connection import AwsWrapperConnection
from wrapper.cursor import AwsWrapperCursor
from wrapper.drivers import mysql_guard
from wrapper.errors import AwsWrapperError, FailoverSuccessError, for_driver
from wrapper.monitor.generation import GENERATION

if TYPE_CHECKING:
    from typing_extensions import Self

# The positional parameters of the driver's `cursor`, and the class that it makes cursors of, by what it is asked for.
_CURSOR_PARAMETERS = ("buffered", "raw", "prepared", "cursor_class", "dictionary", "read_timeout", "write_timeout")
_driver_classes: dict[tuple[Any, ...], type] = {}

# Setting one of these is a statement.
_SETTINGS = frozenset({"autocommit", "database", "sql_mode", "time_zone"})


class MySqlWrapperConnection(AwsWrapperConnection):
    """A wrapper connection in place of a `MySQLConnection` or `CMySQLConnection`."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _SETTINGS:
            super().__setattr__(name, value)
            return
        self._look()
        self._calls.run(f"Connection.{name}", self._target, setattr, self._target, name, value)
        if name == "database":
            self._target._database = value  # the driver forgets it

    def _new_cursor(self, *args: Any, **kwargs: Any) -> Any:
        target = self._target
        key = (type(target), target._buffered, target._raw, args, *kwargs.items())
        driver_class = _driver_classes.get(key)
        if driver_class is None:
            # Once in a process: which class it is that the driver has for this.
            driver_class = _driver_classes[key] = type(target.cursor(*args, **kwargs))
        names = dict(zip(_CURSOR_PARAMETERS, args, strict=False))
        cursor = target.cursor(**{**names, **kwargs, "cursor_class": self._calls.cursor_classes[driver_class]})
        # The driver's own reference is weak, and gone when the cursor is closed.
        cursor._conn = target
        return cursor

    def get_rows(self, *args: Any, **kwargs: Any) -> Any:
        """Return rows of the result that is being read, as the driver's `get_rows`."""
        try:
            return self._target.get_rows(*args, **kwargs)
        except Exception as error:
            mysql_guard.notice(self._target, error)
            raise

    def get_row(self, *args: Any, **kwargs: Any) -> Any:
        """Return the next row of the result that is being read, as the driver's `get_row`."""
        try:
            return self._target.get_row(*args, **kwargs)
        except Exception as error:
            mysql_guard.notice(self._target, error)
            raise

    def start_transaction(self, *args: Any, **kwargs: Any) -> None:
        """Start a transaction."""
        self._call("Connection.start_transaction", "start_transaction", *args, **kwargs)

    def reset_session(self, *args: Any, **kwargs: Any) -> None:
        """Have the server forget what was set in this session."""
        self._call("Connection.reset_session", "reset_session", *args, **kwargs)

    def cmd_init_db(self, database: str) -> Any:
        """Change the database."""
        answer = self._call("Connection.database", "cmd_init_db", database)
        self._target._database = database
        return answer

    def ping(self, reconnect: bool = False, attempts: int = 1, delay: int = 0) -> None:
        """Ask the server for a sign of life. `reconnect`: see to it that there is a connection afterwards."""
        try:
            self._call("Connection.ping", "ping")
        except FailoverSuccessError:
            if not reconnect:
                raise
        except mysql.connector.Error:
            if not reconnect:
                raise
            self.reconnect(attempts, delay)

    def reconnect(self, attempts: int = 1, delay: int = 0) -> None:
        """Replace the connection by a new one to the same endpoint, `delay` seconds apart. The session's settings move over."""
        service = self._service
        service.discard(self._target)
        for left in reversed(range(attempts)):
            try:
                connection = service.connect(service.initial_connection_host_info, dict(service.parameters))
                break
            except mysql.connector.Error as error:
                if not left:
                    text = f"Can not reconnect to MySQL after {attempts} attempt(s): {error}"
                    raise mysql.connector.InterfaceError(text) from error
            time.sleep(delay)
        physical = service.physical(connection)
        try:
            if physical is not None and service.manager.plugins:
                service.introduce(connection, needs_role=False)
            service.set_current_connection(connection, None if physical is None else physical.host_info, dispose=False)
        except BaseException:
            service.discard(connection)
            raise

    def connect(self, **kwargs: Any) -> None:  # type: ignore[override]
        """Connect again with the same parameters; others need another connection."""
        if kwargs:
            raise for_driver(AwsWrapperError, mysql.connector.ProgrammingError)(
                f"connect() of a connection takes no parameters here, not {', '.join(kwargs)}: open another connection"
            )
        self.reconnect()

    def close(self) -> None:
        """Close the connection, or give it back to the pool that it came from; plugins let go of what they hold."""
        super().close()

    disconnect = close
    cmd_quit = close

    def shutdown(self) -> None:
        """Close the connection without a word to the server."""
        self._service.discard(self._target)
        self.release_resources()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: Any) -> None:
        """Close the connection, as the driver does: leaving neither commits nor rolls back, so a switch inside breaks nothing."""
        self.close()


class MySqlWrapperCursor(AwsWrapperCursor):
    """Mixed into all cursors of mysql-connector-python."""

    __slots__ = ()

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement with each of several sets of parameters through the plugin chain."""
        return self._as_a_whole(super().executemany, *args, **kwargs)

    def callproc(self, *args: Any, **kwargs: Any) -> Any:
        """Call a stored procedure through the plugin chain."""
        return self._as_a_whole(self._run, "callproc", *args, **kwargs)

    def nextset(self) -> Any:
        """Go on to the next result through the plugin chain."""
        return self._run("nextset")

    def __iter__(self) -> Iterator[Any]:
        # Looks its method up for each row: a cursor whose connection has been replaced refuses from then on.
        while (row := self.fetchone()) is not None:  # type: ignore[attr-defined]
            yield row

    def _run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        calls = self._conn._calls
        if GENERATION[0] != calls.seen:
            calls.look()
            return getattr(self, name)(*args, **kwargs)
        return calls.run(f"Cursor.{name}", self, getattr(self.driver_class, name), self, *args, **kwargs)

    def _as_a_whole(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Make a call of which the driver makes several of `execute`: no failover may come in between and say that nothing was
        sent."""
        if "execute" in self.__dict__:
            return call(*args, **kwargs)
        self.__dict__["execute"] = self.driver_class.execute.__get__(self)  # type: ignore[attr-defined]
        try:
            return call(*args, **kwargs)
        finally:
            self.__dict__.pop("execute", None)


@cache
def cursor_mixins(driver_class: type) -> tuple[type, ...]:
    """Return what the cursors of one of the driver's classes have mixed in. The rows of buffered cursors are in memory: fetching
    stays the driver's own function."""
    if issubclass(driver_class, _buffered_classes()):
        return MySqlWrapperCursor, _buffering(driver_class)
    return MySqlWrapperCursor, _network_fetch(driver_class)


@cache
def _buffered_classes() -> tuple[type, ...]:
    if not mysql.connector.HAVE_CEXT:
        return (MySQLCursorBuffered,)
    from mysql.connector.cursor_cext import CMySQLCursorBuffered

    return MySQLCursorBuffered, CMySQLCursorBuffered


def _buffering(driver_class: Any) -> type:
    """Return a class with the method by which a buffered cursor reads its rows, as a part of executing."""
    driver_handle = driver_class._handle_resultset

    def handle(self: Any) -> None:
        try:
            driver_handle(self)
        except Exception as error:
            mysql_guard.notice(self._conn, error)
            raise

    return type("Buffering", (), {"__slots__": (), "_handle_resultset": handle})


def _network_fetch(driver_class: Any) -> type:
    """Return a class with the fetching methods of `driver_class`, which read the network; on success they cost one call more."""
    driver_fetchone = driver_class.fetchone

    @wraps(driver_fetchone)
    def fetchone(self: Any) -> Any:
        try:
            return driver_fetchone(self)
        except Exception as error:  # noqa: BLE001  raised again
            return _fetch_failed(self, error)

    def fetching(driver_fetch: Any) -> Any:
        @wraps(driver_fetch)
        def fetch(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return driver_fetch(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001  raised again
                return _fetch_failed(self, error)

        return fetch

    methods = {name: fetching(getattr(driver_class, name)) for name in ("fetchmany", "fetchall")}
    return type("NetworkFetch", (), {"__slots__": (), "fetchone": fetchone, **methods})


def _fetch_failed(cursor: Any, error: Exception) -> Any:
    """Have the plugin chain see a failure as if the call had come through it: with the connection's state from before."""
    connection = cursor._conn
    mysql_guard.notice(connection, error)
    lost = connection.__dict__.get("_lost", False)
    connection._lost = False

    def fail() -> None:
        connection._lost = lost
        raise error

    return connection._calls.run("Cursor.fetch", cursor, fail)
