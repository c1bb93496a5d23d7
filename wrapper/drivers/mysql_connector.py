"""mysql-connector-python, synchronous connections: pure Python and C extension.

Which of the two a connection is, the driver decides as it always does (`use_pure`). The wheels of 26.7 and later carry a C
extension that needs OpenSSL 3.2: where Python uses an older one (Debian 12: 3.0) it does not load, and the driver takes the pure
Python one without a word. Versions up to 9.7 load everywhere.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache, wraps
from operator import attrgetter
from typing import Any, ClassVar

import mysql.connector
from mysql.connector.abstracts import MySQLConnectionAbstract
from mysql.connector.connection import MySQLConnection
from mysql.connector.constants import DEFAULT_CONFIGURATION

from wrapper.dialects import DIALECTS, DatabaseDialect, RoleAnswer
from wrapper.dialects.base import InstanceTemplate, detected
from wrapper.dialects.mysql import MySqlDialect, detection
from wrapper.drivers import mysql_errors, mysql_guard, mysql_parameters, mysql_query, mysql_socket
from wrapper.drivers.base import DEFAULT_PLUGINS, FailureListener
from wrapper.drivers.classify import ErrorKind, ExceptionManager
from wrapper.drivers.mysql_socket import Keepalive
from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostInfo, HostRole
from wrapper.monitor.state import TopologyHost
from wrapper.resolver import static_address
from wrapper.session_state import SessionState
from wrapper.settings import Settings

# What a probe session needs beside user, password and database: arguments of the connect function, and what connections call them.
_TLS = {
    **{f"ssl_{name}": name for name in ("ca", "cert", "key", "verify_cert", "verify_identity")},
    "tls_versions": "tls_versions",
    "tls_ciphersuites": "tls_ciphersuites",
}

# Attributes of the driver's connections that an application may set, where the driver keeps them. Asking for the first four would
# ask the server.
_SESSION_ATTRIBUTES = {
    "autocommit": "_autocommit",
    "time_zone": "_time_zone",
    "sql_mode": "_sql_mode",
    "database": "_database",
    "get_warnings": "_get_warnings",
    "raise_on_warnings": "_raise_on_warnings",
    "can_consume_results": "_consume_results",
    "use_unicode": "_use_unicode",
}
_read_session_attributes = attrgetter(*_SESSION_ATTRIBUTES.values())
_SET_TIMEOUT = 5.0


@lru_cache(maxsize=32)
def _opener(target: Callable[..., Any]) -> Callable[..., Any]:
    """Return the driver's connect function with what it lacks: guarded connections, and TCP keepalive."""

    @wraps(target)
    def open_connection(*, tcp_keepalive: Keepalive | None = None, **arguments: Any) -> Any:
        connection = _connection_function(target, arguments)(**arguments)
        number = mysql_guard.number_of(connection) if isinstance(connection, MySQLConnectionAbstract) else None
        if number is not None and tcp_keepalive is not None:
            mysql_socket.keep_alive(number, tcp_keepalive)
        return connection

    return open_connection


def _connection_function(target: Callable[..., Any], arguments: dict[str, Any]) -> Callable[..., Any]:
    """Return the guarded class whose objects `target` would make. A connect function that somebody wrapped is called as it is."""
    kind: Any = target
    if target is mysql.connector.pooling.connect:
        # The parameters that make it do more than this are refused.
        is_pure = arguments.pop("use_pure", False) or not mysql.connector.HAVE_CEXT
        kind = MySQLConnection if is_pure else mysql.connector.CMySQLConnection
    return mysql_guard.guarded_class(kind) if isinstance(kind, type) else target


class MySqlConnectorDialect:
    """mysql-connector-python's side of everything the wrapper does."""

    code: ClassVar[str] = "mysql-connector-python"
    engine: ClassVar[str] = "mysql"
    default_plugins: ClassVar[str] = DEFAULT_PLUGINS
    commits_on_exit: ClassVar[bool] = False
    database_keyword: ClassVar[str] = "database"
    # An aborted handshake counts towards the server's max_connect_errors.
    preflight_is_free: ClassVar[bool] = False
    session_attributes: ClassVar[tuple[str, ...]] = tuple(_SESSION_ATTRIBUTES)
    network_bound_methods: ClassVar[frozenset[str]] = frozenset(
        {
            "Connection.autocommit",
            "Connection.commit",
            "Connection.database",
            "Connection.ping",
            "Connection.reset_session",
            "Connection.rollback",
            "Connection.sql_mode",
            "Connection.start_transaction",
            "Connection.time_zone",
            "Cursor.callproc",
            "Cursor.execute",
            "Cursor.executemany",
            "Cursor.fetch",
            "Cursor.nextset",
        }
    )

    def __init__(self, target: Callable[..., Any]) -> None:
        self._target = target

    @staticmethod
    def recognises(target: Callable[..., Any]) -> bool:
        """Whether a connect function is the driver's. Raises `AwsWrapperError` for those of its pools and of asyncio."""
        owner = getattr(target, "__self__", target)
        kind = owner if isinstance(owner, type) else type(owner)
        modules = {str(getattr(each, "__module__", "")) for each in (target, owner, *kind.__mro__)}
        if any(module.startswith("mysql.connector.aio") for module in modules):
            raise AwsWrapperError("asynchronous connections are not supported yet; pass mysql.connector.connect")
        if isinstance(owner, mysql.connector.pooling.MySQLConnectionPool):
            raise AwsWrapperError(f"a pool of the driver's cannot be used: {mysql_parameters.REFUSED['pool_name']}")
        if isinstance(owner, type):
            is_ours = issubclass(owner, MySQLConnectionAbstract)
        else:
            is_ours = any(module.startswith("mysql.connector") for module in modules)
        if is_ours and "read_timeout" not in DEFAULT_CONFIGURATION:
            raise AwsWrapperError(f"mysql-connector-python {mysql.connector.__version__} is too old: 9.2 or later is needed")
        return is_ours

    @cached_property
    def wrapper_class(self) -> type[Any]:
        from wrapper.drivers.mysql_wrapper import MySqlWrapperConnection

        return MySqlWrapperConnection

    def cursor_mixins(self, driver_class: type) -> tuple[type, ...]:
        from wrapper.drivers.mysql_wrapper import cursor_mixins

        return cursor_mixins(driver_class)

    # -- parameters ------------------------------------------------------------------------------------------------------------

    def knows_parameter(self, name: str) -> bool:
        return mysql_parameters.is_known(name)

    def parse_conninfo(self, text: str) -> dict[str, Any]:
        if text:
            raise AwsWrapperError("mysql-connector-python has no connection text: pass keyword arguments (host, user, password, …)")
        return {}

    def endpoint(self, parameters: Mapping[str, Any]) -> tuple[str, int] | None:
        return mysql_parameters.endpoint(parameters)

    # -- connections -----------------------------------------------------------------------------------------------------------

    def opener(self, target: Callable[..., Any]) -> Callable[..., Any]:
        return _opener(target)

    def connect_arguments(self, parameters: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
        return mysql_parameters.connect_arguments(parameters, settings)

    def prepare_connect_info(self, host_info: HostInfo, props: Mapping[str, Any]) -> dict[str, Any]:
        arguments = dict(props)
        # The driver takes no address beside the name, by which TLS identifies the server.
        address = None if arguments.get("ssl_verify_identity") else static_address(host_info.host)
        arguments["host"] = address or host_info.host
        if host_info.is_port_specified():
            arguments["port"] = host_info.port
        return arguments

    def unwrap(self, connection: Any) -> Any:
        # SQLAlchemy's name for what is inside a pooled connection.
        found = getattr(connection, "driver_connection", connection)
        if not isinstance(found, MySQLConnectionAbstract):
            raise AwsWrapperError(
                f"expected a connection of mysql.connector's from the connect function, not {type(found).__name__}"
            )
        return found

    def closed(self, connection: Any) -> Any:
        return getattr(type(connection), "guarded_class", type(connection))()

    def guard(self, connection: Any, listener: FailureListener, timeout: float | None = None) -> None:
        mysql_guard.guard(connection, listener)
        if timeout and isinstance(connection, MySQLConnection):
            # To the fraction, which the connect function does not take.
            connection._read_timeout = connection._write_timeout = timeout  # type: ignore[assignment]

    def unguard(self, connection: Any) -> None:
        mysql_guard.unguard(connection)

    def disown(self, connection: Any) -> None:
        mysql_guard.disown(connection)

    def in_use(self, connection: Any) -> Callable[[], bool]:
        return mysql_guard.in_use(connection)

    def fileno(self, connection: Any) -> int | None:
        return mysql_guard.number_of(connection)

    def preflight(self, host: str, port: int, timeout: float, address: str | None = None) -> None:
        deadline = time.monotonic() + timeout
        with socket.create_connection((address or host, port), timeout=timeout) as probe:
            # The server speaks first.
            probe.settimeout(max(0.001, deadline - time.monotonic()))
            if not probe.recv(1):
                raise ConnectionResetError("the server closed the connection")

    def peer_address(self, connection: Any) -> str | None:
        number = mysql_guard.number_of(connection)
        return None if number is None else mysql_socket.peer_address(number)

    def is_closed(self, connection: Any) -> bool:
        if getattr(connection, "_lost", False):
            return True
        if isinstance(connection, MySQLConnection):
            return mysql_guard.number_of(connection) is None
        return _is_unopened(connection) or bool(connection.is_closed())

    def close(self, connection: Any) -> None:
        try:
            connection.close()
        except Exception:  # noqa: BLE001  the C extension's own errors are no mysql.connector.Error; it was broken already
            pass

    # -- state -----------------------------------------------------------------------------------------------------------------

    def is_in_transaction(self, connection: Any) -> bool:
        return not _is_unopened(connection) and bool(connection.in_transaction)

    # No Python functions of ours: these are on the way of every statement.
    cursor_status = staticmethod(attrgetter("_conn._in_transaction", "_conn._lost"))
    connection_status = staticmethod(attrgetter("_in_transaction", "_lost"))

    def means_in_transaction(self, status: Any) -> bool:
        return bool(status[0])

    def means_lost(self, status: Any) -> bool:
        return bool(status[1])

    def reported_role(self, connection: Any) -> HostRole | None:
        return None

    def rollback(self, connection: Any) -> None:
        connection.rollback()

    def settle(self, connection: Any) -> None:
        connection.handle_unread_result()
        if connection._unread_result:  # of a prepared statement, with the C extension
            raise mysql.connector.InternalError("Unread result found")
        if self.is_closed(connection) or self.is_in_transaction(connection):
            connection.rollback()

    def take_session_state(self, connection: Any) -> Callable[[], SessionState]:
        values = _read_session_attributes(connection)
        charset_id, sets = connection._charset_id, connection._character_set

        def session_state() -> SessionState:
            attributes = dict(zip(_SESSION_ATTRIBUTES, values, strict=True))
            return SessionState({**attributes, "charset": sets.get_info(charset_id)})

        return session_state

    def set_session_state(self, connection: Any, state: SessionState) -> None:
        different = state.beyond(self.take_session_state(connection)()).attributes
        with mysql_query.limited(connection, _SET_TIMEOUT):
            for name, value in different.items():
                if name == "charset":
                    connection.set_charset_collation(*value)
                else:
                    _set(connection, name, value)

    def adopt(self, old: Any, new: Any) -> None:
        new._query_attrs = old._query_attrs
        if new._converter_class is not old._converter_class:
            new.converter_class = old._converter_class

    # -- errors ----------------------------------------------------------------------------------------------------------------

    def classify(self, error: BaseException) -> ErrorKind:
        return ExceptionManager.decide(mysql_errors.classify(error), error)

    def classify_sqlstate(self, sqlstate: str) -> ErrorKind:
        return ExceptionManager.decide(mysql_errors.classify_sqlstate(sqlstate), sql_state=sqlstate)

    def is_overruled(self, error: BaseException) -> bool:
        return self.classify(error) is not mysql_errors.classify(error)

    def error(self) -> type[Exception]:
        return mysql.connector.Error

    def interface_error(self) -> type[Exception]:
        return mysql.connector.InterfaceError

    def operational_error(self) -> type[Exception]:
        return mysql.connector.OperationalError

    # -- the wrapper's own queries ---------------------------------------------------------------------------------------------

    def detect(self, connection: Any, timeout: float) -> DatabaseDialect:
        return DIALECTS[detected(detection(), lambda sql: mysql_query.run(connection, sql, timeout))]

    def ask_role(self, connection: Any, dialect: DatabaseDialect, timeout: float) -> RoleAnswer:
        (row,) = mysql_query.run(connection, dialect.role_query, timeout)
        return dialect.role_answer(row)

    def read_topology(
        self, connection: Any, dialect: DatabaseDialect, template: InstanceTemplate, port: int, timeout: float
    ) -> tuple[RoleAnswer, tuple[TopologyHost, ...]]:
        if dialect.topology_query is None:
            return self.ask_role(connection, dialect, timeout), ()
        assert isinstance(dialect, MySqlDialect)
        role, members = dialect.split(mysql_query.run(connection, dialect.joined_query, timeout))
        return dialect.role_answer(role), dialect.topology_hosts(members, template, port)

    def login_values(self, connection: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            "user": connection._user,
            "password": connection._password,
            "database": connection._database,
            "password1": connection._password1,
            "password2": connection._password2,
            "password3": connection._password3,
            "auth_plugin": connection._auth_plugin,
            "ssl_disabled": connection._ssl_disabled,
            **{name: connection._ssl.get(kept) for name, kept in _TLS.items()},
        }
        return {name: value for name, value in values.items() if value}


def _set(connection: Any, name: str, value: Any) -> None:
    if value is not None:
        setattr(connection, name, value)
    elif name in ("time_zone", "sql_mode"):
        connection.cmd_query(f"SET @@session.{name} = DEFAULT")
    setattr(connection, _SESSION_ATTRIBUTES[name], value)


def _is_unopened(connection: Any) -> bool:
    return not isinstance(connection, MySQLConnection) and connection._cmysql is None
