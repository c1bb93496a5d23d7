"""All clusters of one monitor: which one a watch leads to, and what becomes of two that prove to be one."""

from __future__ import annotations

from itertools import count

from monitor_service.cluster import Cluster
from monitor_service.context import Context
from monitor_service.registry import same_cluster
from wrapper.dialects import DatabaseDialect
from wrapper.monitor.messages import WatchRequest
from wrapper.monitor.state import ClusterGone


class Clusters:
    """Finds, makes, merges and forgets clusters. `context.clusters` holds them, by topic."""

    def __init__(self, context: Context, epoch: int) -> None:
        self._context = context
        self._epoch = epoch
        self._numbers = count(1)

    def find(self, owner: str, request: WatchRequest, dialect: DatabaseDialect) -> Cluster | None:
        """Return the owner's cluster that a watch leads to; None when it would be a new one."""
        hosts = frozenset(host.key for host in request.seed.hosts)
        clusters = self._context.clusters
        known = (cluster.identity() for cluster in clusters.values())
        topics = same_cluster(known, owner, dialect.code, hosts, request.watch.key)
        if not topics:
            return None
        for topic in topics[1:]:
            self._merge(clusters[topic], clusters[topics[0]])
        return clusters[topics[0]]

    def make(self, owner: str, request: WatchRequest, dialect: DatabaseDialect) -> Cluster:
        """Return a new cluster for a watch, not started yet."""
        # Prefixes of each other would share a subscription, and no epoch may meet another one's topic: hence the closing slash.
        topic = f"cluster/{self._epoch}/{next(self._numbers)}/"
        self._tell_of_split(owner, request, topic)
        return Cluster(self._context, owner, topic, dialect, request, self._members_changed)

    def with_watches(self, owner: str, watches: set[str]) -> list[Cluster]:
        """Return the owner's clusters that any of the watches leads to."""
        return [cluster for cluster in self._context.clusters.values() if cluster.owner == owner and watches & cluster.watches]

    def refresh(self, topics: set[str]) -> None:
        """Have clusters look at their leases again."""
        for topic in topics:
            cluster = self._context.clusters.get(topic)
            if cluster is not None:
                cluster.refresh_soon()

    def sweep(self, now: float, warm: float) -> None:
        """Count connections, and forget what nobody has watched for `warm` seconds."""
        for cluster in list(self._context.clusters.values()):
            cluster.refresh_counts()
            if cluster.deserted_at is not None and now - cluster.deserted_at > warm:
                self._drop(cluster, ClusterGone())
                self._context.publisher.journal(cluster.topic, "FORGOTTEN", f"nobody has watched it for {warm:g} s")

    def _tell_of_split(self, owner: str, request: WatchRequest, topic: str) -> None:
        if request.watch.cluster_id is None:
            return
        suffix = f"/{request.watch.cluster_id}"
        others = [
            one.topic
            for one in self._context.clusters.values()
            if one.owner == owner and any(watch.endswith(suffix) for watch in one.watches)
        ]
        if others:
            evidence = f"cluster_id {request.watch.cluster_id!r} is also used for {', '.join(others)}, which has other hosts"
            self._context.publisher.journal(request.watch.host, "SPLIT", evidence, topic)

    def _members_changed(self, cluster: Cluster) -> None:
        for other in list(self._context.clusters.values()):
            is_alike = other is not cluster and other.owner == cluster.owner and other.dialect is cluster.dialect
            if is_alike and set(other.view.health) & set(cluster.view.health):
                self._merge(other, cluster)

    def _merge(self, cluster: Cluster, into: Cluster) -> None:
        self._context.registry.move(cluster.topic, into.topic)
        into.absorb(cluster)
        self._context.publisher.journal(cluster.topic, "MERGED", f"proved to be the cluster {into.topic}", into.topic)
        self._drop(cluster, ClusterGone(into=into.topic))

    def _drop(self, cluster: Cluster, update: ClusterGone) -> None:
        del self._context.clusters[cluster.topic]
        cluster.stop()
        self._context.publisher.publish(cluster.topic, update)
