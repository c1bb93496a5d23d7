"""How to get a session, per engine. The modules are imported off the loop: importing psycopg takes longer than a probe may."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

from monitor_service.sessions import Door

if TYPE_CHECKING:
    from monitor_service.loop_guard import LoopGuard

POSTGRESQL = "postgresql"
_MODULES = {POSTGRESQL: "monitor_service.sessions.psycopg", "mysql": "monitor_service.sessions.mysql"}
# A worker's driver says in whose words its login values are.
_ENGINES = {"psycopg": POSTGRESQL, "mysql-connector-python": "mysql"}


def is_supported(driver: str, engine: str) -> bool:
    """Whether this monitor can open sessions to `engine` for a worker that uses `driver`."""
    # Only PostgreSQL's sessions need a package that may be missing.
    return _ENGINES.get(driver) == engine and (engine != POSTGRESQL or importlib.util.find_spec("psycopg") is not None)


class Drivers:
    """Loads what an engine needs, once."""

    def __init__(self) -> None:
        self._loading: dict[str, asyncio.Future[ModuleType]] = {}

    def preload(self) -> None:
        """Start importing what takes long, so that the first probe need not wait for it."""
        if is_supported("psycopg", POSTGRESQL):
            self._load(POSTGRESQL)

    async def door(self, engine: str, host: str, address: str, port: int, guard: LoopGuard) -> Door:
        """Return the way to the server called `host` at `address`. Raises `ImportError` when a driver is not installed."""
        module = await asyncio.shield(self._load(engine))
        door: Door = module.Door(host, address, port, guard)
        return door

    def _load(self, engine: str) -> asyncio.Future[ModuleType]:
        if engine not in self._loading:
            loop = asyncio.get_running_loop()
            self._loading[engine] = loop.run_in_executor(None, importlib.import_module, _MODULES[engine])
        return self._loading[engine]
