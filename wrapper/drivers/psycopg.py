"""psycopg 3, synchronous connections."""

from __future__ import annotations

import inspect
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from wrapper.dialects import DIALECTS, DatabaseDialect, RoleAnswer
from wrapper.dialects.base import InstanceTemplate
from wrapper.dialects.postgresql import DETECT_QUERY, detect
from wrapper.drivers import psycopg_errors, psycopg_query
from wrapper.drivers.base import FailureListener
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostInfo
from wrapper.monitor.state import TopologyHost
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
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


@cache
def _guarded(connection_class: type) -> type:
    """Return `connection_class` with a guard on psycopg's single I/O point, which tells the connection's listener of failures.

    A single base: an object can change its class to one with the same layout only, and a second base would alter it.
    """
    driver_wait = connection_class.wait  # type: ignore[attr-defined]

    def wait(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return driver_wait(self, *args, **kwargs)
        except psycopg.OperationalError as error:
            self._failure_listener.physical_failure(self, error)
            raise

    names = {"wait": wait, "is_guarded": True, "__module__": connection_class.__module__}
    return type(connection_class.__name__, (connection_class,), names)


@cache
def _libpq_keywords() -> dict[str, str | None]:
    """Every keyword that libpq knows, with the value its environment gives it."""
    return {
        option.keyword.decode(): None if option.val is None else option.val.decode(errors="replace")
        for option in pq.Conninfo.get_defaults()
    }


class PsycopgDialect:
    """psycopg's side of everything the wrapper does."""

    code: ClassVar[str] = "psycopg"
    engine: ClassVar[str] = "postgresql"
    default_plugins: ClassVar[str] = "failover_v2,host_monitoring_v2"
    commits_on_exit: ClassVar[bool] = True
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
        self._keywords = frozenset(inspect.signature(target).parameters) | {"database"}

    @staticmethod
    def recognises(target: Callable[..., Any]) -> bool:
        """Whether a connect function is psycopg's. Raises `AwsWrapperError` for its asynchronous one."""
        owner = getattr(target, "__self__", target)
        if isinstance(owner, type) and issubclass(owner, psycopg.AsyncConnection):
            raise AwsWrapperError("asynchronous connections are not supported yet; pass psycopg.Connection.connect")
        if isinstance(owner, type):
            return issubclass(owner, psycopg.Connection)
        return str(getattr(target, "__module__", "")).split(".")[0] == "psycopg"

    # -- parameters ------------------------------------------------------------------------------------------------------------

    def knows_parameter(self, name: str) -> bool:
        return name in self._keywords or name in _libpq_keywords()

    def parse_conninfo(self, text: str) -> dict[str, Any]:
        try:
            return dict(conninfo_to_dict(text))
        except psycopg.ProgrammingError:
            # libpq quotes the offending word or the whole URI, in which a password may stand: its error must not be seen.
            raise AwsWrapperError(
                "the connection text is not valid for libpq: expected keyword=value pairs (values with blanks in single quotes) "
                "or a postgresql:// URI with percent-encoded special characters"
            ) from None

    def endpoint(self, parameters: Mapping[str, Any]) -> tuple[str, int] | None:
        defaults = _libpq_keywords()
        host = parameters.get("host") or parameters.get("hostaddr") or defaults.get("host") or os.environ.get("PGHOSTADDR")
        port = str(parameters.get("port") or defaults.get("port") or 5432)
        if not host or parameters.get("service") or host.startswith(("/", "@")) or "," in f"{host}{port}":
            return None
        return host, int(port)

    # -- connections -----------------------------------------------------------------------------------------------------------

    def connect(
        self,
        target: Callable[..., Any],
        host: HostInfo | None,
        parameters: Mapping[str, Any],
        settings: Settings,
        address: str | None = None,
    ) -> Any:
        arguments = {name: value for name, value in parameters.items() if name != "database"}
        if "database" in parameters:
            arguments["dbname"] = parameters["database"]
        if host is not None:
            if arguments.get("host") != host.host:
                arguments.pop("hostaddr", None)
            arguments["host"] = host.host
            if host.is_port_specified():
                arguments["port"] = host.port
            if address is not None:
                arguments.setdefault("hostaddr", address)
            self._add_keepalive_floor(arguments, settings)
        # libpq wants whole seconds; psycopg raises what is below two.
        arguments["connect_timeout"] = math.ceil(settings["connect_timeout"])
        connection = target(**arguments)
        if not isinstance(connection, psycopg.Connection):
            raise AwsWrapperError(f"{target!r} returned {type(connection).__name__}, expected a psycopg.Connection")
        return connection

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

    def guard(self, connection: Any, listener: FailureListener) -> None:
        connection._failure_listener = listener
        if not hasattr(connection, "is_guarded"):
            connection.__class__ = _guarded(connection.__class__)

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

    def fetches_from_network(self, cursor_class: type) -> bool:
        return issubclass(cursor_class, psycopg.ServerCursor)

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

    def is_demoted(self, connection: Any) -> bool | None:
        # Reported without being asked since PostgreSQL 14, and updated when the server changes.
        value = connection.pgconn.parameter_status(b"in_hot_standby")
        return None if value is None else bool(value == b"on")

    def transfer_session_state(self, old: Any, new: Any) -> None:
        for name in ("autocommit", "isolation_level", "read_only", "deferrable"):
            if getattr(new, name) != getattr(old, name):
                setattr(new, name, getattr(old, name))
        for name in ("row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold", "prepared_max"):
            setattr(new, name, getattr(old, name))
        if old._adapters is not None:
            new._adapters = old._adapters
        for handler in old._notice_handlers:
            new.add_notice_handler(handler)
        for handler in old._notify_handlers:
            new.add_notify_handler(handler)
        # What psycopg_pool keeps on a connection; without it a switched connection would never go back to its pool.
        for name in ("_pool", "_created_at", "_expire_at"):
            if hasattr(old, name):
                setattr(new, name, getattr(old, name))

    # -- errors ----------------------------------------------------------------------------------------------------------------

    def classify(self, error: BaseException) -> ErrorKind:
        return psycopg_errors.classify(error)

    def operational_error(self) -> type[Exception]:
        return psycopg.OperationalError

    # -- the wrapper's own queries ---------------------------------------------------------------------------------------------

    def detect(self, connection: Any, timeout: float) -> DatabaseDialect:
        ((row,),) = psycopg_query.run(connection.pgconn, DETECT_QUERY, timeout)
        return DIALECTS[detect(row)]

    def ask_role(self, connection: Any, dialect: DatabaseDialect, timeout: float) -> RoleAnswer:
        ((row,),) = psycopg_query.run(connection.pgconn, dialect.role_query, timeout)
        return dialect.role_answer(row)

    def read_topology(
        self, connection: Any, dialect: DatabaseDialect, template: InstanceTemplate, port: int, timeout: float
    ) -> tuple[RoleAnswer, tuple[TopologyHost, ...]]:
        statements = [dialect.role_query, dialect.topology_query]
        results = psycopg_query.run(connection.pgconn, ";\n".join(filter(None, statements)), timeout)
        members = dialect.topology_hosts(results[1], template, port) if dialect.topology_query else ()
        return dialect.role_answer(results[0][0]), members

    def login_values(self, connection: Any) -> dict[str, Any]:
        values: dict[str, Any] = {
            name: value for name, value in connection.info.get_parameters().items() if name not in _NOT_FOR_PROBES
        }
        if connection.info.password:
            values["password"] = connection.info.password
        return values
