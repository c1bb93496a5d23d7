"""What a plugin may ask for and change: hosts, roles, connections, errors. One instance per wrapper connection."""

from __future__ import annotations

import itertools
import logging
import random
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wrapper.decisions.host_changes import host_changes
from wrapper.decisions.selection import STRATEGIES, choose, parse_weights
from wrapper.dialects import DIALECTS, DatabaseDialect, RoleAnswer
from wrapper.dialects.base import InstanceTemplate
from wrapper.drivers.base import DriverDialect
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.hosts import HostInfo, HostRole, split_host_key
from wrapper.monitor.client import MonitorClient, current_client
from wrapper.monitor.direct import search, with_members, with_proof
from wrapper.monitor.handles import Handle
from wrapper.monitor.messages import Offer, Watch
from wrapper.monitor.messages import Settings as WatchSettings
from wrapper.monitor.state import ClusterState, TopologyHost
from wrapper.pipeline import PluginManager
from wrapper.plugin import (
    CONNECT,
    FORCE_CONNECT,
    NOTIFY_HOST_LIST_CHANGED,
    ConnectionEvent,
    OldConnectionSuggestedAction,
    Plugin,
)
from wrapper.resolver import static_address
from wrapper.settings import Settings
from wrapper.urls import parse_endpoint

if TYPE_CHECKING:
    from wrapper.connection import AwsWrapperConnection

logger = logging.getLogger(__name__)

_turns = itertools.count()
# A connect to a host with failing evidence, and every connect of a failover, may wait this long for the first byte.
PREFLIGHT_TIMEOUT = 0.6


@dataclass(slots=True)
class Physical:
    """What is kept about a physical connection. `failed`: the guard at the driver's I/O point saw it fail."""

    host_info: HostInfo
    handle: Handle | None
    opened_at: float
    role: RoleAnswer | None = None
    failed: BaseException | None = None


class PluginService:
    """The services of one wrapper connection. Not thread-safe, like the connection itself."""

    def __init__(
        self,
        target: Callable[..., Any],
        driver_dialect: DriverDialect,
        parameters: dict[str, Any],
        settings: Settings,
        plugins: str,
    ) -> None:
        self.target_driver_func = target
        self.driver_dialect = driver_dialect
        self.parameters = parameters
        self.settings = settings
        self.database_dialect: DatabaseDialect | None = None
        self.initial_connection_host_info: HostInfo | None = None
        self._physical: weakref.WeakKeyDictionary[Any, Physical] = weakref.WeakKeyDictionary()
        self._wrapper: weakref.ref[AwsWrapperConnection] | None = None
        self._announced_hosts: tuple[HostInfo, ...] = ()
        endpoint = driver_dialect.endpoint(parameters)
        # Unix sockets and host lists lead to no single watchable host: such connections are passed through.
        self.watch: Watch | None = None
        if endpoint is not None:
            host, port = endpoint
            cluster_id = settings["cluster_id"] if settings.is_given("cluster_id") else None
            self.watch = Watch(driver_dialect.engine, host, port, cluster_id)
            self.initial_connection_host_info = HostInfo(host, port)
        self.template = self._instance_template()
        if settings["wrapper_dialect"] is not None:
            self.database_dialect = self._forced_dialect(settings["wrapper_dialect"])
        self.manager = PluginManager(self, settings, plugins)

    def _instance_template(self) -> InstanceTemplate:
        given = self.settings["cluster_instance_host_pattern"]
        if given is not None:
            return InstanceTemplate.parse(given)
        if self.watch is not None:
            implied = parse_endpoint(self.watch.host).template
            if implied is not None:
                return InstanceTemplate(implied)
        return InstanceTemplate()

    def _forced_dialect(self, code: str) -> DatabaseDialect:
        dialect = DIALECTS.get(code)
        if dialect is None or dialect.engine != self.driver_dialect.engine:
            allowed = sorted(code for code, dialect in DIALECTS.items() if dialect.engine == self.driver_dialect.engine)
            raise AwsWrapperError(f"wrapper_dialect={code!r} is not valid: expected one of {', '.join(allowed)}")
        return dialect

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

        The old connection is closed, unless a plugin wants it preserved or `dispose` is false.
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
        wrapper.switch_to(connection)
        action = self.manager.notify_connection_changed({ConnectionEvent.CONNECTION_OBJECT_CHANGED})
        if dispose and action is not OldConnectionSuggestedAction.PRESERVE:
            self.discard(old)

    def notice_host_list(self) -> None:
        """Tell the plugins that asked for it what changed in the host list since they were last told."""
        if not self.manager.is_subscribed(NOTIFY_HOST_LIST_CHANGED):
            return
        hosts = self.all_hosts
        changes = host_changes(self._announced_hosts, hosts)
        self._announced_hosts = hosts
        if changes:
            self.manager.notify_host_list_changed(changes)

    def physical(self, connection: Any) -> Physical | None:
        """What is kept about a physical connection opened through this service."""
        return None if connection is None else self._physical.get(connection)

    def physical_failure(self, connection: Any, error: BaseException) -> None:
        """Called by the guard: note that the connection failed, and let everybody know."""
        if self.driver_dialect.classify(error) is not ErrorKind.NETWORK or not self.driver_dialect.is_closed(connection):
            return
        physical = self.physical(connection)
        # A handle that was given back: the application closed the connection itself.
        if physical is not None and physical.failed is None and physical.handle is not None and physical.handle.is_open:
            physical.failed = error
            self.report(physical, "network")

    def report(self, physical: Physical, error: str) -> None:
        """Tell the monitor that a physical connection failed."""
        if self.watch is not None:
            self.client.report(self.watch, physical.host_info.key, error, physical.opened_at)

    # -- opening connections ---------------------------------------------------------------------------------------------------

    def connect(self, host_info: HostInfo | None, props: dict[str, Any], plugin_to_skip: Plugin | None = None) -> Any:
        """Open a connection through the connect pipeline."""
        return self._run_connect(CONNECT, host_info, props, plugin_to_skip)

    def force_connect(self, host_info: HostInfo | None, props: dict[str, Any], plugin_to_skip: Plugin | None = None) -> Any:
        """Open a connection through the force_connect pipeline."""
        return self._run_connect(FORCE_CONNECT, host_info, props, plugin_to_skip)

    def _run_connect(self, pipeline: str, host_info: HostInfo | None, props: dict[str, Any], skip: Plugin | None) -> Any:
        if host_info is None:
            return self.driver_dialect.connect(self.target_driver_func, None, props, self.settings)
        initial = self.current_connection is None
        return self.manager.connect(pipeline, self, host_info, props, initial, self._open, skip)

    def _open(self, host_info: HostInfo, props: dict[str, Any]) -> Any:
        """The end of the connect pipelines: the driver itself."""
        cluster = self.cluster
        evidence = cluster.health.get(host_info.key) if cluster is not None else None
        address = static_address(host_info.host)
        if evidence is not None and evidence.is_failing:
            self.preflight(host_info, PREFLIGHT_TIMEOUT)
        connection = self.driver_dialect.connect(self.target_driver_func, host_info, props, self.settings, address)
        opened_at = time.monotonic()
        handle = None
        fileno = self.driver_dialect.fileno(connection)
        if self.watch is not None and self.manager.plugins and fileno is not None:
            handle = Handle(fileno, self.watch.key, host_info.key, opened_at)
            self.driver_dialect.guard(connection, self)
        self._physical[connection] = Physical(host_info, handle, opened_at)
        return connection

    def preflight(self, host_info: HostInfo, timeout: float) -> None:
        """Ask a host for one byte. Raises the driver's `OperationalError` when there is none within `timeout` seconds."""
        cluster = self.cluster
        evidence = cluster.health.get(host_info.key) if cluster is not None else None
        address = static_address(host_info.host) or (evidence.address if evidence is not None else None)
        port = host_info.port if host_info.is_port_specified() else self._default_port
        try:
            self.driver_dialect.preflight(host_info.host, port, timeout, address)
        except OSError as error:
            text = f"connection failed: {host_info.get_host_and_port()} does not answer: {error}"
            raise self.driver_dialect.operational_error()(text) from error

    @property
    def _default_port(self) -> int:
        return self.watch.port if self.watch is not None else 0

    def discard(self, connection: Any) -> None:
        """Shut down and close a physical connection that is no longer wanted."""
        physical = self.physical(connection)
        if physical is not None and physical.handle is not None:
            physical.handle.shut_down()
            physical.handle.close()
        self.driver_dialect.close(connection)

    # -- the cluster -----------------------------------------------------------------------------------------------------------

    @property
    def client(self) -> MonitorClient:
        """This process's client of the shared monitor."""
        return current_client(self.settings["monitor_mode"])

    @property
    def views(self) -> list[ClusterState]:
        """What the monitor and this process know of the cluster."""
        return self.client.views(self.watch) if self.watch is not None and self.manager.plugins else []

    @property
    def cluster(self) -> ClusterState | None:
        """The best knowledge of the cluster."""
        return self.client.cluster(self.watch) if self.watch is not None and self.manager.plugins else None

    @property
    def all_hosts(self) -> tuple[HostInfo, ...]:
        """Every known host of the cluster, the writer as it proved itself; the initial host while nothing else is known."""
        cluster = self.cluster
        if cluster is None or not cluster.topology.hosts:
            return () if self.initial_connection_host_info is None else (self.initial_connection_host_info,)
        return tuple(self._host_info(cluster, host) for host in cluster.topology.hosts)

    hosts = all_hosts

    def _host_info(self, cluster: ClusterState, host: TopologyHost) -> HostInfo:
        health = cluster.health.get(host.key)
        role = HostRole.parse(health.role if health is not None and health.proved_at is not None else host.role)
        if cluster.topology.writer is not None:
            role = HostRole.WRITER if host.key == cluster.topology.writer else HostRole.READER
        return HostInfo(host.host, host.port, role, weight=host.weight, host_id=host.id or None)

    def host_by_key(self, key: str) -> HostInfo:
        """Return the host with this key, as well as it is known."""
        for view in self.views:
            member = view.topology.member(key)
            if member is not None:
                return self._host_info(view, member)
        return HostInfo(*split_host_key(key), role=HostRole.UNKNOWN)

    def introduce(self, connection: Any, *, needs_role: bool) -> HostInfo:
        """Find out where a freshly opened connection leads, and make the cluster known to this process and to the monitor.

        The first connection of a process to a cluster pays two round trips, later ones none when they name an instance and one
        otherwise. `needs_role` asks for the role in any case.
        """
        physical = self._physical[connection]
        if self.watch is None:
            return physical.host_info
        timeout = self.settings["auxiliary_query_timeout_sec"]
        cluster = self.client.local.get(self.watch.key)
        if cluster is None:
            self._discover(connection, physical, timeout)
        else:
            self.database_dialect = self.database_dialect or DIALECTS.get(cluster.dialect)
            assert self.database_dialect is not None
            if needs_role or cluster.topology.member(physical.host_info.key) is None:
                physical.role = self.driver_dialect.ask_role(connection, self.database_dialect, timeout)
                self._locate(physical, cluster)
        self._offer(connection)
        if physical.handle is not None:
            physical.handle.key = physical.host_info.key
            physical.handle.to_writer = self._leads_to_writer(physical)
            self.client.add(physical.handle)
        return physical.host_info

    def _leads_to_writer(self, physical: Physical) -> bool:
        if physical.role is not None:
            return physical.role.role is HostRole.WRITER
        cluster = self.cluster
        return cluster is not None and cluster.topology.writer == physical.host_info.key

    def _discover(self, connection: Any, physical: Physical, timeout: float) -> None:
        assert self.watch is not None
        dialect = self.database_dialect or self.driver_dialect.detect(connection, timeout)
        self.database_dialect = dialect
        answer, members = self.driver_dialect.read_topology(connection, dialect, self.template, self.watch.port, timeout)
        if not members:
            members = (TopologyHost(self.watch.host, self.watch.port, answer.id, answer.role.value),)
        elif self.template.pattern == "?" and not parse_endpoint(self.watch.host).kind.is_rds:
            logger.warning(
                "the endpoint %s says nothing of how the cluster's instances are called; set cluster_instance_host_pattern, or "
                "failover can only try the bare names %s",
                self.watch.host,
                ", ".join(member.id for member in members),
            )
        now = time.monotonic()
        physical.role = answer
        self._locate(physical, with_members(None, self.watch.key, dialect.code, members, now))

    def _locate(self, physical: Physical, cluster: ClusterState) -> None:
        """Keep the proof that a connection gave, under the name that the cluster has for its host."""
        assert self.watch is not None
        assert physical.role is not None
        answer = physical.role
        named = next((host for host in cluster.topology.hosts if answer.id and host.id == answer.id), None)
        if named is None and len(cluster.topology.hosts) == 1:
            named = cluster.topology.hosts[0]
        if named is not None and cluster.topology.member(physical.host_info.key) is None:
            physical.host_info = HostInfo(named.host, named.port, answer.role, host_id=named.id or None)
        physical.host_info = physical.host_info.with_role(answer.role)
        self.client.learn(self.watch.key, with_proof(cluster, physical.host_info.key, answer, time.monotonic()))

    def _offer(self, connection: Any) -> None:
        """Ask the monitor to watch the cluster, with the login values of this connection."""
        assert self.watch is not None
        assert self.database_dialect is not None
        local = self.client.local[self.watch.key]
        values = {**self.driver_dialect.login_values(connection), **self._monitoring_overrides()}
        template = self.template
        settings = WatchSettings(
            interval=self.settings.seconds("failure_detection_interval_ms"),
            topology_refresh=self.settings.seconds("topology_refresh_ms"),
            high_refresh=self.settings.seconds("cluster_topology_high_refresh_rate_ms"),
            instance_template=template.pattern if template.port is None else f"{template.pattern}:{template.port}",
            connect_timeout=self.settings["connect_timeout"],
        )
        seed = local.topology
        self.client.watch(self.watch, self.database_dialect.code, self.driver_dialect.code, settings, seed, Offer(values))

    def _monitoring_overrides(self) -> dict[str, Any]:
        overrides: dict[str, Any] = {}
        for prefix in ("topology-monitoring-", "monitoring-"):
            overrides.update(
                (name, value)
                for name, value in self.settings.monitoring.get(prefix, {}).items()
                if self.driver_dialect.knows_parameter(name)
            )
        return {"dbname" if name == "database" else name: value for name, value in overrides.items()}

    def get_host_role(self, connection: Any = None) -> HostRole:
        """Ask the server behind a connection for its role."""
        answer = self.ask_role(connection or self.current_connection)
        return answer.role

    def ask_role(self, connection: Any) -> RoleAnswer:
        """Ask the server behind a connection for its role, rank and name (one round trip), and keep the proof."""
        if self.database_dialect is None:
            raise UnsupportedOperationError("the database is not known yet: connect first")
        answer = self.driver_dialect.ask_role(connection, self.database_dialect, self.settings["auxiliary_query_timeout_sec"])
        physical = self.physical(connection)
        if physical is not None and self.watch is not None:
            physical.role = answer
            cluster = self.client.local.get(self.watch.key)
            if cluster is not None:
                self._locate(physical, cluster)
        return answer

    def search_directly(self) -> None:
        """Have every known host asked by sessions of this process for a moment longer."""
        if self.watch is not None:
            search(self.client, self.watch, self._open_probe)

    def _open_probe(self, host: TopologyHost) -> _Probe:
        info = HostInfo(host.host, host.port)
        self.preflight(info, PREFLIGHT_TIMEOUT)
        dialect = self.database_dialect or next(DIALECTS[view.dialect] for view in self.views if view.dialect in DIALECTS)
        address = static_address(host.host)
        connection = self.driver_dialect.connect(self.target_driver_func, info, self.parameters, self.settings, address)
        return _Probe(self.driver_dialect, connection, dialect, self.settings["auxiliary_query_timeout_sec"])

    # -- strategies ------------------------------------------------------------------------------------------------------------

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        """Whether a plugin or the built-in selection knows the strategy."""
        return self.manager.accepts_strategy(role, strategy) or strategy in STRATEGIES

    def get_host_info_by_strategy(
        self, role: HostRole, strategy: str, host_list: Sequence[HostInfo] | None = None
    ) -> HostInfo | None:
        """Return a host of the role chosen by the strategy, None when there is none. Plugins come before the built-in
        strategies."""
        chosen = self.manager.get_host_info_by_strategy(role, strategy, host_list)
        if chosen is not None:
            return chosen
        hosts = self.all_hosts if host_list is None else host_list
        prefix = strategy if strategy in ("round_robin", "weighted_random") else None
        parameter = f"{prefix}_host_weight_pairs"
        return choose(
            strategy,
            hosts,
            None if role is HostRole.UNKNOWN else role,
            random.random(),
            weights=parse_weights(parameter, self.settings[parameter]) if prefix else None,
            default_weight=self.settings[f"{prefix}_default_weight"] if prefix else 1,
            turn=next(_turns),
        )

    # -- errors ----------------------------------------------------------------------------------------------------------------

    def is_network_exception(self, error: BaseException) -> bool:
        """Whether the error means that the connection is gone."""
        return self.driver_dialect.classify(error) is ErrorKind.NETWORK

    def is_login_exception(self, error: BaseException) -> bool:
        """Whether the server refused the credentials."""
        return self.driver_dialect.classify(error) is ErrorKind.LOGIN

    def is_read_only_connection_exception(self, error: BaseException) -> bool:
        """Whether the host does not take writes."""
        return self.driver_dialect.classify(error) is ErrorKind.READ_ONLY

    # -- life ------------------------------------------------------------------------------------------------------------------

    def release_resources(self) -> None:
        """Let the plugins go and give the current connection's handle back."""
        self.manager.release_resources()
        physical = self.physical(self.current_connection)
        if physical is not None and physical.handle is not None:
            physical.handle.close()


class _Probe:
    """A session of a direct search."""

    def __init__(self, driver: DriverDialect, connection: Any, dialect: DatabaseDialect, timeout: float) -> None:
        self._driver = driver
        self._connection = connection
        self._dialect = dialect
        self._timeout = timeout

    def ask_role(self) -> RoleAnswer:
        return self._driver.ask_role(self._connection, self._dialect, self._timeout)

    def close(self) -> None:
        self._driver.close(self._connection)
