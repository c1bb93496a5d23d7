"""`stale_dns`: a connect by the name of the writer does not end on a host that was the writer when the name was looked up.

After a failover the name of a cluster's endpoint may lead to the old writer for a while. Where the connection leads is seen from
its role, and from what is known of the writer; then the writer's own name is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from wrapper.decisions.opening import Aim
from wrapper.drivers.base import DriverDialect
from wrapper.hosts import HostInfo, HostRole
from wrapper.plugin import CONNECT, NO_METHODS, Plugin, with_names
from wrapper.plugins.opening import Opener, WrongRole
from wrapper.urls import parse_endpoint

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

logger = logging.getLogger(__name__)

_WRITER = Aim(substitute=HostRole.WRITER, verify=HostRole.WRITER)


class StaleDnsPlugin(Plugin):
    """Checks where the writer's name has led."""

    def __init__(self, service: PluginService) -> None:
        self._service = service
        self._opener = Opener(service, "random")

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        return with_names(NO_METHODS, CONNECT) if self._service.watch is not None else NO_METHODS

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
        if parse_endpoint(host_info.host).role is not HostRole.WRITER:
            return connection
        try:
            self._opener.check(connection, _WRITER)
            return connection
        except WrongRole as wrong:
            logger.info("%s leads to %s; looking for the writer", host_info.host, wrong.host)

        def to(host: HostInfo) -> Any:
            return self._service.connect(host, dict(props), plugin_to_skip=self)

        return self._opener.open(host_info, _WRITER, self._service.hosts, connect_func, to)


class StaleDnsPluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        return StaleDnsPlugin(plugin_service)
