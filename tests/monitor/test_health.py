"""One host: what each fault becomes as evidence."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from monitor_service.cadence import SHORTEST, login_backoff
from wrapper.decisions.verdict import Sensitivity, is_down
from wrapper.monitor.messages import NeedCredentials
from wrapper.monitor.state import ANSWERED, REFUSED, SILENT, Topology, TopologyHost

from .harness import MonitorProcess, Worker, login
from .servers import Server, eventually


@pytest.fixture(params=["server", "mysql_server"], ids=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


def watched(worker: Worker, server: Server, **changes: object) -> str:
    topic = worker.watch(server, **changes)
    worker.until(lambda: worker.writer(topic), "the first proof")
    return topic


def test_a_watch_is_published_with_a_proof(worker: Worker, server: Server) -> None:
    topic = watched(worker, server)
    cluster = worker.cluster(topic)
    assert cluster.topology.writer == server.key
    assert cluster.topology.term == 1
    assert cluster.writer_proved_at is not None
    assert cluster.watches == (f"{server.engine}://{server.key}/",)
    assert worker.health(topic, server).address == server.endpoint
    # That of the test before may be about to end; and a busy machine may make the monitor open another one.
    eventually(lambda: server.sessions() == 1, "one session")


def test_a_calm_host_costs_no_messages(worker: Worker, server: Server) -> None:
    topic = watched(worker, server, interval=0.2)

    def probes() -> int:
        return int(worker.status()["clusters"][0]["hosts"][0]["probes"])

    def is_calm() -> bool:
        # On a busy machine a probe may fail in between, which is news.
        before, first = len(worker.updates), probes()
        worker.until(lambda: probes() >= first + 4 or len(worker.updates) > before, "four probes")
        return len(worker.updates) == before

    worker.until(is_calm, "four answered probes without a message", timeout=60)
    published = worker.health(topic, server).proved_at
    assert published is not None
    watches = worker.cluster(topic).watches
    worker.until(
        lambda: (worker.snapshot(*watches).clusters[0].health[server.key].proved_at or 0) > published, "the snapshot to know better"
    )


def test_a_killed_server_is_known_at_once_without_any_hint(worker: Worker, server: Server) -> None:
    # The interval is so long that only the closed session can have told.
    topic = watched(worker, server, interval=30.0)
    server.kill()
    worker.until(lambda: worker.health(topic, server).kind == REFUSED, "the refusal")
    assert not worker.health(topic, server).accepting
    server.start()
    worker.until(lambda: worker.health(topic, server).kind == ANSWERED, "the restarted server")

    def takes_writes() -> bool:
        worker.report(topic, server)  # a MySQL server takes none when it begins to answer
        return worker.writer(topic) == server.key

    worker.until(takes_writes, "its word that it takes writes")


@pytest.mark.parametrize("interval", [1.0, 0.1])
def test_a_hung_server_is_silent_within_the_bound(worker: Worker, server: Server, interval: float) -> None:
    topic = watched(worker, server, interval=interval)
    sensitivity = Sensitivity(interval, 3)
    bound = (sensitivity.count + 1) * interval + 0.1

    def is_within_the_bound() -> bool:
        hung_at = time.monotonic()
        server.hang()
        worker.until(lambda: is_down(worker.health(topic, server), sensitivity), "three silent probes")
        evidence = worker.health(topic, server)
        server.resume()
        worker.until(lambda: not worker.health(topic, server).is_failing, "the resumed server")
        assert evidence.failing_since is not None
        assert evidence.failed_at is not None
        assert evidence.last_answer is not None
        return hung_at - 0.6 * interval <= evidence.failing_since and evidence.failed_at - hung_at <= bound

    # What a busy machine adds is not the monitor's: a bound that it does not keep is never kept.
    worker.until(is_within_the_bound, f"silence to be known within {bound:g} s", timeout=60)


def test_a_dropped_session_is_no_failure(worker: Worker, server: Server) -> None:
    topic = watched(worker, server, interval=30.0)
    proved_at = worker.health(topic, server).proved_at
    assert proved_at is not None
    server.drop_sessions()
    eventually(lambda: server.sessions() == 1, "a new session")
    worker.follow(0.2)
    assert all(not update.health.is_failing for _, update in worker.updates if type(update).__name__ == "HealthUpdate"), (
        worker.journal
    )


def test_a_report_brings_a_proof_younger_than_the_report(worker: Worker, server: Server) -> None:
    topic = watched(worker, server, interval=30.0)
    for _ in range(3):
        worker.until_proved_since_report(topic, server)


def test_a_late_report_is_dropped(worker: Worker, server: Server) -> None:
    topic = watched(worker, server, interval=30.0)
    worker.report(topic, server, at=time.monotonic() - 5)
    assert worker.status()["counters"]["stale hints"] == 1


def test_a_burst_of_reports_is_few_probes(worker: Worker, server: Server) -> None:
    topic = watched(worker, server, interval=30.0)
    began = time.monotonic()
    before = worker.status()["clusters"][0]["hosts"][0]["probes"]
    for _ in range(500):
        worker.report(topic, server)
        time.sleep(0.001)  # a burst that lasts longer than a probe
    worker.until_proved_since_report(topic, server)
    probes = worker.status()["clusters"][0]["hosts"][0]["probes"] - before
    assert 1 <= probes <= 2 + (time.monotonic() - began) / SHORTEST


def test_a_login_error_is_an_answer_and_clients_are_asked(worker: Worker, server: Server) -> None:
    topic = worker.watch(server, offer=login(server, "hush hush"))
    worker.until(lambda: worker.health(topic, server).kind == ANSWERED, "an answer")
    health = worker.health(topic, server)
    assert not health.accepting
    assert not health.is_failing
    worker.renew()
    asked = [message for message in worker.unasked if isinstance(message, NeedCredentials)]
    assert asked[0].watch in worker.cluster(topic).watches
    # At most one failing login per back-off step, however often the host is probed.
    worker.until(lambda: len(worker.events_named("LOGIN REFUSED")) >= 2, "the next try")
    first, second, *_ = worker.events_named("LOGIN REFUSED")
    assert second.at - first.at >= 0.9 * login_backoff(1)
    worker.watch(server)
    worker.until(lambda: worker.health(topic, server).accepting, "the login with the right password")
    assert "hush" not in str(worker.status())


def test_a_wrong_newer_offer_falls_back_to_the_older_right_one(
    new_worker: Callable[[], Worker], server: Server, monitor: MonitorProcess
) -> None:
    right, wrong = new_worker(), new_worker()
    topic = watched(right, server)
    wrong.watch(server, offer=login(server, "hush hush"))
    right.until(lambda: right.cluster(topic).clients == 2, "both workers to be known")
    server.drop_sessions()
    right.until(lambda: right.events_named("LOGIN REFUSED"), "the wrong offer to be tried")
    eventually(lambda: server.sessions() == 1, "the login with the older offer")
    right.until(lambda: right.health(topic, server).accepting, "the proof")
    log = monitor.log.read_text()
    assert "hush" not in log


def test_too_many_connections_is_an_answer_but_no_candidate(worker: Worker, server: Server) -> None:
    server.lab.too_many_connections(server.id)
    topic = worker.watch(server)
    worker.until(lambda: worker.health(topic, server).kind == ANSWERED, "an answer")
    health = worker.health(topic, server)
    assert not health.accepting
    assert "too many" in health.detail.lower() or "remaining connection slots" in health.detail
    worker.follow(0.3)
    assert worker.events_named("LOGIN REFUSED") == []


def test_a_server_that_answers_but_takes_no_logins_is_alive(worker: Worker, server: Server) -> None:
    # So patient that a busy machine cannot make the server look silent: a session given up now would be the last.
    topic = watched(worker, server, interval=10.0)
    if server.engine == "mysql":
        server.lab.too_many_connections(server.id)  # one process: half of it cannot hang
    else:
        server.lab.hang(server.id, postmaster_only=True)
    at = time.monotonic()
    worker.report(topic, server)
    worker.until(lambda: (worker.health(topic, server).proved_at or 0) > at, "a proof from the session that is open")
    assert worker.events_named("SILENT") == []
    server.lab.reset()


def test_a_name_that_does_not_resolve_is_our_trouble(worker: Worker, server: Server) -> None:
    seed = Topology(hosts=(TopologyHost("no-such-host.invalid", server.port),))
    topic = worker.watch(server, seed=seed, endpoint="no-such-host.invalid")
    key = f"no-such-host.invalid:{server.port}"
    worker.until(lambda: "name look-up" in worker.cluster(topic).health[key].detail, "the reason to be told")
    assert not worker.cluster(topic).health[key].is_failing
    assert worker.status()["clusters"][0]["hosts"][0]["evidence"].startswith("no news: name look-up")


@pytest.mark.parametrize("hung", [False, True])
def test_a_stopped_monitor_blames_nobody(monitor: MonitorProcess, worker: Worker, server: Server, hung: bool) -> None:
    # Healthy: so patient that a busy machine cannot make the server look silent.
    topic = watched(worker, server, interval=0.1 if hung else 2.0)
    monitor.pause()
    if hung:
        server.hang()
    time.sleep(2.0)  # the pause itself is what is being tested
    before = time.monotonic()
    monitor.resume()
    worker.until(lambda: worker.events_named("PAUSED"), "the monitor to notice its pause")
    if hung:
        worker.until(lambda: is_down(worker.health(topic, server), Sensitivity(0.1, 3)), "evidence collected after the pause")
        assert (worker.health(topic, server).failing_since or 0) >= before
        server.resume()
    else:
        worker.report(topic, server)
        worker.follow(0.5)
        silent = [u for _, u in worker.updates if type(u).__name__ == "HealthUpdate" and u.health.kind == SILENT]
        assert silent == []
    worker.until(lambda: worker.health(topic, server).kind == ANSWERED, "an answer")


class LoginsOnly:
    """Stands before a PostgreSQL server and lets everything through; when `is_deaf`, nothing that comes after a login."""

    # ReadyForQuery, idle: the last of what a server says to a login.
    _LOGGED_IN = b"Z\0\0\0\5I"

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.is_deaf = False
        self.logins = 0
        self._open: list[socket.socket] = []
        self._start(self._accept)

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                self._open += [client, server]
                self._start(self._pump, client, server, False)
                self._start(self._pump, server, client, True)

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        logged_in = False
        with suppress(OSError):
            while data := source.recv(65536):
                if not (answers and logged_in and self.is_deaf):
                    sink.sendall(data)
                if answers and not logged_in and data.endswith(self._LOGGED_IN):
                    logged_in = True
                    self.logins += 1
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@pytest.mark.parametrize("server", ["server"], indirect=True, ids=["postgresql"])
def test_a_server_that_takes_logins_but_answers_nothing_is_silent(worker: Worker, server: Server) -> None:
    relay = LoginsOnly(server.lab.writer.address, server.port)
    try:
        shown = replace(server, endpoint="127.0.0.1", port=relay.port)
        topic = worker.watch(shown, interval=0.1)
        worker.until(lambda: worker.health(topic, shown).proved_at, "the first proof")
        relay.is_deaf = True
        worker.until(lambda: worker.health(topic, shown).silent >= 3, "the silence")
        before = relay.logins
        worker.until(lambda: relay.logins > before, "more logins, which prove nothing")
        assert worker.health(topic, shown).is_failing
        relay.is_deaf = False
        worker.until(lambda: not worker.health(topic, shown).is_failing, "the answer")
    finally:
        relay.close()
