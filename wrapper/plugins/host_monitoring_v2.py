"""`host_monitoring_v2`: ends connections to hosts that went silent.

The shared monitor asks every host continuously; this plugin tells the client thread how its connections want the evidence judged.
Nothing is added to a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from wrapper.decisions.verdict import Sensitivity
from wrapper.drivers.base import DriverDialect
from wrapper.hosts import HostInfo
from wrapper.plugin import CONNECTS, NO_METHODS, EveryConnectPlugin, Plugin, with_names
from wrapper.settings import Settings

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

# Connections that are made alike share one.
_sensitivity = lru_cache(maxsize=64)(Sensitivity)


class HostMonitoringV2Plugin(EveryConnectPlugin):
    """Marks every connection it sees opening with the connection's own interval and count."""

    # For the sake of a fork: a child's first call makes its own client.
    reads_shared_state = True

    def __init__(self, service: PluginService, settings: Settings) -> None:
        self._service = service
        self._sensitivity = _sensitivity(settings.seconds("failure_detection_interval_ms"), settings["failure_detection_count"])
        self._enabled = settings["failure_detection_enabled"]

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        methods = self._service.driver_dialect.network_bound_methods
        return with_names(methods, *CONNECTS) if self._enabled else NO_METHODS

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
            physical.handle.sensitivity = self._sensitivity
        return connection

    def bind(self, method_name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return call


class HostMonitoringV2PluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        assert isinstance(props, Settings)
        return HostMonitoringV2Plugin(plugin_service, props)
