"""A password that changes on the server while everything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from monitor_service.cadence import LOGIN_RETRY
from wrapper.monitor.messages import NeedCredentials, Offer
from wrapper.monitor.state import ANSWERED

from .harness import MonitorProcess, Worker, login
from .servers import Server, eventually

USER = "rolling"


@pytest.fixture(params=["server", "mysql_server"], ids=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def set_password(server: Server) -> Iterator[Callable[[str], None]]:
    """Changes the password of a user of the test's own."""
    identified = "PASSWORD" if server.engine == "postgresql" else "IDENTIFIED BY"
    server.admin(f"CREATE USER {USER} {identified} 'nobody knows'")
    yield lambda password: (server.admin(f"ALTER USER {USER} {identified} '{password}'"), None)[1]
    server.drop_sessions()
    server.admin(f"DROP USER {USER}")


def offer(server: Server, password: str) -> Offer:
    return Offer({**login(server).parameters, "user": USER, "password": password})


def test_the_monitor_takes_the_next_offer_and_locks_nobody_out(
    monitor: MonitorProcess, worker: Worker, server: Server, set_password: Callable[[str], None]
) -> None:
    set_password("hush first")
    # So patient that a busy machine cannot make the server look silent.
    topic = worker.watch(server, offer=offer(server, "hush first"), interval=3.0)
    worker.until(lambda: worker.health(topic, server).accepting, "a session")
    set_password("hush second")
    server.drop_sessions()
    # The first, another one when that makes the monitor search, and one more: only then there is a pause between two.
    worker.until(lambda: len(worker.events_named("LOGIN REFUSED")) >= 3, "the refusals", timeout=30)
    assert worker.health(topic, server).kind == ANSWERED
    assert not worker.health(topic, server).is_failing
    worker.renew()
    assert any(isinstance(message, NeedCredentials) for message in worker.unasked)
    worker.watch(server, offer=offer(server, "hush second"), interval=3.0)
    worker.until(lambda: worker.health(topic, server).accepting, "a session with the new password")
    # One failing login in each step of the back-off, however often the host is probed.
    for one, next_one in pairwise(worker.events_named("LOGIN REFUSED")[1:]):
        assert next_one.at - one.at >= 0.9 * LOGIN_RETRY
    eventually(lambda: server.sessions() == 1, "one session")
    assert "hush" not in monitor.log.read_text()
