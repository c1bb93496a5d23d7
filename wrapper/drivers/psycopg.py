"""psycopg 3, synchronous connections."""

from __future__ import annotations

import inspect
import math
import re
import socket
import time
from collections.abc import Callable, Mapping
from functools import cache, cached_property, lru_cache
from operator import attrgetter
from typing import Any, ClassVar

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from wrapper.conninfo import URI_SCHEMES
from wrapper.dialects import DIALECTS, DatabaseDialect, RoleAnswer
from wrapper.dialects.base import InstanceTemplate, detected
from wrapper.dialects.postgresql import detection
from wrapper.drivers import psycopg_errors, psycopg_guard, psycopg_query, psycopg_service, psycopg_session
from wrapper.drivers.base import DEFAULT_PLUGINS
from wrapper.drivers.classify import ErrorKind, ExceptionManager
from wrapper.environment import variable
from wrapper.errors import AwsWrapperError
from wrapper.hosts import NO_PORT, HostInfo, HostRole
from wrapper.monitor.state import TopologyHost
from wrapper.resolver import static_address
from wrapper.settings import Settings

# What a probe session must not inherit: where to connect, which host to prefer, and what it calls itself.
_NOT_FOR_PROBES = frozenset(
    {
        "host",
        "hostaddr",
        "port",
        "target_session_attrs",
        "load_balance_hosts",
        "options",
        "service",
        "servicefile",
        "replication",
        "application_name",
        "fallback_application_name",
        "connect_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
        "client_encoding",
        "passfile",
        "password",
    }
)
# Looser than any verdict: what ends a connection to a vanished host when no monitor runs.
_TCP_USER_TIMEOUT_MS = 15000
_OPEN = frozenset({pq.TransactionStatus.ACTIVE, pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR})
# A URI with an "@" behind its user and password, which to libpq end at the first "@" before any "/".
_STRAY_AT = re.compile(r"postgres(ql)?://([^@/]*@|(?![^@/]*@))[^?@]*@")
_PORTS = re.compile(r"[\d,]*")
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


@lru_cache(maxsize=32)
def _connect_keywords(target: Callable[..., Any]) -> frozenset[str]:
    """Every keyword argument of a connect function."""
    return frozenset(inspect.signature(target).parameters) | {"database"}


@cache
def _libpq_keywords() -> frozenset[str]:
    """Every keyword that libpq knows."""
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())


def _read(text: str) -> dict[str, Any] | None:
    """Return libpq's reading of a connection text, None where it has none. Its error quotes the offending word or the whole URI, in
    which a password may stand: it must not be seen, as the context of another error either."""
    try:
        return dict(conninfo_to_dict(text))
    except psycopg.ProgrammingError:
        return None


def _endpoint(given: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return host and port of parameters in which a service is expanded, None where they lead to no single TCP endpoint."""
    host = given.get("host") or given.get("hostaddr") or variable("PGHOST") or variable("PGHOSTADDR")
    port = str(given.get("port") or variable("PGPORT") or 5432)
    if not host or given.get("service") or host.startswith(("/", "@")) or "," in host or not port.isdecimal():
        return None
    return host, int(port)


class PsycopgDialect:
    """psycopg's side of everything the wrapper does."""

    code: ClassVar[str] = "psycopg"
    engine: ClassVar[str] = "postgresql"
    default_plugins: ClassVar[str] = DEFAULT_PLUGINS
    commits_on_exit: ClassVar[bool] = True
    database_keyword: ClassVar[str] = "dbname"
    preflight_is_free: ClassVar[bool] = True
    session_attributes: ClassVar[tuple[str, ...]] = psycopg_session.ATTRIBUTES
    network_bound_methods: ClassVar[frozenset[str]] = frozenset(
        {
            "Connection.commit",
            "Connection.rollback",
            "Connection.transaction",
            "Connection.pipeline",
            "Connection.tpc_begin",
            "Connection.tpc_prepare",
            "Connection.tpc_commit",
            "Connection.tpc_rollback",
            "Connection.tpc_recover",
            "Cursor.execute",
            "Cursor.executemany",
            "Cursor.stream",
            "Cursor.copy",
            "ServerCursor.fetch",
        }
    )

    def __init__(self, target: Callable[..., Any]) -> None:
        self._keywords = _connect_keywords(target)

    @staticmethod
    def recognises(target: Callable[..., Any]) -> bool:
        """Whether a connect function is psycopg's. Raises `AwsWrapperError` for its asynchronous one."""
        owner = getattr(target, "__self__", target)
        if isinstance(owner, type) and issubclass(owner, psycopg.AsyncConnection):
            raise AwsWrapperError("asynchronous connections are not supported yet; pass psycopg.Connection.connect")
        if isinstance(owner, type):
            return issubclass(owner, psycopg.Connection)
        return str(getattr(target, "__module__", "")).split(".")[0] == "psycopg"

    @cached_property
    def wrapper_class(self) -> type[Any]:
        from wrapper.drivers.psycopg_wrapper import PsycopgWrapperConnection

        return PsycopgWrapperConnection

    def cursor_mixins(self, driver_class: type) -> tuple[type, ...]:
        from wrapper.drivers.psycopg_wrapper import NetworkFetch, PsycopgWrapperCursor

        # Fetching from a server-side cursor reaches the network.
        return (PsycopgWrapperCursor, NetworkFetch) if issubclass(driver_class, psycopg.ServerCursor) else (PsycopgWrapperCursor,)

    # -- parameters ------------------------------------------------------------------------------------------------------------

    def knows_parameter(self, name: str) -> bool:
        return name in self._keywords or name in _libpq_keywords()

    def parse_conninfo(self, text: str) -> dict[str, Any]:
        if _STRAY_AT.match(text):
            # libpq would take a part of the password for the host, port or database, and everybody would show it.
            raise AwsWrapperError('the connection URI has an "@" too many: in user and password, write "@" as %40 and "/" as %2F')
        found = _read(text)
        if found is None:
            raise AwsWrapperError(
                "the connection text is not valid for libpq: expected keyword=value pairs (values with blanks in single quotes) "
                "or a postgresql:// URI with percent-encoded special characters"
            )
        if text.startswith(URI_SCHEMES) and not _PORTS.fullmatch(str(found.get("port") or "")):
            # What stands there may be a password, for want of an "@".
            raise AwsWrapperError(
                "the port in the connection URI is no number: expected postgresql://user:password@host:port/database"
            )
        return found

    def endpoint(self, parameters: Mapping[str, Any]) -> tuple[str, int] | None:
        return _endpoint(psycopg_service.expanded(parameters))

    # -- connections -----------------------------------------------------------------------------------------------------------

    def opener(self, target: Callable[..., Any]) -> Callable[..., Any]:
        return target

    def connect_arguments(self, parameters: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
        arguments = psycopg_service.expanded(parameters)
        database = arguments.pop("database", None)
        if database is not None:
            arguments["dbname"] = database
        if _endpoint(arguments) is not None:
            self._add_keepalive_floor(arguments, settings)
        if settings["socket_timeout"] and not psycopg_guard.CAN_LIMIT:
            raise AwsWrapperError(
                f"socket_timeout={settings['socket_timeout']!r} needs psycopg 3.2.11 or newer, not {psycopg.__version__}"
            )
        # A service or the environment comes before our default. libpq wants whole seconds; psycopg raises what is below two.
        theirs = None
        if not settings.is_given("connect_timeout"):
            theirs = arguments.get("connect_timeout") or variable("PGCONNECT_TIMEOUT")
        arguments["connect_timeout"] = theirs or math.ceil(settings["connect_timeout"])
        return arguments

    def prepare_connect_info(self, host_info: HostInfo, props: Mapping[str, Any]) -> dict[str, Any]:
        arguments = dict(props)
        if arguments.get("host") != host_info.host:
            arguments.pop("hostaddr", None)
        arguments["host"] = host_info.host
        if host_info.port != NO_PORT:
            arguments["port"] = host_info.port
        address = static_address(host_info.host)
        if address is not None:
            arguments.setdefault("hostaddr", address)
        return arguments

    def unwrap(self, connection: Any) -> Any:
        if isinstance(connection, psycopg.Connection):
            return connection
        # SQLAlchemy's name for what is inside a pooled connection.
        found = getattr(connection, "driver_connection", connection)
        if not isinstance(found, psycopg.Connection):
            raise AwsWrapperError(f"expected a psycopg.Connection from the connect function, not {type(found).__name__}")
        return found

    def closed(self, connection: Any) -> Any:
        # A connection attempt that libpq refuses at once, without any traffic.
        pgconn = pq.PGconn.connect_start(b"not_a_keyword=")
        pgconn.finish()
        return type(connection)(pgconn)

    @staticmethod
    def _add_keepalive_floor(arguments: dict[str, Any], settings: Settings) -> None:
        if settings["tcp_keepalive"] is False:
            arguments.setdefault("keepalives", 0)
            return
        arguments.setdefault("keepalives", 1)
        arguments.setdefault("keepalives_idle", settings["tcp_keepalive_time"])
        arguments.setdefault("keepalives_interval", settings["tcp_keepalive_interval"])
        arguments.setdefault("keepalives_count", settings["tcp_keepalive_probes"])
        arguments.setdefault("tcp_user_timeout", _TCP_USER_TIMEOUT_MS)

    guard = staticmethod(psycopg_guard.put_on)
    unguard = staticmethod(psycopg_guard.take_off)

    def disown(self, connection: Any) -> None:
        """psycopg itself ends a connection in the process that opened it only."""

    def in_use(self, connection: Any) -> Callable[[], bool]:
        # Held by psycopg during every call but the parts of a COPY.
        return connection.lock.locked  # type: ignore[no-any-return]

    def fileno(self, connection: Any) -> int | None:
        try:
            return int(connection.pgconn.socket)
        except psycopg.Error:
            return None

    def preflight(self, host: str, port: int, timeout: float, address: str | None = None) -> None:
        deadline = time.monotonic() + timeout
        with socket.create_connection((address or host, port), timeout=timeout) as probe:
            probe.settimeout(max(0.001, deadline - time.monotonic()))
            probe.sendall(_SSL_REQUEST)
            if not probe.recv(1):
                raise ConnectionResetError("the server closed the connection")

    def peer_address(self, connection: Any) -> str | None:
        address: bytes = connection.pgconn.hostaddr
        return address.decode() or None

    def is_closed(self, connection: Any) -> bool:
        return bool(connection.closed)

    def close(self, connection: Any) -> None:
        try:
            connection.close()
        except psycopg.Error:
            pass  # it was broken already

    # -- state -----------------------------------------------------------------------------------------------------------------

    def is_in_transaction(self, connection: Any) -> bool:
        return self.means_in_transaction(self.connection_status(connection))

    def connection_status(self, connection: Any) -> Any:
        return connection.pgconn.transaction_status

    # No Python function of ours: this is on the way of every statement.
    cursor_status = staticmethod(attrgetter("_pgconn.transaction_status"))

    def means_in_transaction(self, status: Any) -> bool:
        return status in _OPEN

    def means_lost(self, status: Any) -> bool:
        return bool(status == pq.TransactionStatus.UNKNOWN)

    def reported_role(self, connection: Any) -> HostRole | None:
        # Reported without being asked since PostgreSQL 14, and updated when the server changes.
        value = connection.pgconn.parameter_status(b"in_hot_standby")
        return None if value is None else HostRole.READER if value == b"on" else HostRole.WRITER

    def rollback(self, connection: Any) -> None:
        connection.rollback()

    def settle(self, connection: Any) -> None:
        if self.is_closed(connection) or self.is_in_transaction(connection):
            connection.rollback()

    take_session_state = staticmethod(psycopg_session.take_session_state)
    set_session_state = staticmethod(psycopg_session.set_session_state)
    adopt = staticmethod(psycopg_session.adopt)

    # -- errors ----------------------------------------------------------------------------------------------------------------

    def classify(self, error: BaseException) -> ErrorKind:
        return ExceptionManager.decide(psycopg_errors.classify(error), error)

    def classify_sqlstate(self, sqlstate: str) -> ErrorKind:
        return ExceptionManager.decide(psycopg_errors.classify_sqlstate(sqlstate), sql_state=sqlstate)

    def is_overruled(self, error: BaseException) -> bool:
        return self.classify(error) is not psycopg_errors.classify(error)

    def error(self) -> type[Exception]:
        return psycopg.Error

    def interface_error(self) -> type[Exception]:
        return psycopg.InterfaceError

    def operational_error(self) -> type[Exception]:
        return psycopg.OperationalError

    # -- the wrapper's own queries ---------------------------------------------------------------------------------------------

    def detect(self, connection: Any, timeout: float) -> DatabaseDialect:
        return DIALECTS[detected(detection(), lambda sql: psycopg_query.run(connection.pgconn, sql.encode(), timeout)[0])]

    def ask_role(self, connection: Any, dialect: DatabaseDialect, timeout: float) -> RoleAnswer:
        ((row,),) = psycopg_query.run(connection.pgconn, dialect.role_query.encode(), timeout)
        return dialect.role_answer(row)

    def read_topology(
        self, connection: Any, dialect: DatabaseDialect, template: InstanceTemplate, port: int, timeout: float
    ) -> tuple[RoleAnswer, tuple[TopologyHost, ...]]:
        statements = [dialect.role_query, dialect.topology_query]
        results = psycopg_query.run(connection.pgconn, ";\n".join(filter(None, statements)).encode(), timeout)
        members = dialect.topology_hosts(results[1], template, port) if dialect.topology_query else ()
        return dialect.role_answer(results[0][0]), members

    def login_values(self, connection: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            name: value for name, value in connection.info.get_parameters().items() if name not in _NOT_FOR_PROBES
        }
        if connection.info.password:
            values["password"] = connection.info.password
        return values
