"""How to get a session, per engine. The modules are imported off the loop: importing psycopg takes longer than a probe may."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from types import ModuleType
from typing import TYPE_CHECKING

from monitor_service.sessions import Door, ProbeError
from wrapper.monitor.state import OURS

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
        """Return the way to the server called `host` at `address`. Raises `ProbeError` when what it takes cannot be loaded."""
        try:
            module = await asyncio.shield(self._load(engine))
        except (ImportError, OSError, MemoryError, RuntimeError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ProbeError(OURS, f"the {engine} driver cannot be loaded: {reason}") from error
        door: Door = module.Door(host, address, port, guard)
        return door

    def _load(self, engine: str) -> asyncio.Future[ModuleType]:
        loading = self._loading.get(engine)
        # What failed for want of memory or descriptors may succeed later.
        if loading is None or (loading.done() and (loading.cancelled() or loading.exception() is not None)):
            loading = asyncio.get_running_loop().run_in_executor(None, importlib.import_module, _MODULES[engine])
            self._loading[engine] = loading
            loading.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever asks for it gets it
        return loading
