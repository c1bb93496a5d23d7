"""A plugin that measures `execute`: statements that take longer than a limit are kept, with their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from wrapper import Plugin, register_plugin


class SlowStatementsPlugin(Plugin):
    """Keeps the statements of this process that took longer than `limit` seconds, in `slow`."""

    limit: ClassVar[float] = 0.1
    slow: ClassVar[list[tuple[float, str]]] = []

    @property
    def subscribed_methods(self) -> set[str]:
        return {"Cursor.execute", "Cursor.executemany"}

    def execute(self, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return execute_func()
        finally:
            elapsed = time.perf_counter() - started
            if elapsed > self.limit:
                self.slow.append((elapsed, str(args[0] if args else kwargs.get("query"))))


class SlowStatementsPluginFactory:
    @staticmethod
    def get_instance(plugin_service: Any, props: Mapping[str, Any]) -> Plugin:
        return SlowStatementsPlugin()


register_plugin("slow_statements", SlowStatementsPluginFactory)
