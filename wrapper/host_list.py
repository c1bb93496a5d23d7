"""Host lists: who is in the cluster, who of them may be connected to, and the contract of whoever says so."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from wrapper.hosts import HostInfo
from wrapper.monitor.direct import RENEWAL
from wrapper.monitor.generation import GENERATION, wait_for_change

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

# Seconds that an exclusion holds without being renewed.
_RESTRICTION_LIFE = 300.0


class HostListProvider(Protocol):
    """Who says which hosts a cluster has. A plugin may install one of its own as `plugin_service.host_list_provider`."""

    @property
    def is_static(self) -> bool:
        """Whether the list never changes by itself."""
        ...

    def refresh(self, connection: Any = None) -> tuple[HostInfo, ...]:
        """Return the hosts as they are known. Called often: no I/O."""
        ...

    def force_refresh(self, connection: Any = None) -> tuple[HostInfo, ...]:
        """Return the hosts as the database lists them now, asked on `connection`."""
        ...

    def force_monitoring_refresh(self, should_verify_writer: bool, timeout_sec: float) -> bool:
        """Have every host asked and wait for the writer, or any host, to prove itself; whether it did in time."""
        ...

    def get_cluster_id(self) -> str:
        """A name of the cluster."""
        ...


class SharedHostList:
    """The host list as the shared monitor and this process know it."""

    def __init__(self, service: PluginService) -> None:
        self._service = service

    @property
    def is_static(self) -> bool:
        dialect = self._service.database_dialect
        return dialect is None or not dialect.is_topology_aware

    def refresh(self, connection: Any = None) -> tuple[HostInfo, ...]:
        initial = self._service.initial_connection_host_info
        return self._service.known_cluster.hosts or (() if initial is None else (initial,))

    def force_refresh(self, connection: Any = None) -> tuple[HostInfo, ...]:
        if connection is not None:
            self._service.discovery.read_members(connection)
        return self.refresh()

    def force_monitoring_refresh(self, should_verify_writer: bool, timeout_sec: float) -> bool:
        service = self._service
        if service.watch is None:
            return False
        asked_at = time.monotonic()
        service.client.report(service.watch, service.watch.key, "refresh")
        while True:
            seen = GENERATION[0]
            if self._has_proved_since(asked_at, should_verify_writer):
                return True
            time_left = asked_at + timeout_sec - time.monotonic()
            if time_left <= 0:
                return False
            if not service.client.is_live:
                service.search_directly()
            wait_for_change(seen, min(time_left, RENEWAL))

    def _has_proved_since(self, at: float, should_be_writer: bool) -> bool:
        for view in self._service.views:
            keys = filter(None, (view.topology.writer,)) if should_be_writer else view.health
            if any((view.proved(key) or 0.0) > at for key in keys):
                return True
        return False

    def get_cluster_id(self) -> str:
        state = self._service.cluster
        return self._service.original_url if state is None else state.topic


@dataclass(frozen=True, slots=True)
class AllowedAndBlockedHosts:
    """Which hosts, by `HostInfo.host_id`, connections may go to: None allows all, and blocks none."""

    allowed_host_ids: frozenset[str] | None = None
    blocked_host_ids: frozenset[str] | None = None

    @classmethod
    def of(
        cls, allowed_host_ids: Collection[str] | None = None, blocked_host_ids: Collection[str] | None = None
    ) -> AllowedAndBlockedHosts:
        """Make one of any collections; empty ones restrict nothing."""
        return cls(frozenset(allowed_host_ids or ()) or None, frozenset(blocked_host_ids or ()) or None)

    def permitted(self, hosts: tuple[HostInfo, ...]) -> tuple[HostInfo, ...]:
        """Return the hosts that connections may go to."""
        if self.allowed_host_ids is None and self.blocked_host_ids is None:
            return hosts
        return tuple(
            host
            for host in hosts
            if (self.allowed_host_ids is None or host.host_id in self.allowed_host_ids)
            and (self.blocked_host_ids is None or host.host_id not in self.blocked_host_ids)
        )


_UNRESTRICTED = AllowedAndBlockedHosts()


class Restrictions:
    """The restrictions of a process by original URL. Replaced as a whole, so that readers need no lock."""

    def __init__(self) -> None:
        self._entries: Mapping[str, tuple[AllowedAndBlockedHosts, float]] = MappingProxyType({})

    def get(self, url: str) -> AllowedAndBlockedHosts:
        """Return what restricts connections made to `url`."""
        value, set_at = self._entries.get(url, (_UNRESTRICTED, 0.0))
        return value if value is _UNRESTRICTED or time.monotonic() - set_at < _RESTRICTION_LIFE else _UNRESTRICTED

    def permitted(self, url: str, hosts: tuple[HostInfo, ...]) -> tuple[HostInfo, ...]:
        """Return the hosts that connections made to `url` may go to."""
        return self.get(url).permitted(hosts) if self._entries else hosts

    def set(self, url: str, value: AllowedAndBlockedHosts | None) -> None:
        """Restrict connections made to `url`, for five minutes; None lifts it."""
        others = {key: entry for key, entry in self._entries.items() if key != url}
        self._entries = others if value is None else {**others, url: (value, time.monotonic())}


restrictions = Restrictions()
