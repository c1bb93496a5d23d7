"""`connect_time` and `execute_time`: how long connecting and calling took, in this process.

The figures are those of everything below the plugin in the chain: put the code where you want to measure. Failed calls count too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, ClassVar

from wrapper.drivers.base import DriverDialect
from wrapper.hosts import HostInfo
from wrapper.plugin import CONNECTS, EVERYTHING, Call, EveryConnectPlugin, Plugin

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

logger = logging.getLogger(__name__)


class ConnectTimePlugin(EveryConnectPlugin):
    """Adds up the nanoseconds of all connects of this process in `ConnectTimePlugin.connect_time`."""

    connect_time: ClassVar[int] = 0

    @classmethod
    def reset_connect_time(cls) -> None:
        """Start again at zero."""
        cls.connect_time = 0

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        return CONNECTS

    def connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Any:
        started = time.perf_counter_ns()
        try:
            return connect_func()
        finally:
            elapsed = time.perf_counter_ns() - started
            ConnectTimePlugin.connect_time += elapsed
            logger.debug("connected to %s in %.3f ms", host_info, elapsed / 1e6)


class ExecuteTimePlugin(Plugin):
    """Adds up the nanoseconds of all routed calls of this process in `ExecuteTimePlugin.execute_time`."""

    execute_time: ClassVar[int] = 0

    @classmethod
    def reset_execute_time(cls) -> None:
        """Start again at zero."""
        cls.execute_time = 0

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        return EVERYTHING

    def bind(self, method_name: str, call: Call) -> Call:
        clock = time.perf_counter_ns

        def timed(target: Any, /, *args: Any, **kwargs: Any) -> Any:
            started = clock()
            try:
                return call(target, *args, **kwargs)
            finally:
                elapsed = clock() - started
                ExecuteTimePlugin.execute_time += elapsed
                logger.debug("%s took %.3f ms", method_name, elapsed / 1e6)

        return timed


class ConnectTimePluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        return ConnectTimePlugin()


class ExecuteTimePluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        return ExecuteTimePlugin()
