"""One run of the monitor: wiring, requests, the heartbeat that everything periodic hangs on, and the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from itertools import count
from time import monotonic

import zmq

from monitor_service import status
from monitor_service.cluster import Cluster
from monitor_service.context import Context
from monitor_service.control import ControlServer
from monitor_service.election import Election
from monitor_service.loop_guard import LoopGuard, guarded_loop
from monitor_service.publisher import Publisher
from monitor_service.registry import MAX_WATCHES_PER_CLIENT, Registry, complaint, same_cluster
from monitor_service.sessions.drivers import is_supported
from monitor_service.supervisor import Supervisor
from wrapper.dialects import DIALECTS, DatabaseDialect
from wrapper.monitor.messages import (
    HEARTBEAT_INTERVAL,
    HINT_MAX_AGE,
    LEASE_SECONDS,
    Message,
    Ok,
    Refused,
    Release,
    Renew,
    Report,
    Snapshot,
    SnapshotRequest,
    Status,
    StatusRequest,
    StopRequest,
    UnknownLease,
    Unsupported,
    Watched,
    WatchRequest,
)
from wrapper.monitor.paths import MonitorPaths
from wrapper.monitor.state import ClusterGone

logger = logging.getLogger(__name__)

# Seconds between looks at leases, deserted clusters and the monitor's own files.
SWEEP_INTERVAL = 1.0
# Seconds; lets the answer to a stop request leave before the socket closes.
STOP_DELAY = 0.05

EXIT_OK = 0
EXIT_LOST = 4


@dataclass(frozen=True, slots=True)
class Options:
    """How a monitor runs. Seconds: `linger` without leases before an on-demand monitor ends, `warm` for which a cluster without
    leases is still watched, `lease` before a silent client is forgotten."""

    on_demand: bool = False
    linger: float = 60.0
    warm: float = 300.0
    lease: float = LEASE_SECONDS


class Service:
    """The monitor process, from bound sockets to exit code."""

    def __init__(self, paths: MonitorPaths, election: Election, options: Options, guard: LoopGuard) -> None:
        self.paths = paths
        self.options = options
        self.epoch = election.epoch
        self.started = monotonic()
        self._election = election
        self._zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._numbers = count(1)
        self._stopping: asyncio.Event = asyncio.Event()
        self._exit_code = EXIT_OK
        self._next_sweep = 0.0
        self._idle_since = self.started
        publisher = Publisher(self._zmq, self.epoch)
        self.control = ControlServer(self._zmq, self.epoch, self._handle, lambda kind: Refused(f"unknown request {kind!r}"))
        self.context = Context(
            guard=guard,
            publisher=publisher,
            registry=Registry(options.lease),
            supervisor=Supervisor(lambda name, error: publisher.journal(name, "RESTARTED", error)),
            tell=self.control.tell,
            settle=self._settle,
        )

    def bind(self) -> None:
        """Take the sockets' paths, under the lock: whatever lies there is a dead monitor's."""
        sockets = (self.paths.events, self.paths.control)
        for path in sockets:
            path.unlink(missing_ok=True)
        self.context.publisher.bind(self.paths.events_url)
        self.control.bind(self.paths.control_url)
        for path in sockets:
            path.chmod(0o600)
        self._election.own(sockets)

    async def run(self) -> int:
        """Serve until a signal, a stop request, idleness, or the loss of the monitor's files. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, f"signal {number.name}")
        self.context.publisher.start()
        self.control.start()
        self.context.drivers.preload()
        self.context.publisher.journal("monitor", "STARTED", f"pid {os.getpid()}, epoch {self.epoch}")
        beat = loop.create_task(self._beat(), name="heartbeat")
        await self._stopping.wait()
        beat.cancel()
        await asyncio.wait([beat])
        if self._exit_code != EXIT_LOST:
            self.context.publisher.journal("monitor", "STOPPED", f"pid {os.getpid()}")
        self.context.publisher.stop()
        self.control.stop()
        await self.context.supervisor.stop_all()
        return self._exit_code

    def close(self) -> None:
        """Remove the sockets and give the lock up."""
        self._zmq.destroy(linger=0)
        for path in (self.paths.events, self.paths.control):
            path.unlink(missing_ok=True)
        self._election.release()

    def _stop(self, reason: str, exit_code: int = EXIT_OK) -> None:
        if not self._stopping.is_set():
            logger.info("stopping: %s", reason)
            self._exit_code = exit_code
            self._stopping.set()

    # -- the heartbeat ---------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        due = monotonic()
        while True:
            self._settle()
            self.context.publisher.heartbeat()
            if monotonic() >= self._next_sweep:
                self._next_sweep = monotonic() + SWEEP_INTERVAL
                self._sweep()
            due = max(due + HEARTBEAT_INTERVAL, monotonic())
            await asyncio.sleep(due - monotonic())

    def _settle(self) -> None:
        seconds = self.context.guard.take_pause()
        if not seconds:
            return
        self.context.registry.extend(seconds)
        self._idle_since += seconds
        self.context.publisher.journal("monitor", "PAUSED", f"the loop stood still for {seconds:.1f} s: running probes are void")
        for cluster in self.context.clusters.values():
            cluster.on_pause()

    def _sweep(self) -> None:
        lost = self._election.lost()
        if lost is not None:
            logger.error("%s is no longer this monitor's own: it ends at once, another one may be in charge", lost)
            self._stop(f"lost {lost}", EXIT_LOST)
            return
        # Renewals that have arrived count before any lease is judged.
        self.control.drain(limit=None)
        now = monotonic()
        for lease in self.context.registry.lapse(now):
            self.context.publisher.journal(f"pid {lease.client.pid}", "LEASE LAPSED", f"no renewal for {self.options.lease:g} s")
            self._refresh({interest.topic for interest in lease.interests.values()})
        for cluster in list(self.context.clusters.values()):
            cluster.refresh_counts()
            if cluster.deserted_at is not None and now - cluster.deserted_at > self.options.warm:
                self._drop(cluster, ClusterGone())
        if self.context.registry.leases:
            self._idle_since = now
        elif self.options.on_demand and now - self._idle_since >= self.options.linger:
            self._stop(f"no lease for {self.options.linger:g} s")

    # -- requests --------------------------------------------------------------------------------------------------------------

    def _handle(self, route: bytes, message: Message) -> Message | None:
        self._settle()
        registry = self.context.registry
        if isinstance(message, WatchRequest):
            return self._watch(route, message)
        if isinstance(message, Renew):
            return Ok() if registry.renew(message.client, message.connections, route, monotonic()) else UnknownLease()
        if isinstance(message, Release):
            lease = registry.release(message.client)
            if lease is not None:
                self._refresh({interest.topic for interest in lease.interests.values()})
            return Ok()
        if isinstance(message, Report):
            return self._report(message)
        if isinstance(message, SnapshotRequest):
            return self._snapshot(message)
        if isinstance(message, StatusRequest):
            return Status(status.document(self))
        if isinstance(message, StopRequest):
            return self._stop_requested(message)
        return Refused(f"{type(message).__name__} is not a request")

    def _watch(self, route: bytes, request: WatchRequest) -> Message:
        key = request.watch.key
        dialect = DIALECTS.get(request.dialect)
        if dialect is None:
            return Unsupported(key, f"dialect {request.dialect!r} is unknown to this monitor")
        if not is_supported(request.driver, dialect.engine):
            return Unsupported(
                key, f"driver {request.driver!r} for {dialect.engine} is not installed where this monitor runs, or unknown to it"
            )
        wrong = complaint(request)
        if wrong is not None:
            return Refused(wrong)
        if self.context.registry.is_full(request):
            return Refused(f"too many watches: {MAX_WATCHES_PER_CLIENT} per client are allowed, and a bounded number of clients")
        cluster = self._cluster_of(request, dialect)
        before = self._topics_of(request)
        self.context.registry.watch(request, cluster.topic, route, monotonic())
        if cluster.topic in self.context.clusters:
            # At once: the client may ask for a snapshot by this watch next.
            cluster.watches |= {key}
            cluster.refresh_soon()
        else:
            self.context.clusters[cluster.topic] = cluster
            cluster.start()
        self._refresh(before - {cluster.topic})
        return Watched(key, cluster.topic, self.options.lease)

    def _cluster_of(self, request: WatchRequest, dialect: DatabaseDialect) -> Cluster:
        hosts = frozenset(host.key for host in request.seed.hosts)
        clusters = self.context.clusters
        topics = same_cluster((cluster.identity() for cluster in clusters.values()), dialect.code, hosts, request.watch.key)
        if topics:
            for topic in topics[1:]:
                self._merge(clusters[topic], clusters[topics[0]])
            return clusters[topics[0]]
        # Prefixes of each other would share a subscription, and no epoch may meet another one's topic: hence the closing slash.
        topic = f"cluster/{self.epoch}/{next(self._numbers)}/"
        self._tell_of_split(request, topic)
        return Cluster(self.context, topic, dialect, request, self._members_changed)

    def _tell_of_split(self, request: WatchRequest, topic: str) -> None:
        if request.watch.cluster_id is None:
            return
        suffix = f"/{request.watch.cluster_id}"
        others = [one.topic for one in self.context.clusters.values() if any(watch.endswith(suffix) for watch in one.watches)]
        if others:
            evidence = f"cluster_id {request.watch.cluster_id!r} is also used for {', '.join(others)}, which has other hosts"
            self.context.publisher.journal(request.watch.host, "SPLIT", evidence, topic)

    def _topics_of(self, request: WatchRequest) -> set[str]:
        lease = self.context.registry.leases.get(request.client)
        interest = lease.interests.get(request.watch.key) if lease is not None else None
        return {interest.topic} if interest is not None else set()

    def _report(self, report: Report) -> Message:
        now = monotonic()
        if now - report.at > HINT_MAX_AGE:
            self.context.publisher.counters["stale hints"] += 1
            return Ok()
        for cluster in self.context.clusters.values():
            if report.watch.key in cluster.watches:
                cluster.on_report(report.host, report.error, min(report.at, now))
        return Ok()

    def _snapshot(self, request: SnapshotRequest) -> Snapshot:
        wanted = set(request.watches)
        found = [cluster for cluster in self.context.clusters.values() if wanted & cluster.watches]
        seqs = {cluster.topic: self.context.publisher.seqs.get(cluster.topic, 0) for cluster in found}
        return Snapshot(tuple(cluster.state() for cluster in found), seqs, monotonic())

    def _stop_requested(self, request: StopRequest) -> Message:
        if request.drain and not self.options.on_demand:
            return Refused("this monitor was started explicitly and does not hand over; use stop")
        reason = "another monitor takes over" if request.drain else "asked to stop"
        asyncio.get_running_loop().call_later(STOP_DELAY, self._stop, reason)
        return Ok()

    # -- clusters --------------------------------------------------------------------------------------------------------------

    def _refresh(self, topics: set[str]) -> None:
        for topic in topics:
            cluster = self.context.clusters.get(topic)
            if cluster is not None:
                cluster.refresh_soon()

    def _members_changed(self, cluster: Cluster) -> None:
        for other in list(self.context.clusters.values()):
            if other is not cluster and other.dialect is cluster.dialect and set(other.view.health) & set(cluster.view.health):
                self._merge(other, cluster)

    def _merge(self, cluster: Cluster, into: Cluster) -> None:
        self.context.registry.move(cluster.topic, into.topic)
        into.absorb(cluster)
        self.context.publisher.journal(cluster.topic, "MERGED", f"proved to be the cluster {into.topic}", into.topic)
        self._drop(cluster, ClusterGone(into=into.topic))

    def _drop(self, cluster: Cluster, update: ClusterGone) -> None:
        del self.context.clusters[cluster.topic]
        cluster.stop()
        self.context.publisher.publish(cluster.topic, update)
        if not update.into:
            self.context.publisher.journal(cluster.topic, "FORGOTTEN", f"nobody has watched it for {self.options.warm:g} s")


def serve(paths: MonitorPaths, election: Election, options: Options) -> int:
    """Run a monitor that holds its lock; return the exit code."""
    loop, guard = guarded_loop()
    asyncio.set_event_loop(loop)
    try:
        service = loop.run_until_complete(_create(paths, election, options, guard))
        code = loop.run_until_complete(service.run())
        if code == EXIT_LOST:
            # Closing would unlink socket paths that may be a successor's by now.
            logging.shutdown()
            os._exit(code)
        service.close()
        return code
    finally:
        loop.close()


async def _create(paths: MonitorPaths, election: Election, options: Options, guard: LoopGuard) -> Service:
    service = Service(paths, election, options, guard)
    service.bind()
    return service
