"""The state that a monitor publishes, as immutable values, and the one function that changes it.

Everything here is pure: no socket, no clock, no thread. All times are seconds of CLOCK_MONOTONIC, which every process of a machine
shares on Linux. A reader takes one reference to a `SharedState` and sees one moment.

Host health is *evidence*, not a verdict: when the host last answered, since when it has not, and how often it was asked. Every
connection judges the evidence by its own settings (`wrapper.decisions.verdict`).
"""

from __future__ import annotations

import msgspec

from ..hosts import host_key

# How a probe ended (open strings on the wire: a newer monitor may say more).
ANSWERED = "answered"  # any bytes from the server, an error message included
REFUSED = "refused"  # a reset or a refused connect: nobody listens, known at once
SILENT = "silent"  # no byte within the probe time-out
OURS = "ours"  # trouble on the monitor's own side: name resolution, descriptors, no route, loop lag

# Who says so.
FROM_MONITOR = "monitor"
FROM_DIRECT = "direct"  # a worker's own session: gives way to any newer proof


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all published values: immutable, compared by value, decodable with unknown fields."""


class TopologyHost(Value, frozen=True, omit_defaults=True):
    """One member of a cluster as the cluster's own table lists it. `role` is what the table says, not a proof. `region`: where it
    is, in a Global Database. `host` is empty for a member of which nobody knows the endpoint."""

    host: str
    port: int
    id: str = ""
    role: str = "unknown"
    weight: int = 100
    cpu: float | None = None
    lag_ms: float | None = None
    region: str = ""

    @property
    def key(self) -> str:
        """The key of this host's health."""
        return host_key(self.host, self.port)


class Topology(Value, frozen=True, omit_defaults=True):
    """Who is in a cluster, and which host has *proved* to be its writer.

    `writer` is a host key, or None while nobody has proved it or two live hosts claim it with ranks that cannot be told apart
    (`conflict` then names them). `superseded` have lost the role and not admitted it since. `term` counts accepted changes of the
    writer; `rank` is what the accepted claim was ranked by (PostgreSQL: the timeline; Aurora: the time of the master session's
    row). `read_at` and `read_from` say when and where the membership was read. `elsewhere` are members of a Global Database that
    must not be reached: they are listed and nothing more.
    """

    hosts: tuple[TopologyHost, ...] = ()
    writer: str | None = None
    term: int = 0
    rank: float = 0.0
    conflict: tuple[str, ...] = ()
    superseded: tuple[str, ...] = ()
    source: str = FROM_MONITOR
    read_at: float = 0.0
    read_from: str = ""
    elsewhere: tuple[TopologyHost, ...] = ()

    @property
    def writer_elsewhere(self) -> TopologyHost | None:
        """The writer as the cluster's table names it, when it is not to be reached."""
        return next((host for host in self.elsewhere if host.role == "writer"), None)

    def member(self, key: str) -> TopologyHost | None:
        """Return the member with this host key."""
        return next((host for host in self.hosts if host.key == key), None)


class HostHealth(Value, frozen=True, omit_defaults=True):
    """The evidence about one host, keyed by `wrapper.hosts.host_key`.

    `last_answer`: end of the last answered probe. `failing_since`: *start* of the first failed probe of the failing run, None
    when the last probe was answered. `failures` counts the probes of that run, `silent` the silent ones at its end, in a row.
    `failed_at`: end of the latest failed probe. `interval`: probe interval in force, seconds. `accepting`: the last answer was a
    session that could be asked (not "too many connections", "starting up" or a login error).

    `failed_before`: end of the latest failing run that is over.

    `role`, `rank`, `proved_at`: what a session on the host itself last said of its role, and when. `address`: last good numeric
    address. `connections`: connections of watching workers on this machine. `detail`: the last error, without secrets.
    """

    key: str
    last_answer: float | None = None
    failing_since: float | None = None
    failed_at: float | None = None
    failures: int = 0
    silent: int = 0
    kind: str = ""
    interval: float = 1.0
    accepting: bool = False
    role: str = "unknown"
    rank: float = 0.0
    proved_at: float | None = None
    address: str | None = None
    connections: int = 0
    detail: str = ""
    failed_before: float | None = None

    @property
    def is_failing(self) -> bool:
        return self.failing_since is not None


class ClusterState(Value, frozen=True, omit_defaults=True):
    """Everything known of one cluster at one moment.

    `topic` names it on the wire and is never used again by a later epoch. `watches` are the watch keys that lead to it (aliases).
    """

    topic: str
    dialect: str = ""
    watches: tuple[str, ...] = ()
    topology: Topology = Topology()
    health: dict[str, HostHealth] = {}
    clients: int = 0

    def proved(self, key: str) -> float | None:
        """When the accepted writer, or a reader, last proved its role on a session of its own; None when it has not.

        A host that claims to be the writer but was not accepted (a resumed old writer: its claim ranks lower) proves nothing.
        """
        health = self.health.get(key)
        if health is None or health.proved_at is None:
            return None
        if health.role == "writer" and self.topology.writer != key:
            return None
        return health.proved_at

    @property
    def writer_proved_at(self) -> float | None:
        """When the current writer last said so itself; None while there is none."""
        writer = self.topology.writer
        if writer is None or self.health.get(writer) is None or self.health[writer].role != "writer":
            return None
        return self.health[writer].proved_at


class SharedState(Value, frozen=True, omit_defaults=True):
    """All clusters a process follows. `epoch` is one run of a monitor (0: none yet), `seqs` the last update applied per topic.

    `confirmed` lists the topics whose state came from the current epoch; others are kept from an earlier one, *unconfirmed*, until
    they are replaced or explicitly gone.
    """

    epoch: int = 0
    clusters: dict[str, ClusterState] = {}
    seqs: dict[str, int] = {}
    confirmed: frozenset[str] = frozenset()

    def by_watch(self, watch_key: str) -> ClusterState | None:
        """Return the cluster that a watch leads to; a confirmed one first."""
        found = [cluster for cluster in self.clusters.values() if watch_key in cluster.watches]
        return max(found, key=lambda cluster: cluster.topic in self.confirmed, default=None)

    def by_host(self, key: str) -> ClusterState | None:
        """Return the cluster that a host belongs to; a confirmed one first."""
        found = [cluster for cluster in self.clusters.values() if key in cluster.health]
        return max(found, key=lambda cluster: cluster.topic in self.confirmed, default=None)


class HealthUpdate(Value, frozen=True, omit_defaults=True):
    """New evidence about one host of a cluster."""

    health: HostHealth


class TopologyUpdate(Value, frozen=True, omit_defaults=True):
    """A new topology of a cluster."""

    topology: Topology


class ClusterUpdate(Value, frozen=True, omit_defaults=True):
    """A cluster's whole state: first publication, merge of watches, change of membership or clients."""

    cluster: ClusterState


class ClusterGone(Value, frozen=True, omit_defaults=True):
    """The monitor no longer follows the cluster: explicit, never inferred from silence. `into` names the topic it merged into."""

    into: str = ""


Update = HealthUpdate | TopologyUpdate | ClusterUpdate | ClusterGone


def change(cluster: ClusterState | None, topic: str, update: Update) -> ClusterState | None:
    """Return the cluster after `update`; None when it is gone. Updates about an unknown cluster wait for its `ClusterUpdate`."""
    if isinstance(update, ClusterGone):
        return None
    if isinstance(update, ClusterUpdate):
        return update.cluster if cluster is None else inherit(update.cluster, cluster)
    if cluster is None:
        return None
    if isinstance(update, TopologyUpdate):
        return inherit(msgspec.structs.replace(cluster, topology=update.topology), cluster)
    return inherit(msgspec.structs.replace(cluster, health={**cluster.health, update.health.key: update.health}), cluster)


def inherit(cluster: ClusterState, known: ClusterState) -> ClusterState:
    """Return `cluster` with what `known`, an older state of it, says and it does not deny.

    A monitor that has just started has no proofs yet. Until it has, the last one of each host stands, under the time when it was
    made, and so does the writer: as long as it is a member, has not said otherwise, and the new monitor has neither accepted a
    writer (`term` 0 says that), nor met two, nor read of one that is out of reach. Failing runs are never inherited: nobody knows
    what happened while nobody asked. That there was one is: connections from before it are worth a look.
    """
    health = {
        key: inherited
        for key, new in cluster.health.items()
        if (old := known.health.get(key)) is not None and (inherited := _inherited(new, old)) is not new
    }
    if health:
        cluster = msgspec.structs.replace(cluster, health={**cluster.health, **health})
    topology, before = cluster.topology, known.topology
    writer = before.writer
    if (
        topology.term
        or topology.conflict
        or topology.writer_elsewhere is not None
        or writer is None
        or writer not in cluster.health
    ):
        return cluster
    if cluster.health[writer].role == "reader":
        writer = None
    topology = msgspec.structs.replace(topology, writer=writer, rank=before.rank, superseded=before.superseded)
    return msgspec.structs.replace(cluster, topology=topology)


def _inherited(new: HostHealth, old: HostHealth) -> HostHealth:
    """Return the evidence about a host with what is missing in it and was known before."""
    if new is old:
        return new
    if new.proved_at is None and old.proved_at is not None:
        new = msgspec.structs.replace(new, role=old.role, rank=old.rank, proved_at=old.proved_at)
    failed = old.failed_at or old.failed_before
    if failed is not None and not new.is_failing and (new.failed_before is None or new.failed_before < failed):
        new = msgspec.structs.replace(new, failed_before=failed)
    return new


def known_before(clusters: dict[str, ClusterState], cluster: ClusterState) -> ClusterState | None:
    """Return the state that `cluster` is the next of: under its own topic, else one that a watch led to before."""
    found = [one for one in clusters.values() if one.topic == cluster.topic or not set(one.watches).isdisjoint(cluster.watches)]
    return max(found, key=lambda one: (one.topic == cluster.topic, one.writer_proved_at or 0.0), default=None)


class Gap(Exception):
    """Updates were lost or belong to another epoch: a new snapshot is needed before more can be applied."""


def apply(state: SharedState, epoch: int, topic: str, seq: int, update: Update | None) -> SharedState:
    """Return `state` after one published message; `update` is None for a kind this version does not know (it consumes its seq).

    Raises `Gap` when the message does not follow the last one of its topic. Old messages and smaller epochs are ignored.
    """
    if epoch < state.epoch:
        return state
    last = state.seqs.get(topic, 0)
    if epoch > state.epoch or seq > last + 1:
        raise Gap(f"expected seq {last + 1} of {topic!r} in epoch {state.epoch}, got {seq} in epoch {epoch}")
    if seq <= last:
        return state
    clusters = state.clusters
    confirmed = state.confirmed
    if update is not None:
        known = known_before(clusters, update.cluster) if isinstance(update, ClusterUpdate) else clusters.get(topic)
        cluster = change(known, topic, update)
        if cluster is not None:
            clusters = {**clusters, topic: cluster}
            confirmed = confirmed | {topic}
        elif topic in clusters and isinstance(update, ClusterGone):
            clusters = {name: value for name, value in clusters.items() if name != topic}
            confirmed = confirmed - {topic}
    return SharedState(epoch=epoch, clusters=clusters, seqs={**state.seqs, topic: seq}, confirmed=confirmed)


def adopt(state: SharedState, epoch: int, clusters: tuple[ClusterState, ...], seqs: dict[str, int]) -> SharedState:
    """Return `state` after a full snapshot. Clusters that the snapshot does not hold stay, unconfirmed: a new monitor that has not
    been asked yet knows nothing, and an empty snapshot must not delete what is known. Nor must one of a monitor that has been asked
    just now, see `inherit`."""
    if epoch < state.epoch:
        return state
    snapshot = {
        cluster.topic: cluster if (known := known_before(state.clusters, cluster)) is None else inherit(cluster, known)
        for cluster in clusters
    }
    watched = {watch for cluster in clusters for watch in cluster.watches}
    kept = {
        topic: cluster
        for topic, cluster in state.clusters.items()
        if topic not in snapshot and not watched.issuperset(cluster.watches)
    }
    return SharedState(epoch=epoch, clusters={**kept, **snapshot}, seqs=dict(seqs), confirmed=frozenset(snapshot))


def missed(state: SharedState, epoch: int, seqs: dict[str, int], topics: frozenset[str]) -> bool:
    """Whether a heartbeat shows that updates of the followed `topics` were lost: without this, losing the last messages before a
    quiet spell leaves no visible gap."""
    if epoch < state.epoch:
        return False
    return epoch > state.epoch or any(seqs.get(topic, 0) > state.seqs.get(topic, 0) for topic in topics)
