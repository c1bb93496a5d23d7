"""One watched cluster: its actors, its view, and what of it has been published. The rules are in `topology` and `evidence`; this
is their shell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic, time

from msgspec.structs import replace

from monitor_service import topology
from monitor_service.actors.host_health import HostHealthActor
from monitor_service.actors.topology import TopologyActor
from monitor_service.context import Context
from monitor_service.evidence import Probe, is_due, is_own_trouble, judge
from monitor_service.logins import Logins
from monitor_service.registry import Identity, effective
from wrapper.dialects import DatabaseDialect
from wrapper.monitor.messages import Settings, WatchRequest
from wrapper.monitor.regions import split
from wrapper.monitor.state import (
    OURS,
    SILENT,
    ClusterState,
    ClusterUpdate,
    HealthUpdate,
    HostHealth,
    Topology,
    TopologyHost,
    TopologyUpdate,
)

# Seconds. Changes that nobody waits for (aliases, clients, settings) are taken and published together.
COALESCE = 0.05
# Seconds between probes of a cluster that is only kept warm.
WARM_INTERVAL = 1.0


class Cluster:
    """A cluster that is being watched for one owner. `on_members` is called when hosts joined or left."""

    def __init__(
        self,
        context: Context,
        owner: str,
        topic: str,
        dialect: DatabaseDialect,
        request: WatchRequest,
        on_members: Callable[[Cluster], None],
    ) -> None:
        self.services = context
        self.owner = owner
        self.topic = topic
        self.dialect = dialect
        self.logins = Logins(topic, context)
        self.settings: Settings = request.settings
        self.watches: frozenset[str] = frozenset()
        self.started = monotonic()
        self.deserted_at: float | None = None
        self._stopped = False
        self.host_actors: dict[str, HostHealthActor] = {}
        self.topology_actor = TopologyActor(self) if dialect.is_topology_aware else None
        hosts = request.seed.hosts or (TopologyHost(request.watch.host, request.watch.port),)
        self.view = topology.start(request.seed, hosts, dialect.is_topology_aware, monotonic())
        self._on_members = on_members
        self._published: dict[str, HostHealth] = {}
        self._published_topology = Topology()
        self._published_at = 0.0
        self._clients = 0
        self._connections: dict[str, int] = {}
        self._flush: asyncio.TimerHandle | None = None
        self._refresh: asyncio.TimerHandle | None = None
        self._blames_itself = False
        self._is_mute = False
        # Silent hosts by key, also those whose silence was put down to ourselves and never published.
        self._silent: dict[str, HostHealth] = {}

    # -- life ------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Publish what the seed says and begin to watch."""
        self.refresh_interest()
        self._publish_all()
        self._fit_actors()
        if self.topology_actor is not None:
            self.services.supervisor.start(self.topology_actor)

    def stop(self) -> None:
        """Stop watching. Nothing is published any more: what is still on its way from a server is ignored."""
        self._stopped = True
        for timer in (self._flush, self._refresh):
            if timer is not None:
                timer.cancel()
        for actor in self.host_actors.values():
            self.services.supervisor.stop(actor.name)
        self.host_actors.clear()
        if self.topology_actor is not None:
            self.services.supervisor.stop(self.topology_actor.name)

    def identity(self) -> Identity:
        return Identity(self.topic, self.owner, self.dialect.code, frozenset(self.view.health), self.watches)

    def refresh_interest(self) -> None:
        """Take over what live leases want: settings, login values, aliases, counts."""
        if self._refresh is not None:
            self._refresh.cancel()
            self._refresh = None
        registry = self.services.registry
        requests = registry.requests(self.topic)
        settings = effective(request.settings for request in requests)
        if settings is None:
            self.deserted_at = self.deserted_at or monotonic()
            settings = replace(self.settings, interval=max(self.settings.interval, WARM_INTERVAL))
        else:
            self.deserted_at = None
        has_news = self.logins.replace(registry.offers(self.topic))
        self.watches |= {request.watch.key for request in requests}
        self._clients = len(registry.leases_of(self.topic))
        has_news = has_news or settings.interval < self.settings.interval
        if settings.accessible_regions != self.settings.accessible_regions and self.topology_actor is not None:
            self.topology_actor.poke()
        self.settings = settings
        if has_news:
            self.poke()
        self.publish_soon()

    def absorb(self, other: Cluster) -> None:
        """Take over the aliases of a cluster that proved to be this one."""
        self.watches |= other.watches
        self.refresh_interest()

    # -- what actors ask -------------------------------------------------------------------------------------------------------

    def outage(self) -> float | None:
        """Seconds since the search for the writer began, None when calm."""
        return self.view.outage(monotonic())

    def instance_id(self, key: str) -> str:
        """The name the cluster's table gives to a host, empty when it gives none."""
        return next((host.id for host in self.view.hosts if host.key == key), "")

    def failing_for(self, key: str) -> float:
        """Seconds since the host's failing run began, 0 when it answers."""
        health = self.view.health.get(key)
        return 0.0 if health is None or health.failing_since is None else monotonic() - health.failing_since

    def membership_source(self) -> TopologyHost | None:
        """Where to read the membership: the writer, or who was it last, when it answers; else a host that answers and claims
        nothing unproved."""
        writer = self.view.writer.writer or self.view.writer.holder
        answering = [
            host
            for host in self.view.hosts
            if (health := self.view.health[host.key]).accepting
            and not health.is_failing
            and (health.role != topology.WRITER or host.key == writer)
        ]
        return min(answering, key=lambda host: (host.key != writer, host.key), default=None)

    def latest(self) -> list[HostHealth]:
        """The evidence about every host, before any of it was put down to ourselves."""
        return [self._silent.get(key, health) for key, health in self.view.health.items()]

    # -- what actors tell ------------------------------------------------------------------------------------------------------

    def on_probe(self, key: str, probe: Probe) -> None:
        """Take the end of a probe in, and publish what follows from it in the same step."""
        self.services.settle()
        before = self.view.health.get(key)
        if before is None or self._stopped:
            return  # left while it was being asked
        health = judge(before, probe, self.settings.interval)
        if probe.kind == SILENT:
            if self._is_own_trouble(health):
                return
        elif probe.kind != OURS:
            self._silent.pop(key, None)
        known_session = before.accepting
        actor = self.host_actors.get(key)
        hinted_at = actor.hinted_at if actor is not None else None
        # Before anything is made of it: all workers wait for this, and nobody for the rest.
        if is_due(self._published.get(key), health, hinted_at=hinted_at, searching=self.view.searching_since is not None):
            self._publish_health(health)
        self._step(*topology.on_probe(self.view, health, monotonic(), time()))
        if not known_session and health.accepting and self.topology_actor is not None and not self.topology_actor.has_session:
            self.topology_actor.poke()

    def on_table(self, hosts: tuple[TopologyHost, ...], read_from: str) -> None:
        """Take the membership in."""
        if self._stopped:
            return
        known = set(self.view.health)
        near, elsewhere = split(hosts, self.settings.accessible_regions)
        self._step(*topology.on_table(self.view, near, read_from, monotonic(), elsewhere))
        if set(self.view.health) != known:
            self._fit_actors()
            self._publish_all()
            self._on_members(self)
        elif monotonic() - self._published_at >= self.settings.topology_refresh:
            self._publish_topology()  # load and lag figures

    def on_report(self, host: str, error: str, at: float) -> None:
        """Take a worker's hint in: every host is asked at once."""
        key = next((one.key for one in self.view.hosts if host in (one.key, one.host)), host)
        now = monotonic()
        self._step(*topology.on_report(self.view, key, error, at, now))
        self.poke(hinted_at=at)

    def on_pause(self) -> None:
        """Void what was measured across a pause of our own; whoever calls this asks again."""
        self.view = topology.on_pause(self.view, monotonic())
        self._silent.clear()
        self._publish_all()

    def note(self, subject: str, event: str, evidence: str) -> None:
        self.services.publisher.journal(subject, event, evidence, self.topic)

    # -- publishing ------------------------------------------------------------------------------------------------------------

    def state(self) -> ClusterState:
        """The whole state at this moment."""
        health = {
            key: replace(one, interval=self.settings.interval, connections=self._connections.get(key, 0))
            for key, one in self.view.health.items()
        }
        return ClusterState(
            topic=self.topic,
            dialect=self.dialect.code,
            watches=tuple(sorted(self.watches)),
            topology=self.view.topology,
            health=health,
            clients=self._clients,
        )

    def publish_soon(self) -> None:
        """Publish the whole state with the next batch of changes that nobody waits for."""
        if self._flush is None and self._published:
            self._flush = asyncio.get_running_loop().call_later(COALESCE, self._publish_all)

    def refresh_soon(self) -> None:
        """Take over what live leases want with the next batch: a thousand workers may come at once."""
        if self._refresh is None:
            self._refresh = asyncio.get_running_loop().call_later(COALESCE, self.refresh_interest)

    def refresh_counts(self) -> None:
        """Publish the numbers of connections when they have changed."""
        connections = self.services.registry.connections(self.topic)
        if connections != self._connections:
            self._connections = connections
            self.publish_soon()

    def poke(self, hinted_at: float | None = None) -> None:
        """Ask every host at once."""
        for actor in self.host_actors.values():
            actor.poke(hinted_at)

    def _step(self, view: topology.View, notes: list[topology.Note]) -> None:
        search_began = view.searching_since is not None and self.view.searching_since is None
        writer_moved = view.writer.term != self.view.writer.term
        self.view = view
        if _essence(view.topology) != _essence(self._published_topology):
            self._publish_topology()
        for note in notes:
            self.note(note.subject, note.event, note.evidence)
        if search_began:
            self.logins.forgive()
            self.poke()
        if (search_began or writer_moved) and self.topology_actor is not None:
            # The table is from before, and so may be the host that it is read from.
            self.topology_actor.poke()

    def _publish_health(self, health: HostHealth) -> None:
        self._published[health.key] = health
        counted = replace(health, connections=self._connections.get(health.key, 0))
        self.services.publisher.publish(self.topic, HealthUpdate(counted))

    def _publish_topology(self) -> None:
        self._published_topology = self.view.topology
        self._published_at = monotonic()
        self.services.publisher.publish(self.topic, TopologyUpdate(self.view.topology))

    def _publish_all(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._published = dict(self.view.health)
        self._published_topology = self.view.topology
        self._published_at = monotonic()
        self.services.publisher.publish(self.topic, ClusterUpdate(self.state()))

    def _fit_actors(self) -> None:
        """One actor per member."""
        for key in set(self.host_actors) - set(self.view.health):
            self._silent.pop(key, None)
            self.services.supervisor.stop(self.host_actors.pop(key).name)
        for host in self.view.hosts:
            if host.key not in self.host_actors:
                actor = self.host_actors[host.key] = HostHealthActor(self, host)
                self.services.supervisor.start(actor)

    def _is_own_trouble(self, health: HostHealth) -> bool:
        self._silent[health.key] = health
        # One user's silent hosts are no witness against another's.
        others = [
            one
            for one in self.services.clusters.values()
            if one is not self and one.owner == self.owner and one.deserted_at is None
        ]
        is_mute = len(self._silent) == len(self.view.health)
        if is_mute and not self._is_mute:
            # Is it us? The others know before this cluster's hosts have been silent often enough.
            for cluster in others:
                cluster.poke()
        self._is_mute = is_mute
        blames_itself = is_own_trouble([one.latest() for one in (self, *others)])
        if blames_itself and not self._blames_itself:
            self.note(health.key, "OWN TROUBLE", "every host of every cluster fell silent together: not counted against them")
        self._blames_itself = blames_itself
        return blames_itself


def _essence(value: Topology) -> Topology:
    """What of a topology is worth a message: not the passing of time, nor load figures."""
    hosts, elsewhere = (tuple(replace(host, cpu=None, lag_ms=None) for host in hosts) for hosts in (value.hosts, value.elsewhere))
    return replace(value, hosts=hosts, elsewhere=elsewhere, rank=0.0, read_at=0.0, read_from="")
