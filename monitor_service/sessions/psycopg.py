"""Probe sessions over psycopg's asyncio connections (imported when the first one is opened)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from monitor_service.loop_guard import Deadline, LoopGuard, bounded
from monitor_service.sessions import APPLICATION_NAME, ProbeError
from monitor_service.sessions.preflight import preflight
from wrapper.drivers.classify import ErrorKind
from wrapper.drivers.psycopg_errors import classify
from wrapper.monitor.state import ANSWERED, REFUSED, SILENT

# Milliseconds; the server's own limit, for a question whose asker is gone.
STATEMENT_TIMEOUT = 5000

# Steer host choice or session behaviour: an application's wishes, not a probe's.
_NOT_INHERITED = frozenset(
    {
        "host",
        "hostaddr",
        "port",
        "service",
        "options",
        "target_session_attrs",
        "load_balance_hosts",
        "application_name",
        "fallback_application_name",
        "connect_timeout",
        "replication",
        "tcp_user_timeout",
    }
)
_KINDS_OF_ANSWER = {
    ErrorKind.LOGIN,
    ErrorKind.BUSY,
    ErrorKind.STARTING,
    ErrorKind.PRIVILEGE,
    ErrorKind.READ_ONLY,
}
# libpq on a server that has spoken, but no PostgreSQL.
_NONSENSE = (
    "received invalid",
    "expected authentication request",
    "unexpected response from server",
    "lost synchronization with server",
)


def connection_parameters(offer: Mapping[str, Any], host: str, address: str, port: int) -> dict[str, Any]:
    """Return what psycopg is given for a probe session: the offer's login values, our addressing and our keepalives."""
    inherited = {name: value for name, value in offer.items() if name not in _NOT_INHERITED}
    return {
        # Negotiating GSSAPI costs a round trip that nobody asked for.
        "gssencmode": "disable",
        **inherited,
        "host": host,
        "hostaddr": address,
        "port": port,
        "application_name": APPLICATION_NAME,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
    }


class Door:
    """The way to a session: a connection that only knocks, then one that logs in."""

    def __init__(self, host: str, address: str, port: int, guard: LoopGuard) -> None:
        self._host = host
        self._address = address
        self._port = port
        self._guard = guard

    async def knock(self, timeout: float) -> None:
        await preflight(self._address, self._port, timeout, self._guard)

    async def log_in(self, offer: Mapping[str, Any], timeout: float) -> ProbeSession:
        return await ProbeSession.open(offer, self._host, self._address, self._port, timeout=timeout, guard=self._guard)

    def close(self) -> None:
        """Nothing was kept."""


class ProbeSession:
    """One autocommit session that is asked one question at a time. After any `ProbeError` it must be closed."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[Any, ...]], guard: LoopGuard, address: str) -> None:
        self.address = address
        self._connection = connection
        self._guard = guard
        # A dup: libpq may close its descriptor inside any call, and the number is then somebody else's.
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._watching = False
        self._is_limited = False

    @classmethod
    async def open(
        cls, offer: Mapping[str, Any], host: str, address: str, port: int, *, timeout: float, guard: LoopGuard
    ) -> ProbeSession:
        """Log in. Raises `ProbeError`; a server that does not finish the login within `timeout` seconds is `silent`."""
        parameters = connection_parameters(offer, host, address, port)
        connecting = psycopg.AsyncConnection.connect(autocommit=True, prepare_threshold=None, **parameters)
        try:
            # Cancelling is safe here and only here: there is no session yet whose answer could be waited for.
            connection = await bounded(guard, timeout, connecting)
        except TimeoutError:
            raise ProbeError(SILENT, f"login unanswered for {timeout:g} s") from None
        except psycopg.Error as error:
            raise _probe_error(error) from None
        return cls(connection, guard, address)

    async def ask(self, query: str, timeout: float) -> list[tuple[Any, ...]]:
        """Return the rows. Raises `ProbeError`; silence is ended by shutting the socket, never by cancelling the call."""
        self._unwatch()
        if self._is_cut():
            raise ProbeError(REFUSED, "the session was cut off", ErrorKind.NETWORK)
        deadline = Deadline(self._guard, timeout, self.shut)
        try:
            if not self._is_limited:
                # Part of the first question: a server that lets us in and answers nothing is silent, not busy.
                await self._connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT}")
                self._is_limited = True
            cursor = await self._connection.execute(query.encode())
            return await cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            if deadline.expired:
                raise ProbeError(SILENT, f"no byte within {timeout:g} s") from None
            raise _probe_error(error) from None
        finally:
            deadline.cancel()

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the idle session hears something: the server has closed it or has something to say."""

        def heard() -> None:
            self._unwatch()
            callback()

        asyncio.get_running_loop().add_reader(self._socket.fileno(), heard)
        self._watching = True

    def _is_cut(self) -> bool:
        """Whether the connection has ended without a word of the server. libpq finds that out as well, ten times as slowly."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _unwatch(self) -> None:
        if self._watching:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._watching = False

    def shut(self) -> None:
        """End a running question at once; it raises. The session is then of no more use."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more: what was wanted

    def close(self) -> None:
        """Give the session up; nothing may be running on it. Does not wait for the server."""
        self._unwatch()
        self._connection.pgconn.finish()
        self._socket.close()


def _probe_error(error: psycopg.Error) -> ProbeError:
    kind = classify(error)
    text = str(error)
    detail = (text.strip().splitlines() or [type(error).__name__])[0][:200]
    if any(part in text for part in _NONSENSE):
        return ProbeError(ANSWERED, detail)
    # With a SQLSTATE the server has spoken, even if only to end the session.
    answered = kind in _KINDS_OF_ANSWER or (kind is ErrorKind.OTHER and error.sqlstate is not None)
    return ProbeError(ANSWERED if answered else REFUSED, detail, kind)
