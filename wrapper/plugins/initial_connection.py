"""`initial_connection`: a connect to a cluster's endpoint ends on an instance that has the role which the endpoint stands for.

Where the cluster is known, the instance takes the endpoint's place; where it is not, the endpoint's name decides, and the
connection itself tells who the cluster is. Either way the host has to confirm its role. Other endpoints are connected to as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from typing import TYPE_CHECKING, Any

from wrapper.decisions.opening import Aim, Choices, aim_of, candidates
from wrapper.drivers.base import DriverDialect
from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostInfo, HostRole
from wrapper.plugin import CONNECTS, NO_METHODS, Plugin
from wrapper.plugins.opening import Opener
from wrapper.settings import Settings
from wrapper.urls import EndpointKind, parse_endpoint

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

# Opens a connection to an instance.
_To = Callable[[HostInfo], Any]


@cache
def _choices(kind: EndpointKind, *chosen: Any) -> Choices:
    """Return what the user chose for an endpoint of a kind, once for all connections that are made alike."""
    choices = Choices(*chosen)
    choices.check(kind)
    return choices


class InitialConnectionPlugin(Plugin):
    """Chooses and verifies where the connections of one wrapper connection lead."""

    def __init__(self, service: PluginService, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._choices = _choices(
            service.known_cluster.endpoint_kind,
            settings["endpoint_substitution_role"],
            settings["verify_opened_connection_type"],
            settings["inactive_cluster_writer_endpoint_substitution_role"],
            settings["verify_inactive_cluster_writer_endpoint_connection_type"],
        )
        self._strategy: str = settings["initial_connection_host_selector_strategy"]
        self._opener = Opener(service, self._strategy)

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        return CONNECTS if self._service.watch is not None else NO_METHODS

    def connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Any:
        def to(host: HostInfo) -> Any:
            return self._service.connect(host, dict(props), plugin_to_skip=self)

        return self._open(host_info, is_initial_connection, connect_func, to)

    def force_connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        force_connect_func: Callable[[], Any],
    ) -> Any:
        def to(host: HostInfo) -> Any:
            return self._service.force_connect(host, dict(props), plugin_to_skip=self)

        return self._open(host_info, is_initial_connection, force_connect_func, to)

    def _open(self, host_info: HostInfo, is_initial: bool, by_name: Callable[[], Any], to: _To) -> Any:
        endpoint = parse_endpoint(host_info.host)
        known = self._service.hosts
        aim = aim_of(endpoint, self._choices, known, is_initial=is_initial)
        if aim.substitute is None and aim.verify is None:
            return by_name()
        if aim.substitute not in (HostRole.READER, HostRole.UNKNOWN):
            return self._opener.open(host_info, aim, known, by_name, to)
        self._require_strategy(aim.substitute)
        was_unknown = not candidates(aim, endpoint.region, known)
        connection = self._opener.open(host_info, aim, known, by_name, to)
        patience = self._settings.seconds("wait_for_initial_topology_ms")
        if was_unknown and patience:
            return self._chosen_again(connection, aim, endpoint.region, to, patience)
        return connection

    def _require_strategy(self, role: HostRole) -> None:
        if not self._service.accepts_strategy(role, self._strategy):
            raise AwsWrapperError(
                f"initial_connection_host_selector_strategy={self._strategy!r} needs a plugin that this connection lacks"
            )

    def _chosen_again(self, first: Any, aim: Aim, region: str | None, to: _To, patience: float) -> Any:
        """The first connection of a process, which went where the name led: exchange it for one to an instance of our choice."""
        service = self._service
        if not candidates(aim, region, service.hosts):
            service.force_monitoring_refresh_host_list(True, patience)
        found = candidates(aim, region, service.hosts)
        assert aim.substitute is not None
        chosen = service.get_host_info_by_strategy(aim.substitute, self._strategy, found) if found else None
        physical = service.physical(first)
        if chosen is None or physical is None or chosen.key == physical.host_info.key:
            return first
        try:
            second = to(chosen)
            self._opener.check(second, aim)
        except Exception:  # noqa: BLE001  what we have is as good
            return first
        service.connections.release(first)
        return second


class InitialConnectionPluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        assert isinstance(props, Settings)
        return InitialConnectionPlugin(plugin_service, props)
