"""What a plugin may ask for and change: hosts, roles, connections, errors. One instance per wrapper connection."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wrapper.configuration import Configuration
from wrapper.decisions.host_changes import host_changes
from wrapper.decisions.selection import LEAST_CONNECTIONS
from wrapper.dialects import DatabaseDialect, RoleAnswer
from wrapper.discovery import Discovery
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import AwsWrapperError
from wrapper.host_list import AllowedAndBlockedHosts, HostListProvider, SharedHostList, restrictions
from wrapper.hosts import HostAvailability, HostInfo, HostRole
from wrapper.monitor.client import MonitorClient
from wrapper.monitor.direct import Refusal
from wrapper.monitor.messages import Watch
from wrapper.monitor.state import ClusterState
from wrapper.physical import Physical, PhysicalConnections
from wrapper.pipeline import PluginManager
from wrapper.plugin import (
    CONNECT,
    FORCE_CONNECT,
    NOTIFY_HOST_LIST_CHANGED,
    ConnectionEvent,
    OldConnectionSuggestedAction,
    Plugin,
)
from wrapper.providers.base import ConnectionProvider, ConnectionProviderManager

if TYPE_CHECKING:
    from wrapper.connection import AwsWrapperConnection

logger = logging.getLogger(__name__)


class PluginService:
    """The services of one wrapper connection. Not thread-safe, like the connection itself."""

    def __init__(self, target: Callable[..., Any], configuration: Configuration) -> None:
        self.target_driver_func = target
        self.driver_dialect = driver_dialect = configuration.driver_dialect
        self.parameters = dict(configuration.parameters)
        self.settings = settings = configuration.settings
        self.known_cluster = configuration.cluster
        self.connections = PhysicalConnections(target, driver_dialect, settings, self.known_cluster)
        self.discovery = Discovery(driver_dialect, settings, self.known_cluster, self.connections)
        self.provider_manager = ConnectionProviderManager(configuration.connection_provider)
        self.initial_connection_host_info = self.known_cluster.initial_host
        self.host_list_provider: HostListProvider = SharedHostList(self)
        # What is kept about a physical connection that was opened through this service: a function of the connection.
        self.physical: Callable[[Any], Physical | None] = self.connections.get
        # The endpoint that is watched, None where there is no single one.
        self.watch: Watch | None = self.known_cluster.watch
        self._wrapper: weakref.ref[AwsWrapperConnection] | None = None
        self._announced_hosts: tuple[HostInfo, ...] = ()
        self.manager = PluginManager(self, settings, configuration.plugins)

    # -- the current connection ------------------------------------------------------------------------------------------------

    def attach(self, wrapper: AwsWrapperConnection) -> None:
        """Serve this wrapper connection from now on."""
        self._wrapper = weakref.ref(wrapper)

    @property
    def current_connection(self) -> Any:
        """The driver's connection in use, None before the first connect or when the wrapper connection is gone."""
        wrapper = self._wrapper() if self._wrapper is not None else None
        return None if wrapper is None else wrapper.target_connection

    @property
    def current_host_info(self) -> HostInfo | None:
        """The host that the current connection leads to, as far as it is known."""
        physical = self.physical(self.current_connection)
        return physical.host_info if physical is not None else self.initial_connection_host_info

    @property
    def is_in_transaction(self) -> bool:
        """Whether the current connection has an open transaction, as the driver knows it."""
        connection = self.current_connection
        return connection is not None and self.driver_dialect.is_in_transaction(connection)

    def set_current_connection(self, connection: Any, host_info: HostInfo, *, dispose: bool = True) -> None:
        """Make `connection` the current one: session state moves over, cursors of the old one are refused from now on.

        An open transaction of the old connection is rolled back, unless `rollback_on_switch` is off. Then the old connection is
        closed, unless a plugin wants it preserved or `dispose` is false. When `connection` does not take the session state, it is
        discarded instead, and everything stays as it was.
        """
        wrapper = self._wrapper() if self._wrapper is not None else None
        if wrapper is None:
            raise AwsWrapperError("the wrapper connection is gone")
        old = wrapper.target_connection
        if connection is old:
            return
        physical = self.physical(connection)
        if physical is not None:
            physical.host_info = host_info
        try:
            self.connections.transfer_session_state(old, connection)
        except BaseException:
            self.discard(connection)
            raise
        wrapper.switch_to(connection)
        logger.debug("a connection leads to %s now", host_info)
        action = OldConnectionSuggestedAction.NO_OPINION
        try:
            action = self.manager.notify_connection_changed({ConnectionEvent.CONNECTION_OBJECT_CHANGED})
        finally:
            # Also when a plugin raises: the switch has taken place.
            if dispose:
                self._leave(old, preserve=action is OldConnectionSuggestedAction.PRESERVE)

    def _leave(self, old: Any, *, preserve: bool) -> None:
        if self.driver_dialect.is_closed(old):
            self.discard(old)
            return
        try:
            if self.settings["rollback_on_switch"] and self.driver_dialect.is_in_transaction(old):
                self.driver_dialect.rollback(old)
            if not preserve:
                self.connections.release(old)
        except self.driver_dialect.error():
            # It was left for a reason. The new connection is in use already: what the old one says is nobody's business.
            self.discard(old)

    # -- opening connections ---------------------------------------------------------------------------------------------------

    def connect(self, host_info: HostInfo | None, props: dict[str, Any], plugin_to_skip: Plugin | None = None) -> Any:
        """Open a connection through the connect pipeline; its end is the connection provider for the host."""
        return self._run_connect(CONNECT, host_info, props, plugin_to_skip)

    def force_connect(self, host_info: HostInfo | None, props: dict[str, Any], plugin_to_skip: Plugin | None = None) -> Any:
        """Open a connection through the force_connect pipeline; its end is the driver."""
        return self._run_connect(FORCE_CONNECT, host_info, props, plugin_to_skip)

    def _run_connect(self, pipeline: str, host_info: HostInfo | None, props: dict[str, Any], skip: Plugin | None) -> Any:
        """`host_info` is None where the parameters lead to no single TCP endpoint; plugins see the driver's `host` then."""

        def end(found: HostInfo, props: dict[str, Any]) -> Any:
            if host_info is None:
                return self.connections.open_elsewhere(props)
            manager = self.provider_manager
            provider = manager.default_provider if pipeline == FORCE_CONNECT else manager.get_connection_provider(found, props)
            return self._open(found, props, provider)

        initial = self._wrapper is None
        shown = host_info or HostInfo(str(props.get("host") or ""), role=HostRole.UNKNOWN)
        return self.manager.connect(pipeline, self, shown, props, initial, end, skip)

    def _open(self, host_info: HostInfo, props: dict[str, Any], provider: ConnectionProvider) -> Any:
        client = self.known_cluster.now().client
        client.begin_opening(self.known_cluster.key(host_info))
        try:
            connection = self.connections.open(host_info, props, provider, self.discovery.database_dialect)
        except Exception as error:
            if self.is_network_exception(error):
                self.set_availability(host_info.all_aliases, HostAvailability.UNAVAILABLE)
            raise
        finally:
            client.end_opening()
        if self.known_cluster.has_marks:
            self.set_availability(host_info.all_aliases, HostAvailability.AVAILABLE)
        return connection

    def preflight(self, host_info: HostInfo, timeout: float) -> None:
        """Ask a host for one byte. Raises the driver's `OperationalError` when there is none within `timeout` seconds."""
        self.connections.preflight(host_info, timeout)

    def introduce(self, connection: Any, *, needs_role: bool) -> HostInfo:
        """Find out where a freshly opened connection leads, and have it watched; see `Discovery.introduce`."""
        return self.discovery.introduce(connection, needs_role=needs_role)

    def discard(self, connection: Any) -> None:
        """Shut down and close a physical connection that is no longer wanted."""
        self.connections.discard(connection)

    def report(self, physical: Physical, error: str) -> None:
        """Tell the monitor that a physical connection failed."""
        self.connections.report(physical, error)

    def search_directly(self) -> Refusal | None:
        """Have every known host asked by sessions of this process for a moment longer. Returns the login error while no host lets
        them in."""
        provider = self.provider_manager.default_provider
        parameters = dict(self.parameters)
        return self.discovery.search(lambda host: self.connections.open(host, parameters, provider))

    def get_connection_provider_manager(self) -> ConnectionProviderManager:
        """The manager that chooses where connections come from."""
        return self.provider_manager

    # -- the cluster -----------------------------------------------------------------------------------------------------------

    @property
    def client(self) -> MonitorClient:
        """This process's client of the shared monitor."""
        return self.known_cluster.client

    @property
    def views(self) -> tuple[ClusterState, ...]:
        """What the monitor and this process know of the cluster."""
        return self.known_cluster.views

    @property
    def cluster(self) -> ClusterState | None:
        """The best knowledge of the cluster."""
        return self.known_cluster.state

    @property
    def all_hosts(self) -> tuple[HostInfo, ...]:
        """Every known host of the cluster; the initial host while nothing else is known."""
        return self.host_list_provider.refresh()

    @property
    def hosts(self) -> tuple[HostInfo, ...]:
        """The hosts that may be connected to: all, minus what `allowed_and_blocked_hosts` excludes."""
        return restrictions.permitted(self.known_cluster.url, self.host_list_provider.refresh())

    @property
    def allowed_and_blocked_hosts(self) -> AllowedAndBlockedHosts:
        """Restrictions by host id, shared by all connections of this process to the same endpoint."""
        return restrictions.get(self.original_url)

    @allowed_and_blocked_hosts.setter
    def allowed_and_blocked_hosts(self, value: AllowedAndBlockedHosts | None) -> None:
        restrictions.set(self.original_url, value)

    def refresh_host_list(self, connection: Any = None) -> None:
        """Take over what is known of the cluster's hosts and tell the plugins what changed."""
        self.host_list_provider.refresh(connection)
        self.notice_host_list()

    def force_refresh_host_list(self, connection: Any = None) -> None:
        """Have the database asked for the cluster's hosts now, on `connection` or the current one."""
        self.host_list_provider.force_refresh(connection or self.current_connection)
        self.notice_host_list()

    def force_monitoring_refresh_host_list(self, should_verify_writer: bool, timeout_sec: float) -> bool:
        """Have every host asked anew and wait until the writer (or, without `should_verify_writer`, any host) has proved itself.

        Returns whether that was within `timeout_sec` seconds.
        """
        if not self.host_list_provider.force_monitoring_refresh(should_verify_writer, timeout_sec):
            return False
        self.notice_host_list()
        return True

    def is_static_host_list_provider(self) -> bool:
        """Whether the host list never changes by itself: nothing but the connection parameters is known."""
        return self.host_list_provider.is_static

    def notice_host_list(self) -> None:
        """Tell the plugins that asked for it what changed in the host list since they were last told."""
        if not self.manager.is_subscribed(NOTIFY_HOST_LIST_CHANGED):
            return
        hosts = self.all_hosts
        changes = host_changes(self._announced_hosts, hosts)
        self._announced_hosts = hosts
        if changes:
            self.manager.notify_host_list_changed(changes)

    def host_by_key(self, key: str) -> HostInfo:
        """Return the host with this key, as well as it is known."""
        return self.known_cluster.host_by_key(key)

    def set_availability(self, aliases: frozenset[str] | set[str], availability: HostAvailability) -> None:
        """Mark the hosts with these `host:port` texts as worth connecting to or not, for all connections of this process."""
        self.known_cluster.mark(aliases, availability)
        if self._announced_hosts:
            self.notice_host_list()

    @property
    def database_dialect(self) -> DatabaseDialect | None:
        """The flavour of the database, None before the first connect."""
        return self.discovery.database_dialect

    def _given_or_current(self, connection: Any) -> Any:
        found = self.current_connection if connection is None else connection
        if found is None:
            raise AwsWrapperError("there is no connection to ask on yet: wait for the first connect, or pass one")
        return found

    def get_host_role(self, connection: Any = None) -> HostRole:
        """Ask the server behind a connection for its role."""
        return self.ask_role(self._given_or_current(connection)).role

    def ask_role(self, connection: Any) -> RoleAnswer:
        """Ask the server behind a connection for its role, rank and name (one round trip), and keep the proof."""
        return self.discovery.ask_role(connection)

    def identify_connection(self, connection: Any = None) -> HostInfo | None:
        """Ask the server behind a connection who it is; None when the cluster does not list it."""
        connection = self._given_or_current(connection)
        answer = self.ask_role(connection)
        for refresh in (None, self.force_refresh_host_list):
            if refresh is not None:
                refresh(connection)
            found = next((host for host in self.all_hosts if answer.id and host.host_id == answer.id), None)
            if found is not None:
                return found
        physical = self.physical(connection)
        return physical.host_info if physical is not None and self.is_static_host_list_provider() else None

    def fill_aliases(self, connection: Any = None, host_info: HostInfo | None = None) -> HostInfo | None:
        """Return the host with every `host:port` text under which a connection to it is known; hosts are immutable values."""
        connection = self._given_or_current(connection)
        host = host_info or self.current_host_info
        if host is None or host.aliases:
            return host
        aliases = {host.as_alias()}
        address = self.driver_dialect.peer_address(connection)
        if address is not None and host.is_port_specified():
            aliases.add(f"{address}:{host.port}")
        identified = self.identify_connection(connection)
        if identified is not None:
            aliases |= identified.all_aliases
        return host.with_aliases(frozenset(aliases))

    # -- strategies ------------------------------------------------------------------------------------------------------------

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        """Whether a plugin or the connection provider knows the strategy."""
        return self.provider_manager.accepts_strategy(role, strategy) or self.manager.accepts_strategy(role, strategy)

    def get_host_info_by_strategy(
        self, role: HostRole, strategy: str, host_list: Sequence[HostInfo] | None = None
    ) -> HostInfo | None:
        """Return a host of the role chosen by the strategy, None when there is none. Plugins come before connection providers.

        Raises `UnsupportedOperationError` for a strategy that nobody knows.
        """
        chosen = self.manager.get_host_info_by_strategy(role, strategy, host_list)
        if chosen is not None:
            return chosen
        hosts = self.hosts if host_list is None else host_list
        if strategy == LEAST_CONNECTIONS:
            hosts = self.known_cluster.counted(hosts)
        return self.provider_manager.get_host_info_by_strategy(hosts, role, strategy, self.settings)

    # -- parameters and methods ------------------------------------------------------------------------------------------------

    @property
    def props(self) -> Mapping[str, Any]:
        """The driver's parameters of this connection, as the connect pipeline starts with them."""
        return self.parameters

    @property
    def original_url(self) -> str:
        """`host:port` as the user gave it; empty where there is no single TCP endpoint."""
        return self.known_cluster.url

    @property
    def network_bound_methods(self) -> frozenset[str]:
        """The driver's methods that reach the network, by the names plugins subscribe to."""
        return self.driver_dialect.network_bound_methods

    def is_network_bound_method(self, method_name: str) -> bool:
        """Whether a method reaches the network."""
        return method_name in self.network_bound_methods

    def is_plugin_in_use(self, plugin_class: type[Plugin]) -> bool:
        """Whether this connection has a plugin of the class."""
        return any(isinstance(plugin, plugin_class) for plugin in self.manager.plugins)

    # -- errors ----------------------------------------------------------------------------------------------------------------

    def is_network_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        """Whether the error means that the connection is gone."""
        return self._is(ErrorKind.NETWORK, error, sql_state)

    def is_login_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        """Whether the server refused the credentials."""
        return self._is(ErrorKind.LOGIN, error, sql_state)

    def is_read_only_connection_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        """Whether the host does not take writes."""
        return self._is(ErrorKind.READ_ONLY, error, sql_state)

    def _is(self, kind: ErrorKind, error: BaseException | None, sql_state: str | None) -> bool:
        if error is not None and self.driver_dialect.classify(error) is kind:
            return True
        return sql_state is not None and self.driver_dialect.classify_sqlstate(sql_state) is kind

    # -- life ------------------------------------------------------------------------------------------------------------------

    def release_resources(self) -> None:
        """Let the plugins go and give the current connection's handle back."""
        self.manager.release_resources()
        physical = self.physical(self.current_connection)
        if physical is not None and physical.handle is not None:
            physical.handle.close()
