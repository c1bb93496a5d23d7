"""The guard at mysql-connector-python's I/O points: it tells the connection's listener of every physical failure.

The pure Python implementation sends and receives in two methods of its socket object. The C extension reaches the network in the
methods of `CMySQLConnection` below; the C object under it cannot be derived from. On success a guarded method costs one call more.

Connections are made of guarded classes from the start: CPython is slow to find attributes of an object whose class was replaced.
Methods that are called per row or packet have the driver's own signature, for the same reason.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from mysql.connector import InterfaceError
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.connection import MySQLConnection

from wrapper.drivers import mysql_errors, mysql_socket
from wrapper.drivers.base import FailureListener
from wrapper.monitor.handles import is_severed

# Methods of the C extension's connections that wait for the server. Not `get_rows`, which fetching calls for each row: cursors and
# the wrapper connection see to its errors.
_IO_METHODS = (
    "cmd_change_user",
    "cmd_init_db",
    "cmd_query",
    "cmd_refresh",
    "cmd_reset_connection",
    "cmd_statistics",
    "cmd_stmt_close",
    "cmd_stmt_execute",
    "cmd_stmt_prepare",
    "cmd_stmt_reset",
    "commit",
    "consume_results",
    "free_result",
    "info_query",
    "next_result",
    "rollback",
    "set_character_set_name",
)
_guarded: weakref.WeakSet[Any] = weakref.WeakSet()


class _Use:
    """Whether the server owes a connection an answer. Other threads may look at it, which must not look at the connection."""

    __slots__ = ("is_waiting",)

    def __init__(self) -> None:
        self.is_waiting = False


@cache
def guarded_class(connection_class: Any) -> Any:
    """Return a class of the driver's connections with the guard.

    Attributes of ours are `_failure_listener`; `_lost`, whether the connection failed; `_use`; and, of the C extension,
    `_descriptor`.
    """
    names: dict[str, Any] = {
        "guarded_class": connection_class,
        "_failure_listener": None,
        "_lost": False,
        "_use": _Use(),  # of those that were never opened
        "_descriptor": None,
        "__module__": connection_class.__module__,
    }
    names.update(
        _pure_methods(connection_class) if issubclass(connection_class, MySQLConnection) else _extension_methods(connection_class)
    )
    return type(connection_class.__name__, (connection_class,), names)


def guard(connection: Any, listener: FailureListener) -> None:
    """Have `listener` told of every failure at the connection's I/O point."""
    if not hasattr(connection, "guarded_class"):  # made by somebody else
        connection.__class__ = guarded_class(connection.__class__)
        connection._use = _Use()
        if isinstance(connection, MySQLConnection):
            _guard_socket(connection, connection._socket)
    connection._failure_listener = listener
    _guarded.add(connection)


def in_use(connection: Any) -> Callable[[], bool]:
    """Return a function that tells, on any thread, whether a call is waiting for the server."""
    use: _Use = connection._use
    return lambda: use.is_waiting


def unguard(connection: Any) -> None:
    """Leave a connection: nobody is told of its failures until it is guarded again."""
    _guarded.discard(connection)
    connection._failure_listener = None


def failed(connection: Any, error: BaseException) -> None:
    """Note that a connection failed, and tell its listener."""
    connection._lost = True
    sock: Any = connection._socket if isinstance(connection, MySQLConnection) else None
    if sock is not None:
        # After a time-out the answer may still come, and would be taken for that of the next query.
        sock.shutdown()
        sock.close_connection()  # the driver's shutdown leaves it out when the server was faster
    if connection._failure_listener is not None:
        connection._failure_listener.physical_failure(connection, error)


# -- pure Python ---------------------------------------------------------------------------------------------------------------


def _pure_methods(connection_class: Any) -> dict[str, Any]:
    driver_get_connection, driver_open = connection_class._get_connection, connection_class._open_connection

    def get_connection(self: Any) -> Any:
        return _guard_socket(self, driver_get_connection(self))

    def open_connection(self: Any) -> None:
        self._lost, self._use = False, _Use()
        driver_open(self)

    return {"_get_connection": get_connection, "_open_connection": open_connection}


def _guard_socket(connection: Any, sock: Any) -> Any:
    sock.__class__ = _guarded_socket_class(sock.__class__)
    sock._owner = weakref.ref(connection)
    sock._use = connection._use
    return sock


@cache
def _guarded_socket_class(socket_class: Any) -> type:
    driver_send, driver_receive = socket_class.send, socket_class.recv

    def send(self: Any, *args: Any, **kwargs: Any) -> None:
        self._use.is_waiting = True
        try:
            driver_send(self, *args, **kwargs)
        except Exception as error:
            _socket_failed(self, error)
            raise

    def receive(self: Any, read_timeout: Any = None) -> Any:
        try:
            return driver_receive(self, read_timeout)
        except Exception as error:
            _socket_failed(self, error)
            raise
        finally:
            self._use.is_waiting = False

    names = {"send": send, "recv": receive, "__module__": socket_class.__module__}
    return type(socket_class.__name__, (socket_class,), names)


def _socket_failed(sock: Any, error: Exception) -> None:
    connection = sock._owner()
    if connection is not None and not connection._lost:
        failed(connection, error)


# -- C extension ---------------------------------------------------------------------------------------------------------------


def _extension_methods(connection_class: Any) -> dict[str, Any]:
    names: dict[str, Any] = {name: _guarding(getattr(connection_class, name)) for name in _IO_METHODS}
    names["database"] = connection_class.database.setter(_guarding(connection_class.database.fset))
    # The extension's own does not say that the connection is lost, nor that rows stand in the way; that of the common base does.
    names["autocommit"] = connection_class.autocommit.setter(_guarding(MySQLConnectionAbstract.autocommit.fset))  # type: ignore[attr-defined]
    driver_open = connection_class._open_connection
    driver_is_connected, driver_ping = connection_class.is_connected, connection_class.ping

    def is_connected(self: Any) -> bool:
        answer: bool = driver_is_connected(self)
        if not answer:
            _ping_failed(self)
        return answer

    def ping(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            driver_ping(self, *args, **kwargs)
        except Exception:
            _ping_failed(self)
            raise

    def open_connection(self: Any) -> None:
        self._lost, self._use = False, _Use()
        before = mysql_socket.open_sockets()
        driver_open(self)
        self._descriptor = mysql_socket.find(self, before)

    names.update(is_connected=is_connected, ping=ping, _open_connection=open_connection)
    # The driver keeps this attribute for the pure Python implementation only; with it, both are asked alike.
    names["_in_transaction"] = property(_in_transaction, _ignore)
    return names


def _guarding(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._use.is_waiting = True
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            notice(self, error)
            raise
        finally:
            self._use.is_waiting = False

    return guarded


def notice(connection: Any, error: Exception) -> None:
    """Look at an error of a connection: if it says that the connection is lost, note that."""
    if not getattr(connection, "_lost", True) and mysql_errors.means_lost(error):
        failed(connection, error)


def _ping_failed(connection: Any) -> None:
    """A ping also fails because the session is in the middle of a result; the socket knows better."""
    descriptor: mysql_socket.Descriptor | None = connection._descriptor
    if connection._lost or descriptor is None:
        return
    if not descriptor.is_current or is_severed(descriptor.number):
        failed(connection, InterfaceError(errno=2013))


def _in_transaction(connection: Any) -> int:
    status: int = connection._cmysql.st_server_status()
    return status & 1


def _ignore(connection: Any, value: Any) -> None:
    pass


# -- both ----------------------------------------------------------------------------------------------------------------------


def number_of(connection: Any) -> int | None:
    """Return the descriptor of a connection's socket, None when there is none to be had."""
    if isinstance(connection, MySQLConnection):
        sock = getattr(connection._socket, "sock", None)
        number = -1 if sock is None else sock.fileno()
        return number if number >= 0 else None
    descriptor: mysql_socket.Descriptor | None = connection.__dict__.get("_descriptor")
    return descriptor.number if descriptor is not None and descriptor.is_current else None


def disown(connection: Any) -> None:
    """In a forked child: have a connection of the parent's lead nowhere, so that nothing done to it, its end included, reaches the
    server."""
    number = number_of(connection)
    if number is not None:
        mysql_socket.cut_off(number)


def _disown_inherited() -> None:
    for connection in list(_guarded):
        disown(connection)
    _guarded.clear()


os.register_at_fork(after_in_child=_disown_inherited)
