"""Finding out where a connection leads, and making its cluster known to this process and to the monitor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from wrapper.cluster import KnownCluster
from wrapper.dialects import DIALECTS, DatabaseDialect, RoleAnswer, settled
from wrapper.drivers.base import DriverDialect
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.hosts import HostInfo, HostRole
from wrapper.monitor.client import MonitorClient
from wrapper.monitor.direct import Refusal, search, with_members, with_proof
from wrapper.monitor.messages import Offer
from wrapper.monitor.regions import split, within
from wrapper.monitor.state import FROM_DIRECT, ClusterState, TopologyHost
from wrapper.physical import PREFLIGHT_TIMEOUT, Physical, PhysicalConnections
from wrapper.settings import Settings

logger = logging.getLogger(__name__)


class Discovery:
    """Identifies the connections of one wrapper connection. `database_dialect`: the flavour of the database, once it is known."""

    def __init__(
        self, driver_dialect: DriverDialect, settings: Settings, cluster: KnownCluster, connections: PhysicalConnections
    ) -> None:
        self._driver = driver_dialect
        self._settings = settings
        self._cluster = cluster
        self._connections = connections
        self._timeout: float = settings["auxiliary_query_timeout_sec"]
        self.database_dialect = self._forced_dialect(settings["wrapper_dialect"])

    def _forced_dialect(self, code: str | None) -> DatabaseDialect | None:
        if code is None:
            return None
        dialect = DIALECTS.get(code)
        if dialect is None or dialect.engine != self._driver.engine:
            allowed = sorted(code for code, dialect in DIALECTS.items() if dialect.engine == self._driver.engine)
            raise AwsWrapperError(f"wrapper_dialect={code!r} is not valid: expected one of {', '.join(allowed)}")
        return dialect

    @property
    def dialect(self) -> DatabaseDialect:
        """The flavour of the database. Raises `UnsupportedOperationError` before the first connect."""
        if self.database_dialect is None:
            raise UnsupportedOperationError("the database is not known yet: connect first")
        return self.database_dialect

    # -- connections -----------------------------------------------------------------------------------------------------------

    def introduce(self, connection: Any, *, needs_role: bool) -> HostInfo:
        """Find out which host a freshly opened connection leads to, and have it watched.

        The first connection of a process to a cluster pays two round trips, and one more to an Aurora that may be a Global
        Database. Later ones pay none where host and role can be told from what is known, the address and what the server reports of
        its own accord; else one. `needs_role`: the role must be the server's own word.
        """
        physical = self._connections.get(connection)
        assert physical is not None
        if not self._cluster.is_followed or (physical.is_introduced and not needs_role):
            return physical.host_info
        knowledge = self._cluster.now()
        local, state = knowledge.local, knowledge.state
        if local is None or state is None:
            local = state = self._adopt(connection, physical)
        if local is None or state is None:
            local = self._discover(connection, physical)
        else:
            self.database_dialect = self.database_dialect or DIALECTS[local.dialect]
            if not self._recognise(connection, physical, state, needs_role):
                local = self._prove(physical, local, self._driver.ask_role(connection, self.dialect, self._timeout))
        self._offer(connection, physical, knowledge.client, local)
        if physical.handle is not None:
            physical.handle.key = physical.host_info.key
            physical.handle.to_writer = _leads_to_writer(physical, state)
            knowledge.client.add(physical.handle)
        physical.is_introduced = True
        return physical.host_info

    def _recognise(self, connection: Any, physical: Physical, state: ClusterState, needs_role: bool) -> bool:
        """Tell the host without asking it; return whether that was possible. It is not where the role contradicts what is known."""
        host = physical.host_info
        reported = self._driver.reported_role(connection)
        known = self._cluster.hosts_by_key(state).get(host.key)
        if known is None:
            # A cluster endpoint or an alias: the address may say which member it led to. The role must fit, because names move.
            address = self._driver.peer_address(connection)
            known = None if address is None else self._cluster.host_at(state, address, host.port)
        elif reported is None and not needs_role and known.role is not HostRole.UNKNOWN:
            reported = known.role
        if known is None or known.role is not reported:
            return False
        physical.host_info = known
        return True

    def _adopt(self, connection: Any, physical: Physical) -> ClusterState | None:
        """Return the cluster when it is known by another endpoint of it, and one of its members has the very address that this
        connection leads to; it is then known by this endpoint too."""
        watch = self._cluster.watch
        assert watch is not None
        address = self._driver.peer_address(connection) if watch.cluster_id is None else None
        known = None if address is None else self._cluster.elsewhere(address, physical.host_info.port)
        if known is None:
            return None
        topology = replace(known.topology, source=FROM_DIRECT)
        adopted = replace(known, topic="direct", watches=(watch.key,), topology=topology)
        self._cluster.learn(adopted)
        return adopted

    def _discover(self, connection: Any, physical: Physical) -> ClusterState:
        watch = self._cluster.watch
        assert watch is not None
        given = self.database_dialect
        dialect = given or self._driver.detect(connection, self._timeout)
        answer, members = self._driver.read_topology(connection, dialect, self._cluster.template, watch.port, self._timeout)
        dialect = self.database_dialect = given or settled(dialect, bool(members))
        members, elsewhere = split(members, self._cluster.accessible_regions)
        if not members and not elsewhere:
            members = (TopologyHost(watch.host, watch.port, answer.id, answer.role.value),)
        elif unnamed := sorted({member.region for member in elsewhere if not member.host}):
            logger.warning(
                "nothing says how the instances in %s are called: they are left alone; set global_cluster_instance_host_patterns",
                ", ".join(unnamed),
            )
        elif any(member.host == member.id for member in members) and not self._cluster.endpoint_kind.is_rds:
            logger.warning(
                "the endpoint %s says nothing of how the cluster's instances are called; set cluster_instance_host_pattern, or "
                "failover can only try the bare names %s",
                watch.host,
                ", ".join(member.id for member in members),
            )
        logger.debug("%s leads to a %s database: %s", watch.host, dialect.code, ", ".join(member.key for member in members))
        return self._prove(physical, with_members(None, watch.key, dialect.code, members, time.monotonic(), elsewhere), answer)

    def _prove(self, physical: Physical, cluster: ClusterState, answer: RoleAnswer) -> ClusterState:
        """Keep what a host said of itself, under the name that the cluster has for it; return what is known with it."""
        physical.role = answer
        if any(answer.id and host.id == answer.id for host in cluster.topology.elsewhere):
            # The endpoint's name led to a region that is not ours to reach: nobody is to follow.
            physical.host_info = physical.host_info.with_role(answer.role)
            self._cluster.learn(cluster)
            return cluster
        named = next((host for host in cluster.topology.hosts if answer.id and host.id == answer.id), None)
        if named is None and len(cluster.topology.hosts) == 1:
            named = cluster.topology.hosts[0]
        member = cluster.topology.member(physical.host_info.key) or named
        if member is not None:
            physical.host_info = HostInfo(member.host, member.port, weight=member.weight, host_id=member.id or None)
        physical.host_info = physical.host_info.with_role(answer.role)
        proved = with_proof(cluster, physical.host_info.key, answer, time.monotonic())
        self._cluster.learn(proved)
        return proved

    def _offer(self, connection: Any, physical: Physical, client: MonitorClient, local: ClusterState) -> None:
        """Ask the monitor to watch the cluster, with the login values of this connection."""
        cluster = self._cluster
        assert cluster.watch is not None
        overrides = cluster.login_overrides

        def offer() -> Offer:
            # A pooled connection may have been opened with an older one.
            password = {name: value for name, value in physical.arguments.items() if name == "password"}
            return Offer({**self._driver.login_values(connection), **password, **overrides})

        client.watch(
            cluster.watch,
            self.dialect.code,
            self._driver.code,
            cluster.watch_settings,
            (within(local, cluster.accessible_regions) if cluster.accessible_regions else local).topology,
            (physical.arguments, overrides),
            offer,
        )

    # -- asking ----------------------------------------------------------------------------------------------------------------

    def ask_role(self, connection: Any) -> RoleAnswer:
        """Ask the server behind a connection for its role, rank and name (one round trip), and keep the proof."""
        answer = self._driver.ask_role(connection, self.dialect, self._timeout)
        physical = self._connections.get(connection)
        local = self._cluster.local
        if physical is not None and local is not None:
            self._prove(physical, local, answer)
        return answer

    def read_members(self, connection: Any) -> tuple[HostInfo, ...]:
        """Read the cluster's members on a connection (one round trip), and keep them; the known ones where there is no table."""
        watch, local = self._cluster.watch, self._cluster.local
        if watch is None or local is None:
            return self._cluster.hosts
        answer, members = self._driver.read_topology(connection, self.dialect, self._cluster.template, watch.port, self._timeout)
        members, elsewhere = split(members, self._cluster.accessible_regions)
        if members:
            local = with_members(local, watch.key, self.dialect.code, members, time.monotonic(), elsewhere)
        physical = self._connections.get(connection)
        if physical is not None:
            self._prove(physical, local, answer)
        else:
            self._cluster.learn(local)
        return self._cluster.hosts

    def search(self, open_connection: Callable[[HostInfo], Any]) -> Refusal | None:
        """Have every known host asked by sessions of this process for a moment longer. Returns the login error while no host lets
        them in."""
        if self._cluster.watch is None:
            return None

        def open_probe(host: TopologyHost) -> _Probe:
            info = HostInfo(host.host, host.port)
            self._connections.preflight(info, PREFLIGHT_TIMEOUT)
            dialect = self.database_dialect or next(DIALECTS[view.dialect] for view in self._cluster.views)
            return _Probe(self._driver, open_connection(info), dialect, self._timeout)

        def is_refusal(error: Exception) -> bool:
            return self._driver.classify(error) is ErrorKind.LOGIN

        return search(self._cluster.client, self._cluster.watch, self._cluster.views, open_probe, is_refusal)


def _leads_to_writer(physical: Physical, state: ClusterState | None) -> bool:
    if physical.role is not None:
        return physical.role.role is HostRole.WRITER
    return state is not None and state.topology.writer == physical.host_info.key


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
