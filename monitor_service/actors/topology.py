"""Reads who is in a cluster, on a session of its own: from the writer when there is one, else from any host that answers."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING

from monitor_service.actors.session_keeper import SessionKeeper
from monitor_service.evidence import missing_right
from monitor_service.sessions import ProbeError
from wrapper.dialects.base import InstanceTemplate
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import AwsWrapperError
from wrapper.monitor.state import TopologyHost

if TYPE_CHECKING:
    from monitor_service.cluster import Cluster

# Seconds between attempts while the membership cannot be read.
RETRY = 1.0
# Seconds an unanswered membership question may take; a host's health is judged elsewhere.
QUERY_TIMEOUT = 2.0


class TopologyActor:
    """Refreshes the membership: at the cluster's rate when calm, fast while the writer is searched for and for a while after."""

    def __init__(self, cluster: Cluster) -> None:
        self.name = f"topology {cluster.topic}"
        self._cluster = cluster
        self._keeper: SessionKeeper | None = None
        self._keeper_key = ""
        self._poked = asyncio.Event()
        self._stopping = asyncio.Event()
        self.detail = ""

    @property
    def has_session(self) -> bool:
        return self._keeper is not None and self._keeper.has_session

    def poke(self) -> None:
        """Refresh soon, and wait no longer for a host that has fallen silent."""
        self._poked.set()
        if self._keeper is not None and self._cluster.failing_for(self._keeper_key):
            self._keeper.shut()

    def stop(self) -> None:
        self._stopping.set()
        self._poked.set()
        if self._keeper is not None:
            self._keeper.shut()

    async def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._poked.clear()
                seconds = await self._refresh()
                if self._stopping.is_set():
                    return
                timer = asyncio.get_running_loop().call_later(seconds * (0.95 + 0.1 * random.random()), self._poked.set)
                await self._poked.wait()
                timer.cancel()
        finally:
            self._drop()

    async def _refresh(self) -> float:
        """Read the membership once; return the seconds until the next time."""
        cluster = self._cluster
        query = cluster.dialect.topology_query
        source = cluster.membership_source()
        if query is None or source is None:
            self._drop()
            # Woken by the first host that answers.
            return RETRY
        keeper = self._keep(source)
        try:
            rows = await keeper.ask(query, QUERY_TIMEOUT)
            hosts = cluster.dialect.topology_hosts(rows, InstanceTemplate.parse(cluster.settings.instance_template), source.port)
        except ProbeError as error:
            if keeper.is_shut:
                return 0.0
            if error.error is ErrorKind.PRIVILEGE:
                self._complain(missing_right(error.detail, cluster.dialect.grants))
                return max(cluster.settings.topology_refresh, RETRY)
            self._complain(error.detail)
            return max(cluster.settings.high_refresh, RETRY if cluster.outage() is None else 0.0)
        except AwsWrapperError as error:
            self._complain(str(error))
            return max(cluster.settings.topology_refresh, RETRY)
        self.detail = ""
        cluster.on_table(hosts, source.key)
        fast = cluster.outage() is not None or monotonic() < cluster.view.fast_until
        return cluster.settings.high_refresh if fast else cluster.settings.topology_refresh

    def _keep(self, source: TopologyHost) -> SessionKeeper:
        if self._keeper is None or self._keeper.is_shut or self._keeper_key != source.key:
            self._drop()
            self._keeper = SessionKeeper(self._cluster, source.key, source.host, source.port)
            self._keeper_key = source.key
        return self._keeper

    def _drop(self) -> None:
        if self._keeper is not None:
            self._keeper.drop()
            self._keeper = None

    def _complain(self, detail: str) -> None:
        if detail != self.detail:
            self.detail = detail
            self._cluster.note(self._keeper_key, "MEMBERSHIP UNREAD", detail)
