"""Watches one host: one persistent session, one question in flight, whatever the number of workers."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING

from monitor_service.actors.session_keeper import SessionKeeper
from monitor_service.cadence import SHORTEST, pause
from monitor_service.evidence import Probe, missing_right
from monitor_service.sessions import ProbeError
from wrapper.decisions.verdict import probe_timeout
from wrapper.dialects import RoleAnswer
from wrapper.drivers.classify import ErrorKind
from wrapper.hosts import HostRole
from wrapper.monitor.state import ANSWERED, OURS, TopologyHost

if TYPE_CHECKING:
    from monitor_service.cluster import Cluster


class HostHealthActor:
    """Asks its host for its role, at the cluster's interval, back to back while the host is silent, at once when poked.

    The question is the probe: an answer proves at the same time that the host lives and what it is.
    """

    def __init__(self, cluster: Cluster, host: TopologyHost) -> None:
        self.name = f"health {cluster.topic} {host.key}"
        self.key = host.key
        self._cluster = cluster
        self._guard = cluster.services.guard
        self._keeper = SessionKeeper(cluster, host.key, host.host, host.port)
        self._poked = asyncio.Event()
        self._stopping = asyncio.Event()
        self.probes = 0
        self.hinted_at: float | None = None

    @property
    def has_session(self) -> bool:
        return self._keeper.has_session

    def poke(self, hinted_at: float | None = None) -> None:
        """Probe at once; while a probe is in flight, once more after it, however often this is called. `hinted_at`: when a worker
        reported trouble; the first proof after it is published whatever it says."""
        if hinted_at is not None:
            self.hinted_at = hinted_at
        self._poked.set()

    def stop(self) -> None:
        self._stopping.set()
        self._poked.set()
        self._keeper.shut()

    async def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._poked.clear()
                began = monotonic()
                probe = await self._probe()
                if self._stopping.is_set():
                    return
                self.probes += 1
                self._cluster.on_probe(self.key, probe)
                await self._rest(probe, began)
        finally:
            self._keeper.drop()

    async def _probe(self) -> Probe:
        dialect = self._cluster.dialect
        mark = self._guard.mark()
        began = monotonic()
        try:
            rows = await self._keeper.ask(dialect.role_query, probe_timeout(self._cluster.settings.interval))
        except ProbeError as error:
            kind = OURS if error.kind != ANSWERED and self._guard.paused_since(mark) else error.kind
            started = max(began, self._keeper.asked_at)
            if error.error is ErrorKind.PRIVILEGE:
                detail = missing_right(error.detail, dialect.grants)
                return self._ended(started, kind, accepting=True, detail=detail, slow=True)
            return self._ended(started, kind, detail=error.detail, slow=error.error is ErrorKind.LOGIN)
        answer = dialect.role_answer(rows[0]) if rows else RoleAnswer(HostRole.UNKNOWN)
        detail = ""
        expected = self._cluster.instance_id(self.key)
        if expected and answer.id and answer.id != expected:
            # The name leads to another instance: its claim must not be booked on this host.
            answer, detail = RoleAnswer(HostRole.UNKNOWN), f"the address leads to {answer.id}"
        return self._ended(self._keeper.asked_at, ANSWERED, accepting=True, answer=answer, detail=detail)

    def _ended(
        self,
        started: float,
        kind: str,
        *,
        accepting: bool = False,
        answer: RoleAnswer | None = None,
        detail: str = "",
        slow: bool = False,
    ) -> Probe:
        return Probe(
            started=started,
            ended=monotonic(),
            kind=kind,
            accepting=accepting,
            answer=answer,
            address=self._keeper.address,
            detail=detail,
            slow=slow,
        )

    async def _rest(self, probe: Probe, began: float) -> None:
        seconds = pause(
            probe.kind,
            self._cluster.settings.interval,
            has_session=self._keeper.has_session,
            slow=probe.slow,
            failing_for=self._cluster.failing_for(self.key),
            outage=self._cluster.outage(),
            chance=random.random(),
        )
        # A closed session is news: the server, or the way to it, has gone.
        self._keeper.watch(self._poked.set)
        if seconds > 0 and not self._poked.is_set():
            timer = asyncio.get_running_loop().call_later(seconds, self._poked.set)
            await self._poked.wait()
            timer.cancel()
        # However many hints arrive, the host is asked at a bounded rate.
        left = SHORTEST - (monotonic() - began)
        if left > 0:
            await asyncio.sleep(left)
