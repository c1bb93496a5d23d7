"""What each request is answered with. `owner` is the principal that the request came from: it finds only what is its own."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import msgspec

from monitor_service.clusters import Clusters
from monitor_service.context import Context
from monitor_service.credentials import of_another_user
from monitor_service.options import Options
from monitor_service.registry import Refusal, complaint
from monitor_service.sessions.drivers import is_supported
from wrapper.dialects import DIALECTS
from wrapper.monitor.messages import (
    HINT_MAX_AGE,
    Client,
    Message,
    Ok,
    Refused,
    Release,
    Renew,
    Report,
    Snapshot,
    SnapshotRequest,
    UnknownLease,
    Unsupported,
    Watched,
    WatchRequest,
)


class Requests:
    """Watches, leases, hints and snapshots. `is_own(principal)`: whether it is the monitor's user; `is_draining()`: whether nobody
    new is served any more."""

    def __init__(
        self,
        context: Context,
        clusters: Clusters,
        options: Options,
        is_own: Callable[[str], bool],
        is_draining: Callable[[], bool],
    ) -> None:
        self._context = context
        self._clusters = clusters
        self._options = options
        self._is_own = is_own
        self._is_draining = is_draining

    def answer(self, route: bytes, owner: str, message: Message) -> Message:
        """Carry a request out and return its answer."""
        registry = self._context.registry
        if isinstance(message, WatchRequest):
            return self._watch(route, owner, message)
        if isinstance(message, Renew):
            known = registry.renew(owner, message.client, message.connections, route, monotonic())
            return Ok() if known else UnknownLease()
        if isinstance(message, Release):
            return self._release(owner, message.client)
        if isinstance(message, Report):
            return self._report(owner, message)
        if isinstance(message, SnapshotRequest):
            return self._snapshot(owner, message)
        return Refused(f"{type(message).__name__} is not a request")

    def _watch(self, route: bytes, owner: str, request: WatchRequest) -> Message:
        context = self._context
        key = request.watch.key
        dialect = DIALECTS.get(request.dialect)
        if dialect is None:
            return Unsupported(key, f"dialect {request.dialect!r} is unknown to this monitor")
        if not is_supported(request.driver, dialect.engine):
            return Unsupported(
                key, f"driver {request.driver!r} for {dialect.engine} is not installed where this monitor runs, or unknown to it"
            )
        if request.offer is not None and not self._is_own(owner):
            request = msgspec.structs.replace(request, offer=of_another_user(request.offer, request.driver))
        wrong = complaint(request)
        if wrong is not None:
            return Refused(wrong)
        lease = context.registry.lease(owner, request.client)
        refusal = context.registry.refusal(owner, request)
        if lease is None and self._is_draining():
            refusal = Refusal("while draining", "this monitor is draining: it serves nobody new, and another one will take over")
        if refusal is not None:
            return self._refuse(refusal)
        cluster = self._clusters.find(owner, request, dialect)
        if cluster is None and len(context.clusters) >= self._options.limits.clusters:
            return self._refuse(
                Refusal("clusters", f"too many clusters: {self._options.limits.clusters} are allowed (--max-clusters)")
            )
        interest = lease.interests.get(key) if lease is not None else None
        before = {interest.topic} if interest is not None else set()
        if cluster is None:
            cluster = self._clusters.make(owner, request, dialect)
        context.registry.watch(owner, request, cluster.topic, route, monotonic())
        if cluster.topic in context.clusters:
            # At once: the client may ask for a snapshot by this watch next.
            cluster.watches |= {key}
            cluster.refresh_soon()
        else:
            context.clusters[cluster.topic] = cluster
            cluster.start()
        self._clusters.refresh(before - {cluster.topic})
        return Watched(key, cluster.topic, self._options.lease)

    def _refuse(self, refusal: Refusal) -> Message:
        self._context.refused[f"refused {refusal.limit}"] += 1
        return Refused(refusal.reason)

    def _release(self, owner: str, client: Client) -> Message:
        lease = self._context.registry.release(owner, client)
        if lease is not None:
            self._clusters.refresh({interest.topic for interest in lease.interests.values()})
        return Ok()

    def _report(self, owner: str, report: Report) -> Message:
        now = monotonic()
        if not now - report.at <= HINT_MAX_AGE:  # nor a time that is no number
            self._context.publisher.counters["stale hints"] += 1
            return Ok()
        for cluster in self._clusters.with_watches(owner, {report.watch.key}):
            cluster.on_report(report.host, report.error, min(report.at, now))
        return Ok()

    def _snapshot(self, owner: str, request: SnapshotRequest) -> Snapshot:
        found = self._clusters.with_watches(owner, set(request.watches))
        seqs = {cluster.topic: self._context.publisher.seqs.get(cluster.topic, 0) for cluster in found}
        return Snapshot(tuple(cluster.state() for cluster in found), seqs, monotonic())
