"""The guard at mysql-connector-python's I/O points: it tells the connection's listener of every physical failure.

The pure Python implementation sends and receives in two methods of its socket object. The C extension reaches the network in the
methods of `CMySQLConnection` below; the C object under it cannot be derived from. On success a guarded method costs one call more.

A guarded connection has three attributes of ours: `_failure_listener`, `_lost` (whether it failed) and, of the C extension,
`_descriptor`.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

from mysql.connector.connection import MySQLConnection

from wrapper.drivers import mysql_errors, mysql_socket
from wrapper.drivers.base import FailureListener
from wrapper.monitor.handles import is_severed

# Methods of the C extension's connections that wait for the server.
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
    "get_rows",
    "info_query",
    "next_result",
    "rollback",
)
_IO_PROPERTIES = ("autocommit", "database")
# Attributes of ours that a connection has while it is guarded.
_OURS = ("_failure_listener", "_lost")

_guarded: weakref.WeakSet[Any] = weakref.WeakSet()
_pid = os.getpid()


def guard(connection: Any, listener: FailureListener) -> None:
    """Have `listener` told of every failure at the connection's I/O point."""
    connection._failure_listener = listener
    connection._lost = False
    if isinstance(connection, MySQLConnection):
        sock: Any = connection._socket
        sock.__class__ = _guarded_socket_class(getattr(sock, "guarded_class", sock.__class__))
        sock._owner = weakref.ref(connection)
    else:
        connection.__class__ = _guarded_connection_class(getattr(connection, "guarded_class", connection.__class__))
    _guarded.add(connection)


def unguard(connection: Any) -> None:
    """Leave a connection: nobody is told of its failures until it is guarded again."""
    _guarded.discard(connection)
    guarded = connection._socket if isinstance(connection, MySQLConnection) else connection
    guarded.__class__ = getattr(guarded, "guarded_class", guarded.__class__)
    for name in _OURS:
        connection.__dict__.pop(name, None)


def failed(connection: Any, error: BaseException) -> None:
    """Note that a connection failed, and tell its listener."""
    connection._lost = True
    if isinstance(connection, MySQLConnection):
        # After a time-out the answer may still come, and would be taken for that of the next query.
        connection.shutdown()
    connection._failure_listener.physical_failure(connection, error)


@cache
def _guarded_socket_class(socket_class: Any) -> type:
    driver_send, driver_receive = socket_class.send, socket_class.recv

    def send(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            driver_send(self, *args, **kwargs)
        except Exception as error:
            _socket_failed(self, error)
            raise

    def receive(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return driver_receive(self, *args, **kwargs)
        except Exception as error:
            _socket_failed(self, error)
            raise

    def finalize(self: Any) -> None:
        # The driver's shuts down: in a forked child that would end the parent's connection.
        if os.getpid() == _pid:
            socket_class.__del__(self)

    names = {
        "send": send,
        "recv": receive,
        "__del__": finalize,
        "guarded_class": socket_class,
        "__module__": socket_class.__module__,
    }
    return type(socket_class.__name__, (socket_class,), names)


def _socket_failed(sock: Any, error: Exception) -> None:
    connection = sock._owner()
    if connection is not None and not connection._lost:
        failed(connection, error)


@cache
def _guarded_connection_class(connection_class: Any) -> type:
    names: dict[str, Any] = {"guarded_class": connection_class, "__module__": connection_class.__module__}
    names.update((name, _guarding(getattr(connection_class, name))) for name in _IO_METHODS)
    for name in _IO_PROPERTIES:
        driver = getattr(connection_class, name)
        names[name] = driver.setter(_guarding(driver.fset))
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

    # The driver keeps this attribute for the pure Python implementation only; with it, both are asked alike.
    names.update(is_connected=is_connected, ping=ping, _in_transaction=property(_in_transaction, _ignore))
    return type(connection_class.__name__, (connection_class,), names)


def _guarding(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            if not self._lost and mysql_errors.means_lost(error):
                failed(self, error)
            raise

    return guarded


def _ping_failed(connection: Any) -> None:
    """A ping also fails because the session is in the middle of a result; the socket knows better."""
    descriptor: mysql_socket.Descriptor | None = connection._descriptor
    if connection._lost or descriptor is None:
        return
    if not descriptor.is_current or is_severed(descriptor.number):
        from mysql.connector import InterfaceError

        failed(connection, InterfaceError(errno=2013))


def _in_transaction(connection: Any) -> int:
    status: int = connection._cmysql.st_server_status()
    return status & 1


def _ignore(connection: Any, value: Any) -> None:
    pass


def number_of(connection: Any) -> int | None:
    """Return the descriptor of a connection's socket, None when there is none to be had."""
    if isinstance(connection, MySQLConnection):
        sock = getattr(connection._socket, "sock", None)
        number = -1 if sock is None else sock.fileno()
        return number if number >= 0 else None
    descriptor: mysql_socket.Descriptor | None = getattr(connection, "_descriptor", None)
    return descriptor.number if descriptor is not None and descriptor.is_current else None


def disown(connection: Any) -> None:
    """In a forked child: have a connection of the parent's lead nowhere, so that nothing done to it, its end included, reaches
    the server."""
    number = number_of(connection)
    if number is not None:
        mysql_socket.cut_off(number)


def _disown_inherited() -> None:
    global _pid
    for connection in list(_guarded):
        disown(connection)
    _guarded.clear()


os.register_at_fork(after_in_child=_disown_inherited)
