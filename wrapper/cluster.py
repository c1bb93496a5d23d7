"""The cluster that a connection belongs to, as this process knows it: by the monitor, and by sessions of its own."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from wrapper.chance import chance
from wrapper.decisions.admission import Bounds, admission_delay
from wrapper.decisions.availability import BOOK
from wrapper.dialects import DIALECTS
from wrapper.dialects.base import InstanceTemplate
from wrapper.drivers.base import DriverDialect
from wrapper.errors import AwsWrapperError
from wrapper.hosts import NO_PORT, HostAvailability, HostInfo, HostRole, host_key, split_host_key
from wrapper.monitor.client import MonitorClient
from wrapper.monitor.generation import GENERATION
from wrapper.monitor.messages import Settings as WatchSettings
from wrapper.monitor.messages import Watch
from wrapper.monitor.process import current_client
from wrapper.monitor.regions import Regions, within
from wrapper.monitor.state import ClusterState, HostHealth, TopologyHost
from wrapper.resolver import static_address
from wrapper.settings import Settings
from wrapper.urls import EndpointKind, parse_endpoint

# The prefixes of parameters for the monitor's sessions, of which it has one kind; the first one wins.
_MONITORS = ("monitoring-", "topology-monitoring-")


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What there is to know at one generation of the shared state: `views` is what the monitor and this process know, one state
    each, `local` what sessions of this process learned, in all regions."""

    generation: int
    client: MonitorClient
    views: tuple[ClusterState, ...] = ()
    local: ClusterState | None = None

    @property
    def state(self) -> ClusterState | None:
        """The best knowledge: the monitor's while it lives and has heard of the hosts, or this process knows nothing."""
        views = self.views
        if len(views) == 2 and (not views[0].health or not self.client.is_live):
            return max(views, key=lambda view: view.writer_proved_at or float("-inf"))
        return views[0] if views else None


class KnownCluster:
    """What is known of the cluster that a configuration leads to, at this moment, and where that knowledge is kept. Reads memory
    only, and has no state of its own but what spares it work: connections that are made alike share one.

    `watch`: the endpoint as the user gave it, None where the parameters lead to no single TCP endpoint (Unix sockets, lists of
    hosts): then nothing is known and nothing is kept. `is_followed`: whether anybody wants to know; without plugins nobody does,
    and no monitor is involved. `watch_settings`: how the monitor is asked to watch it; `login_overrides`: what its sessions log in
    with in place of what connections do.
    """

    def __init__(self, driver_dialect: DriverDialect, parameters: Mapping[str, Any], settings: Settings, is_followed: bool) -> None:
        self._settings = settings
        self._engine = driver_dialect.engine
        self.watch: Watch | None = None
        self.default_port = 0
        endpoint = driver_dialect.endpoint(parameters)
        if endpoint is not None:
            host, self.default_port = endpoint
            cluster_id = settings["cluster_id"] if settings.is_given("cluster_id") else None
            self.watch = Watch(driver_dialect.engine, host, self.default_port, cluster_id)
        self.is_followed = is_followed and self.watch is not None
        self.endpoint_kind = parse_endpoint(self.watch.host).kind if self.watch is not None else EndpointKind.OTHER
        self.accessible_regions = self._accessible_regions()
        self.template = self._instance_template()
        self.watch_settings = self._watch_settings()
        self.login_overrides = self._login_overrides(driver_dialect)
        # The endpoint, as a host and as text.
        self.initial_host = None if self.watch is None else HostInfo(self.watch.host, self.watch.port)
        self.url = "" if self.watch is None else f"{self.watch.host}:{self.watch.port}"
        self._knowledge: Knowledge | None = None
        # The hosts by key, and the state that they were made of.
        self._hosts: tuple[ClusterState | None, Mapping[str, HostInfo]] = (None, {})

    def _watch_settings(self) -> WatchSettings:
        return WatchSettings(
            interval=self._settings.seconds("failure_detection_interval_ms"),
            topology_refresh=self._settings.seconds("topology_refresh_ms"),
            high_refresh=self._settings.seconds("cluster_topology_high_refresh_rate_ms"),
            instance_template=str(self.template),
            # To the driver, 0 means for ever; a monitor's session has to end.
            connect_timeout=min(max(self._monitor_setting("connect_timeout") or 5.0, 0.05), 86_400.0),
            accessible_regions=self.accessible_regions,
        )

    def _monitor_setting(self, name: str) -> Any:
        """The value that a parameter has for the monitor's sessions."""
        given = [self._settings.monitoring.get(prefix, {}).get(name) for prefix in _MONITORS]
        return next((value for value in given if value is not None), self._settings[name])

    def _login_overrides(self, driver_dialect: DriverDialect) -> dict[str, Any]:
        overrides: dict[str, Any] = {}
        for prefix in reversed(_MONITORS):
            given = self._settings.monitoring.get(prefix, {})
            overrides.update((name, value) for name, value in given.items() if driver_dialect.knows_parameter(name))
        return {driver_dialect.database_keyword if name == "database" else name: value for name, value in overrides.items()}

    def _accessible_regions(self) -> Regions:
        regions: Regions = self._settings["gdb_accessible_regions"]
        own = parse_endpoint(self.watch.host).region if self.watch is not None else None
        if regions and own is not None and own not in regions:
            raise AwsWrapperError(f"gdb_accessible_regions={','.join(regions)!r} leaves out {own}, where the endpoint itself is")
        return regions

    def _instance_template(self) -> InstanceTemplate:
        regional = self._settings["global_cluster_instance_host_patterns"]
        if regional:
            return InstanceTemplate.parse(",".join(regional))
        given = self._settings["cluster_instance_host_pattern"]
        if given is not None:
            return InstanceTemplate.parse(given)
        implied = parse_endpoint(self.watch.host).template if self.watch is not None else None
        return InstanceTemplate() if implied is None else InstanceTemplate(implied)

    @property
    def client(self) -> MonitorClient:
        """This process's client of the shared monitor."""
        return self.now().client

    def now(self) -> Knowledge:
        """Return what there is to know. Looks again only if there may be anything new: a connect asks many times over, mostly
        without any news since the last one. A forked child finds another generation too."""
        knowledge = self._knowledge
        if knowledge is None or knowledge.generation != GENERATION[0]:
            knowledge = self._knowledge = self._look()
        return knowledge

    def _look(self) -> Knowledge:
        client = current_client(self._settings["monitor_mode"])
        # Read before what it stands for, so that what is remembered is never older than it says.
        generation = GENERATION[0]
        if self.watch is None or not self.is_followed:
            return Knowledge(generation, client)
        views = tuple(within(view, self.accessible_regions) for view in client.views(self.watch))
        return Knowledge(generation, client, views, client.own_view(self.watch))

    @property
    def views(self) -> tuple[ClusterState, ...]:
        """What the monitor and this process know, one state each."""
        return self.now().views

    @property
    def state(self) -> ClusterState | None:
        """The best knowledge of it, see `Knowledge.state`."""
        return self.now().state

    @property
    def local(self) -> ClusterState | None:
        """What sessions of this process learned, in all regions."""
        return self.now().local

    def learn(self, state: ClusterState) -> None:
        """Keep what a session of this process found out."""
        assert self.watch is not None
        self.client.learn(self.watch.key, state)

    def evidence(self, key: str) -> HostHealth | None:
        """The evidence about a host."""
        state = self.now().state
        return None if state is None else state.health.get(key)

    def address(self, host: HostInfo) -> str | None:
        """The numeric address of a host as the hosts file or the monitor knows it."""
        static = static_address(host.host)
        if static is not None:
            return static
        evidence = self.evidence(self.key(host))
        return None if evidence is None else evidence.address

    def key(self, host: HostInfo) -> str:
        """The key of a host's health; the cluster's own port where the host names none."""
        return host_key(host.host, self.default_port if host.port == NO_PORT else host.port)

    @property
    def has_marks(self) -> bool:
        """Whether any host is marked, which is seldom."""
        return bool(BOOK.marks)

    def mark(self, aliases: Iterable[str], found: HostAvailability) -> None:
        """Note for the whole process whether the hosts with these `host:port` texts are worth connecting to."""
        for alias in aliases:
            host, _, port = alias.rpartition(":")
            BOOK.mark(host_key(host, int(port)) if host else host_key(alias, self.default_port), found, time.monotonic())

    def _availability(self, health: HostHealth | None, key: str) -> HostAvailability:
        # A host that does not answer is not worth a new connection; whether existing ones are given up is another question.
        if health is not None and health.is_failing:
            return HostAvailability.UNAVAILABLE
        if not BOOK.marks:
            return HostAvailability.AVAILABLE  # no host is marked, as nearly always
        return BOOK.get(
            key,
            self._settings["default_host_availability_strategy"],
            self._settings["host_availability_strategy_max_retries"],
            self._settings.seconds("host_availability_strategy_initial_backoff_time"),
            time.monotonic(),
            None if health is None else health.last_answer,
        )

    # -- hosts -----------------------------------------------------------------------------------------------------------------

    @property
    def hosts(self) -> tuple[HostInfo, ...]:
        """Every member, the writer as it proved itself; empty while nothing is known."""
        state = self.now().state
        return () if state is None else tuple(self.hosts_by_key(state).values())

    def hosts_by_key(self, state: ClusterState) -> Mapping[str, HostInfo]:
        """Return every member as a state knows it."""
        # Marks fade with time; without any, the same state means the same hosts.
        made_of, hosts = self._hosts
        is_marked = bool(BOOK.marks)
        if made_of is not state or is_marked:
            hosts = {member.key: self.host_info(state, member) for member in state.topology.hosts}
            # Another thread may mark a host, or take a mark back, meanwhile.
            self._hosts = (None if is_marked or BOOK.marks else state, hosts)
        return hosts

    def host_by_key(self, key: str) -> HostInfo:
        """Return the host with this key, as well as it is known."""
        for view in self.views:
            member = view.topology.member(key)
            if member is not None:
                return self.host_info(view, member)
        return HostInfo(*split_host_key(key), role=HostRole.UNKNOWN)

    def host_at(self, state: ClusterState, address: str, port: int) -> HostInfo | None:
        """Return the member that has a numeric address; None when that is nobody or more than one."""
        found = [
            member
            for member in state.topology.hosts
            if member.port == port and address == (_address_of(state, member) or static_address(member.host))
        ]
        return self.host_info(state, found[0]) if len(found) == 1 else None

    def elsewhere(self, address: str, port: int) -> ClusterState | None:
        """Return what is known, by whatever endpoint, of the cluster that has a member at a numeric address; None for nothing, or
        where two clusters do."""
        client = self.client
        states = [*client.state.clusters.values(), *client.local.values()]
        found = [state for state in states if DIALECTS[state.dialect].engine == self._engine and self.host_at(state, address, port)]
        same = all(set(state.health) & set(found[0].health) for state in found)
        return found[0] if found and same else None

    def host_info(self, state: ClusterState, member: TopologyHost) -> HostInfo:
        """Return a member as a state knows it."""
        health = state.health.get(member.key)
        role = HostRole.parse(health.role if health is not None and health.proved_at is not None else member.role)
        if state.topology.writer is not None:
            role = HostRole.WRITER if member.key == state.topology.writer else HostRole.READER
        availability = self._availability(health, member.key)
        return HostInfo(
            member.host,
            member.port,
            role,
            availability,
            weight=member.weight,
            host_id=member.id or None,
            cpu=member.cpu,
            lag_ms=member.lag_ms,
        )

    def counted(self, hosts: Iterable[HostInfo]) -> list[HostInfo]:
        """Return the hosts with the number of this machine's connections to each. Of other processes the monitor knows, a moment
        late; of our own we know ourselves."""
        state, own, reported = self.state, self.client.connections(), self.client.reported
        known = {} if state is None else state.health

        def count(key: str) -> int:
            published = known[key].connections if key in known else 0
            return max(0, published - reported.get(key, 0)) + own.get(key, 0)

        return [replace(host, connections=count(self.key(host))) for host in hosts]

    # -- many connections at once ----------------------------------------------------------------------------------------------

    def connections_to(self, key: str) -> int:
        """How many connections of this machine lead to a host, as far as it is known."""
        published = max((view.health[key].connections for view in self.views if key in view.health), default=0)
        return max(published, self.client.connections().get(key, 0))

    def admission_delay(self, lost: str, expected: int, now: float) -> float:
        """Seconds by which to put off a connect that replaces one to the host `lost`, from which `expected` connections move."""
        bounds = Bounds(
            self._settings["failover_reconnect_burst"],
            self._settings["failover_reconnect_rate"],
            self._settings.seconds("failover_reconnect_longest_wait_ms"),
        )
        return admission_delay(expected, chance.random(), bounds, self.client.moving_since(lost, now))


def _address_of(state: ClusterState, member: TopologyHost) -> str | None:
    health = state.health.get(member.key)
    return None if health is None else health.address
