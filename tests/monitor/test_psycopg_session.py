"""One PostgreSQL session that its server, or the way to it, has ended while nothing was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from monitor_service.loop_guard import guarded_loop
from monitor_service.sessions import ProbeError
from monitor_service.sessions.psycopg import Door, ProbeSession
from wrapper.monitor.state import REFUSED
from wrapper.testing.fault_proxy import FaultProxy

from .harness import login
from .servers import Server

# Seconds: what a server that answers never needs.
AMPLE = 10.0


def _asked_after(server: Server, proxy: FaultProxy, end: Callable[[int], None]) -> ProbeError:
    """Open a session through the proxy, have `end` end it, given its backend, and ask; return what comes of that."""
    loop, guard = guarded_loop()

    async def play() -> ProbeError:
        session: ProbeSession = await Door("server.example", *proxy.address, guard).log_in(login(server).parameters, AMPLE)
        try:
            ((backend,),) = await session.ask("SELECT pg_backend_pid()", AMPLE)
            heard = asyncio.Event()
            session.watch(heard.set)
            end(backend)
            await asyncio.wait_for(heard.wait(), AMPLE)
            try:
                await session.ask("SELECT 1", AMPLE)
            except ProbeError as error:
                return error
            raise AssertionError("the ended session answered")
        finally:
            session.close()

    try:
        return loop.run_until_complete(play())
    finally:
        loop.close()


def test_a_session_that_was_cut_off_is_not_asked(server: Server) -> None:
    with FaultProxy((server.endpoint, server.port)) as proxy:
        error = _asked_after(server, proxy, lambda _: setattr(proxy, "mode", "reset"))
    assert (error.kind, error.detail) == (REFUSED, "the session was cut off")


def test_the_last_words_of_a_server_are_heard(server: Server) -> None:
    def end(backend: int) -> None:
        assert server.admin(f"SELECT pg_terminate_backend({backend})") == [(True,)]

    with FaultProxy((server.endpoint, server.port)) as proxy:
        error = _asked_after(server, proxy, end)
    assert "terminating connection" in error.detail
