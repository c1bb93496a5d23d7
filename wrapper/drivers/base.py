"""The contract of a driver dialect: everything that the wrapper does differently per driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from wrapper.dialects import DatabaseDialect, RoleAnswer
from wrapper.dialects.base import InstanceTemplate
from wrapper.drivers.classify import ErrorKind
from wrapper.hosts import HostInfo, HostRole
from wrapper.monitor.state import TopologyHost
from wrapper.session_state import SessionState
from wrapper.settings import Settings

if TYPE_CHECKING:
    from wrapper.connection import AwsWrapperConnection


DEFAULT_PLUGINS = "initial_connection,aurora_connection_tracker,failover_v2,host_monitoring_v2"


class FailureListener(Protocol):
    """Told by the guard at the driver's single I/O point that a physical connection failed."""

    def physical_failure(self, connection: Any, error: BaseException) -> None: ...


class DriverDialect(Protocol):
    """One driver. Instances hold no state of a connection."""

    code: ClassVar[str]
    engine: ClassVar[str]
    default_plugins: ClassVar[str]
    # Methods that reach the network, by the names plugins subscribe to.
    network_bound_methods: ClassVar[frozenset[str]]
    # Attributes of its connections that an application may set at any time; some are arguments of its connect function too.
    session_attributes: ClassVar[tuple[str, ...]]
    # Whether leaving `with connection:` commits.
    commits_on_exit: ClassVar[bool]
    # The connect function's own name for the parameter `database`.
    database_keyword: ClassVar[str]
    # Whether a server takes no notice of a pre-flight. One that does is asked in a failover only.
    preflight_is_free: ClassVar[bool]

    @property
    def wrapper_class(self) -> type[AwsWrapperConnection]:
        """The class of wrapper connections that has the driver's own methods."""
        ...

    def cursor_mixins(self, driver_class: type) -> tuple[type, ...]:
        """Return what the cursors of one of the driver's classes have mixed in."""
        ...

    def knows_parameter(self, name: str) -> bool:
        """Whether the driver's connect function takes a parameter of this name."""
        ...

    def parse_conninfo(self, text: str) -> dict[str, Any]:
        """Return what the driver's own parser makes of connection text."""
        ...

    def endpoint(self, parameters: Mapping[str, Any]) -> tuple[str, int] | None:
        """Return the host and port that the parameters lead to; None when that is not one TCP endpoint."""
        ...

    def opener(self, target: Callable[..., Any]) -> Callable[..., Any]:
        """Return what is called in place of the application's connect function: that, and what the driver needs done around it."""
        ...

    def connect_arguments(self, parameters: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
        """Return the keyword arguments of the driver's connect function, the wrapper's network settings translated."""
        ...

    def prepare_connect_info(self, host_info: HostInfo, props: Mapping[str, Any]) -> dict[str, Any]:
        """Return `props` leading to another host. Shares nothing with `props`."""
        ...

    def unwrap(self, connection: Any) -> Any:
        """Return the driver's connection in what a connection provider returned. Raises `AwsWrapperError` for anything else."""
        ...

    def closed(self, connection: Any) -> Any:
        """Return a closed connection of the same class, to stand in for one that went back to its pool."""
        ...

    def guard(self, connection: Any, listener: FailureListener, timeout: float | None = None) -> None:
        """Have `listener` told of every failure at the connection's I/O point, and end every wait there after `timeout` seconds."""
        ...

    def unguard(self, connection: Any) -> None:
        """Leave a connection that goes back to a pool: nobody is told of its failures until it is guarded again."""
        ...

    def disown(self, connection: Any) -> None:
        """In a forked child: see to it that nothing done to a connection of the parent's reaches the server, not even its end."""
        ...

    def in_use(self, connection: Any) -> Callable[[], bool]:
        """Return a function that any thread may call, which tells whether a call is using the connection at that moment. It neither
        touches the driver nor keeps the connection alive."""
        ...

    def fileno(self, connection: Any) -> int | None:
        """Return the socket's descriptor, None when there is none to be had."""
        ...

    def preflight(self, host: str, port: int, timeout: float, address: str | None = None) -> None:
        """Ask a host for one byte without logging in. Raises `OSError` when it does not answer within `timeout` seconds."""
        ...

    def is_closed(self, connection: Any) -> bool:
        """Whether the connection was closed or is known to be broken; no network traffic."""
        ...

    def is_in_transaction(self, connection: Any) -> bool:
        """Whether a transaction is open on the server, as far as the driver knows; no network traffic."""
        ...

    @property
    def cursor_status(self) -> Callable[[Any], Any]:
        """A function from a cursor to the state of its connection, to be looked at later with the two `means_…` below. It is called
        before every statement and must cost next to nothing."""
        ...

    def connection_status(self, connection: Any) -> Any:
        """Return the same of a connection."""
        ...

    def means_in_transaction(self, status: Any) -> bool:
        """Whether a state is that of an open transaction."""
        ...

    def means_lost(self, status: Any) -> bool:
        """Whether a state is that of a connection that was lost already, so that nothing more could be sent."""
        ...

    def classify(self, error: BaseException) -> ErrorKind:
        """What an error of this driver means; `ExceptionManager` decides."""
        ...

    def classify_sqlstate(self, sqlstate: str) -> ErrorKind:
        """What an error with this SQLSTATE means; `ExceptionManager` decides."""
        ...

    def is_overruled(self, error: BaseException) -> bool:
        """Whether the application's own handler gives an error another meaning than the driver does."""
        ...

    def reported_role(self, connection: Any) -> HostRole | None:
        """The role that the server reports without being asked, kept up to date by the driver; None when it does not."""
        ...

    def peer_address(self, connection: Any) -> str | None:
        """The numeric address that the connection leads to, None when the driver does not say."""
        ...

    def error(self) -> type[Exception]:
        """The driver's PEP 249 `Error`."""
        ...

    def interface_error(self) -> type[Exception]:
        """The driver's PEP 249 `InterfaceError`."""
        ...

    def operational_error(self) -> type[Exception]:
        """The driver's PEP 249 `OperationalError`."""
        ...

    def detect(self, connection: Any, timeout: float) -> DatabaseDialect:
        """Find out which flavour of database the connection leads to (one round trip; more for an Aurora)."""
        ...

    def ask_role(self, connection: Any, dialect: DatabaseDialect, timeout: float) -> RoleAnswer:
        """Ask the host for its role (one round trip)."""
        ...

    def read_topology(
        self, connection: Any, dialect: DatabaseDialect, template: InstanceTemplate, port: int, timeout: float
    ) -> tuple[RoleAnswer, tuple[TopologyHost, ...]]:
        """Ask the host for its role and the cluster's members (one round trip)."""
        ...

    def login_values(self, connection: Any) -> dict[str, Any]:
        """Return what a probe session needs to log in as this connection did. Secret."""
        ...

    def take_session_state(self, connection: Any) -> Callable[[], SessionState]:
        """Take down what is set on a connection, as far as the driver knows it, for later; no network traffic."""
        ...

    def set_session_state(self, connection: Any, state: SessionState) -> None:
        """Set what is different, in as few round trips as the driver allows; none when only attributes of the driver's differ."""
        ...

    def adopt(self, old: Any, new: Any) -> None:
        """Have `new` take over what belongs to the connection as an object: adapters, handlers, what a pool keeps on it."""
        ...

    def rollback(self, connection: Any) -> None:
        """Roll back the open transaction."""
        ...

    def settle(self, connection: Any) -> None:
        """End what an application left unfinished, before somebody else gets the connection: a transaction, rows on their way.
        Raises whatever the driver raises when that cannot be."""
        ...

    def close(self, connection: Any) -> None:
        """Close a physical connection, ignoring that it may be broken."""
        ...
