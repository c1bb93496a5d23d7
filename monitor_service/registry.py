"""Who watches what: leases, the watches they hold, and what follows from them. No I/O and no clock: times are arguments.

An *owner* is the principal (`monitor_service.gate`) that a request came from. What belongs to one owner is neither found nor
changed by another one's requests, whatever they claim.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from monitor_service.options import Limits
from wrapper.monitor.messages import Client, Offer, Settings, WatchRequest
from wrapper.monitor.regions import either

# Seconds; what a request may ask for. The lower bound keeps one client from turning probes into load.
SHORTEST_INTERVAL = 0.02
LONGEST = 86_400.0


Holder = tuple[str, Client]  # an owner's client


@dataclass(slots=True)
class Interest:
    """One watch of one client: the request that made it and the topic of the cluster it leads to. `order`: larger is newer."""

    request: WatchRequest
    topic: str
    order: int


@dataclass(slots=True)
class Lease:
    """A client's right to be served until `expires`. `route`: how the control socket reaches it."""

    owner: str
    client: Client
    route: bytes
    expires: float
    interests: dict[str, Interest] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)


def complaint(request: WatchRequest) -> str | None:
    """Return what is wrong with a watch request, naming the field and what is allowed; None when it can be served."""
    settings = request.settings
    for name, shortest in (
        ("interval", SHORTEST_INTERVAL),
        ("topology_refresh", SHORTEST_INTERVAL),
        ("high_refresh", 0.01),
        ("connect_timeout", 0.05),
    ):
        value = getattr(settings, name)
        if not shortest <= value <= LONGEST:
            return f"settings.{name}={value!r} seconds is not between {shortest:g} and {LONGEST:g}"
    hosts = [(host.host, host.port) for host in request.seed.hosts] or [(request.watch.host, request.watch.port)]
    for host, port in hosts:
        if not host or len(host) > 255 or not host.isprintable() or not 0 < port < 65536:
            return f"host {host!r}, port {port} is not an endpoint: give a host name and a port between 1 and 65535"
    return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A limit that a request went over: its name in the counters, and the sentence for whoever asked."""

    limit: str
    reason: str


class Registry:
    """All live leases."""

    def __init__(self, lease_seconds: float, limits: Limits) -> None:
        self.lease_seconds = lease_seconds
        self.leases: dict[Holder, Lease] = {}
        # By topic, and there by whose it is and its watch: every cluster asks for its own all the time.
        self._interests: defaultdict[str, dict[tuple[Holder, str], Interest]] = defaultdict(dict)
        self._limits = limits
        self._order = 0

    def lease(self, owner: str, client: Client) -> Lease | None:
        """Return the lease of an owner's client."""
        return self.leases.get((owner, client))

    def refusal(self, owner: str, request: WatchRequest) -> Refusal | None:
        """Return the limit that serving the request would exceed."""
        lease = self.lease(owner, request.client)
        hosts = len(request.seed.hosts)
        if hosts > self._limits.hosts:
            return Refusal("hosts", f"a watch of {hosts} hosts: {self._limits.hosts} are allowed (--max-hosts)")
        if lease is None and len(self.leases) >= self._limits.clients:
            return Refusal("clients", f"too many clients: {self._limits.clients} are allowed (--max-clients, ulimit -n)")
        if lease is not None and request.watch.key not in lease.interests and len(lease.interests) >= self._limits.watches:
            return Refusal("watches", f"too many watches: {self._limits.watches} per client are allowed (--max-watches)")
        return None

    def watch(self, owner: str, request: WatchRequest, topic: str, route: bytes, now: float) -> None:
        """Register or replace a client's watch, and renew its lease."""
        holder = (owner, request.client)
        lease = self.leases.get(holder)
        if lease is None:
            lease = self.leases[holder] = Lease(owner, request.client, route, now + self.lease_seconds)
        self._order += 1
        lease.route = route
        lease.expires = now + self.lease_seconds
        key = request.watch.key
        before = lease.interests.get(key)
        if before is not None:
            self._forget(holder, key, before.topic)
        lease.interests[key] = self._interests[topic][holder, key] = Interest(request, topic, self._order)

    def renew(self, owner: str, client: Client, connections: dict[str, int], route: bytes, now: float) -> bool:
        """Keep a lease; False when there is none."""
        lease = self.lease(owner, client)
        if lease is None:
            return False
        lease.route = route
        lease.expires = now + self.lease_seconds
        lease.connections = connections
        return True

    def release(self, owner: str, client: Client) -> Lease | None:
        """Give a lease up."""
        holder = (owner, client)
        lease = self.leases.pop(holder, None)
        if lease is not None:
            for key, interest in lease.interests.items():
                self._forget(holder, key, interest.topic)
        return lease

    def _forget(self, holder: Holder, key: str, topic: str) -> None:
        interests = self._interests[topic]
        del interests[holder, key]
        if not interests:
            del self._interests[topic]

    def lapse(self, now: float) -> list[Lease]:
        """Remove and return the leases that have lapsed."""
        lapsed = [lease for lease in self.leases.values() if lease.expires <= now]
        for lease in lapsed:
            self.release(lease.owner, lease.client)
        return lapsed

    def extend(self, seconds: float) -> None:
        """Lengthen all leases by a pause of our own, during which no renewal could be heard."""
        for lease in self.leases.values():
            lease.expires += seconds

    def move(self, topic: str, into: str) -> None:
        """Lead all watches of one cluster to another."""
        moved = self._interests.pop(topic, {})
        for interest in moved.values():
            interest.topic = into
        self._interests[into].update(moved)

    def leases_of(self, topic: str) -> list[Lease]:
        """Return the leases with a watch that leads to the cluster."""
        holders = dict.fromkeys(holder for holder, _ in self._interests.get(topic, ()))
        return [self.leases[holder] for holder in holders]

    def requests(self, topic: str) -> list[WatchRequest]:
        """Return the live watch requests of a cluster, newest first."""
        found = sorted(self._interests.get(topic, {}).values(), key=lambda interest: interest.order, reverse=True)
        return [interest.request for interest in found]

    def offers(self, topic: str) -> list[Offer]:
        """Return the login values of live clients for a cluster, newest first."""
        return [request.offer for request in self.requests(topic) if request.offer is not None]

    def connections(self, topic: str) -> dict[str, int]:
        """Return the number of open connections of live clients per host key."""
        total: dict[str, int] = {}
        for lease in self.leases_of(topic):
            for key, count in lease.connections.items():
                total[key] = total.get(key, 0) + count
        return total


def effective(settings: Iterable[Settings]) -> Settings | None:
    """Return the settings in force for a cluster: the tightest of all live watches; None without any. The template that says
    something wins over the one that says nothing."""
    found = list(settings)
    if not found:
        return None
    templates = [one.instance_template for one in found if one.instance_template != "?"]
    return Settings(
        interval=min(one.interval for one in found),
        topology_refresh=min(one.topology_refresh for one in found),
        high_refresh=min(one.high_refresh for one in found),
        instance_template=templates[0] if templates else "?",
        connect_timeout=min(one.connect_timeout for one in found),
        accessible_regions=either(*(one.accessible_regions for one in found)),
    )


@dataclass(frozen=True, slots=True)
class Identity:
    """What a session has proved a cluster to be: its dialect and the hosts that belong to it. `watches`: its aliases."""

    topic: str
    owner: str
    dialect: str
    hosts: frozenset[str]
    watches: frozenset[str]


def same_cluster(known: Iterable[Identity], owner: str, dialect: str, hosts: frozenset[str], watch_key: str) -> list[str]:
    """Return the topics of the clusters that a proof belongs to: equal owner, equal dialect and a host in common. A watch that
    brings no hosts belongs where its endpoint led others before.

    Never another owner's: a table of members that one user's server made up would lead the other's logins there.
    """
    same = [one for one in known if one.owner == owner and one.dialect == dialect]
    if hosts:
        return [one.topic for one in same if one.hosts & hosts]
    return [one.topic for one in same if watch_key in one.watches][:1]
