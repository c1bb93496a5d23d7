"""A plugin that overrides `connect` alone: every connection tells the database which host and process it serves."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from wrapper import HostInfo, Plugin, register_plugin


class ApplicationNamePlugin(Plugin):
    """Sets `application_name`, unless the user has."""

    @property
    def subscribed_methods(self) -> set[str]:
        return {"connect"}

    def connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: Any,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Any:
        props.setdefault("application_name", f"{socket.gethostname()}:{os.getpid()}")
        return connect_func()


class ApplicationNamePluginFactory:
    @staticmethod
    def get_instance(plugin_service: Any, props: Mapping[str, Any]) -> Plugin:
        return ApplicationNamePlugin()


register_plugin("application_name", ApplicationNamePluginFactory)
