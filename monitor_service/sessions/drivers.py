"""The drivers that probes can use, imported off the loop: importing psycopg takes longer than a probe may."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monitor_service.sessions.psycopg import ProbeSession

PSYCOPG = "psycopg"


def is_supported(driver: str) -> bool:
    """Whether this monitor can open sessions for a worker that uses `driver`."""
    return driver == PSYCOPG and importlib.util.find_spec(PSYCOPG) is not None


class Drivers:
    """Loads a driver once and hands out its session class."""

    def __init__(self) -> None:
        self._loading: asyncio.Future[object] | None = None

    def preload(self) -> None:
        """Start importing, so that the first probe need not wait for it."""
        if self._loading is None and is_supported(PSYCOPG):
            loop = asyncio.get_running_loop()
            self._loading = loop.run_in_executor(None, importlib.import_module, "monitor_service.sessions.psycopg")

    async def session_class(self) -> type[ProbeSession]:
        """Return the session class. Raises `ImportError` when the driver is not installed."""
        self.preload()
        if self._loading is not None:
            await asyncio.shield(self._loading)
        from monitor_service.sessions.psycopg import ProbeSession

        return ProbeSession
