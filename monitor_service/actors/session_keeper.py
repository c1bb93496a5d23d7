"""One session to one host, opened when it is needed and thrown away at the first trouble: what both actors share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from monitor_service.cadence import CONNECT_PAUSE
from monitor_service.process import lacks_descriptors
from monitor_service.resolver import ResolveError
from monitor_service.sessions import Door, ProbeError, Session
from wrapper.drivers.classify import ErrorKind
from wrapper.monitor.state import ANSWERED, OURS, REFUSED, SILENT

if TYPE_CHECKING:
    from monitor_service.cluster import Cluster


class SessionKeeper:
    """Holds at most one session to `host`."""

    def __init__(self, cluster: Cluster, key: str, host: str, port: int) -> None:
        self._cluster = cluster
        self._services = cluster.services
        self._key = key
        self._host = host
        self._port = port
        self._session: Session | None = None
        self._next_connect = 0.0
        self.address: str | None = None
        self.asked_at = 0.0  # when the last question was sent
        self.is_shut = False

    @property
    def has_session(self) -> bool:
        return self._session is not None

    async def ask(self, query: str, timeout: float) -> list[tuple[Any, ...]]:
        """Return the rows of `query`, on the session at hand or else on a new one. Raises `ProbeError`.

        A session that the server has dropped says nothing of the server, so its question is asked again on a new one. Silence is
        final: the next call starts with a new session.
        """
        if self._session is not None and self._services.resolver.has_moved(self._host, self._session.address):
            self.drop()
        if self._session is not None:
            try:
                return await self._ask(query, timeout)
            except ProbeError as error:
                if error.kind != REFUSED or self.is_shut:
                    raise
        await self._open(timeout)
        return await self._ask(query, timeout)

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back once when the idle session is closed by the server."""
        if self._session is not None:
            self._session.watch(callback)

    def drop(self) -> None:
        """Throw the session away; no question may be running."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def shut(self) -> None:
        """End a running question for good: it is not asked again, on any session."""
        self.is_shut = True
        if self._session is not None:
            self._session.shut()

    async def _ask(self, query: str, timeout: float) -> list[tuple[Any, ...]]:
        assert self._session is not None
        self.asked_at = monotonic()
        try:
            return await self._session.ask(query, timeout)
        except ProbeError as error:
            # A missing right is no fault of the session.
            if error.error is not ErrorKind.PRIVILEGE:
                self.drop()
            raise

    async def _open(self, timeout: float) -> None:
        wait = self._next_connect - monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        settings = self._cluster.settings
        self.asked_at = monotonic()
        if lacks_descriptors():
            raise ProbeError(OURS, "too many open files: those that are left are for workers")
        self._next_connect = self.asked_at + CONNECT_PAUSE
        try:
            self.address = await self._services.resolver.resolve(self._host, settings.connect_timeout)
        except ResolveError as error:
            raise ProbeError(OURS, str(error)) from error
        engine = self._cluster.dialect.engine
        door = await self._services.drivers.door(engine, self._host, self.address, self._port, self._services.guard)
        self.asked_at = monotonic()
        try:
            await door.knock(timeout)
            while not await self._log_in(door, settings.connect_timeout):
                pass
        except ProbeError as error:
            if error.kind == SILENT:
                self._next_connect = 0.0  # its own time-out was the pause
            raise
        finally:
            door.close()

    async def _log_in(self, door: Door, timeout: float) -> bool:
        """Open the session with the next offer; False when that was refused and another one is left. Raises `ProbeError`."""
        logins = self._cluster.logins
        picked = await logins.pick(self._key, timeout)
        if picked is None:
            raise ProbeError(ANSWERED, "no login to try now", ErrorKind.LOGIN)
        fingerprint, offer = picked
        decided = False
        try:
            self._session = await door.log_in(offer.parameters, timeout)
            decided = True
            logins.accepted(fingerprint, self._key)
        except ProbeError as error:
            if error.error is ErrorKind.LOGIN:
                decided = True
                if logins.refused(fingerprint, self._key, error, self._cluster.outage()):
                    await asyncio.sleep(CONNECT_PAUSE)
                    return False
            if error.kind == SILENT:
                # It answered the knock: the host is there, it only does not let us in.
                raise ProbeError(ANSWERED, error.detail, ErrorKind.BUSY) from error
            raise
        finally:
            if not decided:
                logins.undecided(fingerprint, self._key)
        return True
