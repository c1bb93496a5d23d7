"""`aurora_connection_tracker`: ends the connections of this process to a writer that another host has replaced.

Every open connection has a handle already (`wrapper.monitor.handles`), in a pool too; this plugin marks its own. The client thread
shuts the sockets of marked ones down that are idle, as soon as the monitor has published another writer; one that is busy ends when
its call does. What happens here covers a process that finds out by itself, and the call that is faster than the client thread. The
owner of a connection notices at the next use, on its own thread. Nothing is added to a call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from wrapper.drivers.base import DriverDialect
from wrapper.hosts import HostInfo
from wrapper.monitor.handles import Handle, ends_now, is_superseded
from wrapper.monitor.state import ClusterState
from wrapper.plugin import (
    CONNECTS,
    NOTIFY_CONNECTION_CHANGED,
    ConnectionEvent,
    EveryConnectPlugin,
    OldConnectionSuggestedAction,
    Plugin,
)

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

logger = logging.getLogger(__name__)

_METHODS = CONNECTS | {NOTIFY_CONNECTION_CHANGED}


class AuroraConnectionTrackerPlugin(EveryConnectPlugin):
    """Marks the connections of one wrapper connection as worth nothing without their writer."""

    reads_shared_state = True

    def __init__(self, service: PluginService) -> None:
        self._service = service

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        return _METHODS

    def connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Any:
        connection = connect_func()
        physical = self._service.physical(connection)
        if physical is not None and physical.handle is not None:
            physical.handle.ends_with_writer = True
        return connection

    def shared_state_changed(self) -> None:
        """Before a call: end the connection that it would use, if it is time. A failover plugin further in moves it then, and
        nothing is sent."""
        physical = self._service.physical(self._service.current_connection)
        handle = None if physical is None else physical.handle
        cluster = self._service.cluster
        if handle is not None and cluster is not None and is_superseded(handle, cluster) and not handle.in_use():
            _end(handle, cluster)

    def notify_connection_changed(self, changes: set[ConnectionEvent]) -> OldConnectionSuggestedAction:
        """After a failover: end the others too, which may be idle for a long time."""
        cluster = self._service.cluster if ConnectionEvent.CONNECTION_OBJECT_CHANGED in changes else None
        if cluster is not None:
            for handle in self._service.client.handles():
                if ends_now(handle, cluster):
                    _end(handle, cluster)
        return OldConnectionSuggestedAction.NO_OPINION


def _end(handle: Handle, cluster: ClusterState) -> None:
    evidence = cluster.health.get(handle.key)
    if evidence is not None and handle.ends_with_writer and handle.is_open and handle.aborted_by is None:
        logger.info("ending a connection to %s: the writer is %s now", handle.key, cluster.topology.writer)
        handle.give_up(evidence)


class AuroraConnectionTrackerPluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        return AuroraConnectionTrackerPlugin(plugin_service)
