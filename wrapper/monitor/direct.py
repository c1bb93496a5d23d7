"""Finding out without the monitor: what sessions of this process learn, and a search over all hosts when a failover needs one.

The rule for who is the writer is the monitor's own (`wrapper.decisions.writer`). Proofs found here carry the source "direct"
and give way to newer ones.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from wrapper.chance import chance
from wrapper.decisions.panic import panic_pause
from wrapper.decisions.writer import Claim, WriterState, consider
from wrapper.dialects.base import RoleAnswer
from wrapper.monitor.client import MonitorClient
from wrapper.monitor.messages import Watch
from wrapper.monitor.state import FROM_DIRECT, ClusterState, HostHealth, TopologyHost
from wrapper.monitor.threads import allocate_lock, start_thread

logger = logging.getLogger(__name__)

# Seconds. One connect attempt per host in this time; open sessions are asked more often, less so the longer it takes.
_CONNECT_PAUSE = 0.1
# A search goes on while somebody asked for it within this time.
_KEEP = 1.0
# A claim of a host that has not repeated it for this long is nobody's: an open session is asked at least every quarter of a second.
_CLAIM_LIFE = 1.0
# Whoever still waits for its result asks for the search again this often.
RENEWAL = _KEEP / 2


class ProbeSession(Protocol):
    """An open session of a search."""

    def ask_role(self) -> RoleAnswer: ...

    def close(self) -> None: ...


def with_members(
    cluster: ClusterState | None,
    watch_key: str,
    dialect: str,
    hosts: tuple[TopologyHost, ...],
    at: float,
    elsewhere: tuple[TopologyHost, ...] = (),
) -> ClusterState:
    """Return the cluster with its members as a session of this process read them; `elsewhere`: those that are not to be reached."""
    known = cluster or ClusterState(topic="direct", dialect=dialect, watches=(watch_key,))
    topology = replace(known.topology, hosts=hosts, source=FROM_DIRECT, read_at=at, elsewhere=elsewhere)
    health = {host.key: known.health.get(host.key) or HostHealth(host.key) for host in hosts}
    return replace(known, dialect=dialect, topology=topology, health=health)


def with_proof(cluster: ClusterState, key: str, answer: RoleAnswer, at: float, live_since: float = float("-inf")) -> ClusterState:
    """Return the cluster after a session on host `key` said what it is. Claims that were made before `live_since` count as those of
    hosts that do not answer any more."""
    proof = HostHealth(key, last_answer=at, kind="answered", accepting=True, role=answer.role.value, rank=answer.rank, proved_at=at)
    health = {**cluster.health, key: proof}
    topology = cluster.topology
    state = consider(
        WriterState(topology.writer, topology.term, topology.rank, topology.writer, superseded=frozenset(topology.superseded)),
        [Claim(host.key, host.rank, (host.proved_at or 0.0) >= live_since) for host in health.values() if host.role == "writer"],
        [host.key for host in health.values() if host.role == "reader"],
    )
    topology = replace(
        topology,
        writer=state.writer,
        term=state.term,
        rank=state.rank,
        conflict=state.conflict,
        superseded=tuple(sorted(state.superseded)),
    )
    return replace(cluster, health=health, topology=topology)


class Refusal(NamedTuple):
    """No host lets a search in: since when, and the last login error."""

    since: float
    error: Exception


class DirectSearch:
    """Asks every known host for its role until nobody wants to know any more. One per process and watch; see `search`.

    `refusal`: set by the first refused login, gone with the first answer.
    """

    def __init__(
        self,
        client: MonitorClient,
        watch_key: str,
        open_session: Callable[[TopologyHost], ProbeSession],
        is_refusal: Callable[[Exception], bool],
    ) -> None:
        self._client = client
        self._watch_key = watch_key
        self._open_session = open_session
        self._is_refusal = is_refusal
        self.refusal: Refusal | None = None
        self._started = time.monotonic()
        self._lock = allocate_lock()
        self._asked: set[str] = set()
        self.wanted_until = 0.0

    @property
    def is_wanted(self) -> bool:
        return time.monotonic() < self.wanted_until

    def include(self, hosts: Iterable[TopologyHost]) -> None:
        """Ask these hosts too, each on a thread of its own for as long as the search lasts; where no thread is to be had, on the
        caller's, once."""
        if not self._asked:
            self.refusal = None  # of an earlier search
        for host in hosts:
            if host.key not in self._asked:
                self._asked.add(host.key)
                try:
                    start_thread(partial(self._ask, host))
                except RuntimeError:
                    self._ask(host, once=True)

    def _ask(self, host: TopologyHost, *, once: bool = False) -> None:
        session: ProbeSession | None = None
        try:
            while self.is_wanted:
                try:
                    if session is None:
                        session = self._open_session(host)
                    answer = session.ask_role()
                except Exception as error:  # noqa: BLE001  whatever the host does, the search goes on
                    logger.debug("direct search: %s: %s", host.key, error)
                    if self._is_refusal(error):
                        first = self.refusal
                        self.refusal = Refusal(time.monotonic() if first is None else first.since, error)
                    _close(session)
                    session = None
                    pause = _CONNECT_PAUSE * chance.uniform(0.8, 1.2)
                else:
                    self._found(host.key, answer)
                    pause = panic_pause(time.monotonic() - self._started, chance.random())
                if once:
                    break
                time.sleep(pause)
        finally:
            _close(session)
            self._asked.discard(host.key)

    def _found(self, key: str, answer: RoleAnswer) -> None:
        self.refusal = None
        with self._lock:
            cluster = self._client.local.get(self._watch_key)
            if cluster is not None:
                now = time.monotonic()
                self._client.learn(self._watch_key, with_proof(cluster, key, answer, now, live_since=now - _CLAIM_LIFE))


def _close(session: ProbeSession | None) -> None:
    if session is not None:
        session.close()


def search(
    client: MonitorClient,
    watch: Watch,
    views: Sequence[ClusterState],
    open_session: Callable[[TopologyHost], ProbeSession],
    is_refusal: Callable[[Exception], bool],
) -> Refusal | None:
    """Have a direct search over the hosts in `views` running for a moment longer; single flight per process and watch. Returns the
    refusal that it has met with so far. `is_refusal`: whether what `open_session` raised is a login error."""
    found = client.searches.get(watch.key)
    if found is None:
        found = client.searches.setdefault(watch.key, DirectSearch(client, watch.key, open_session, is_refusal))
    hosts = {host.key: host for view in views for host in view.topology.hosts}
    local = client.own_view(watch)
    if local is None or watch.key not in client.local or set(hosts) - set(local.health):
        dialect = views[0].dialect if views else ""
        elsewhere = views[0].topology.elsewhere if views else ()
        client.learn(watch.key, with_members(local, watch.key, dialect, tuple(hosts.values()), time.monotonic(), elsewhere))
    found.wanted_until = time.monotonic() + _KEEP
    found.include(hosts.values())
    return found.refusal
