"""The control socket: leases, shared actors, and requests nobody should send."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import msgspec
import pytest

from monitor_service.loop_guard import PAUSE
from wrapper.monitor.messages import (
    MAX_MESSAGE_BYTES,
    Client,
    Envelope,
    Ok,
    Refused,
    Release,
    Renew,
    Settings,
    UnknownLease,
    Unsupported,
    Watched,
    encode,
)
from wrapper.monitor.state import Topology, TopologyHost

from .harness import REPOSITORY, MonitorProcess, Worker, processor_time
from .servers import Server, eventually


def interval(worker: Worker) -> float:
    return float(worker.status()["clusters"][0]["settings"]["interval"])


def test_two_workers_share_one_session_and_the_tightest_interval(new_worker: Callable[[], Worker], server: Server) -> None:
    slow, quick = new_worker(), new_worker()
    topic = slow.watch(server, interval=2.0)
    slow.until(lambda: slow.writer(topic), "the first proof")
    assert quick.watch(server, interval=0.1) == topic
    eventually(lambda: interval(slow) == 0.1, "the tighter interval")
    # A machine so busy that a probe took too long makes the monitor take a new one.
    eventually(lambda: server.sessions() == 1, "one session")
    slow.until(lambda: slow.cluster(topic).clients == 2, "both clients to be counted")
    assert isinstance(quick.ask(Release(quick.client)), Ok)
    eventually(lambda: interval(slow) == 2.0, "the slower interval of the worker that is left")
    slow.until(lambda: slow.cluster(topic).clients == 1, "one client to be counted")


def test_connections_are_counted_over_all_workers(new_worker: Callable[[], Worker], server: Server) -> None:
    one, other = new_worker(), new_worker()
    topic = one.watch(server)
    other.watch(server)
    one.renew(**{server.key: 3})
    other.renew(**{server.key: 4})
    one.until(lambda: one.health(topic, server).connections == 7, "the sum of connections")


def test_a_renewal_without_a_lease_is_answered_so(worker: Worker) -> None:
    assert isinstance(worker.ask(Renew(Client(1, 2, "stranger"))), UnknownLease)


def test_the_lease_of_a_killed_worker_lapses(start_monitor: Callable[..., MonitorProcess], server: Server) -> None:
    monitor = start_monitor("--lease", "1.5", "--warm", "1")
    program = (
        "import sys, time; from pathlib import Path; from wrapper.monitor.paths import MonitorPaths\n"
        "from tests.monitor.harness import Worker; from tests.monitor.servers import Server\n"
        f"worker = Worker(MonitorPaths(Path({str(monitor.paths.directory)!r})))\n"
        f"worker.watch(Server(None, 'x', {server.endpoint!r}, {server.port}), offer=None)\n"
        "print('watching', flush=True)\n"
        "while True: worker.renew(); time.sleep(0.1)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=REPOSITORY)
    survivor = Worker(monitor.paths)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"watching\n"
        assert [lease["pid"] for lease in survivor.status()["leases"]] == [child.pid]
        child.send_signal(signal.SIGKILL)
        child.wait()
        survivor.until(lambda: survivor.events_named("LEASE LAPSED"), "the lease to lapse")
        survivor.until(lambda: survivor.events_named("FORGOTTEN"), "the deserted cluster to be forgotten")
        assert survivor.status()["leases"] == []
        eventually(lambda: server.sessions() == 0, "its session to be closed")
    finally:
        if child.poll() is None:
            child.kill()
        assert child.stdout is not None
        child.stdout.close()
        child.wait()
        survivor.close()


def test_garbage_on_either_socket_is_dropped_and_counted(monitor: MonitorProcess, worker: Worker, server: Server) -> None:
    topic = worker.watch(server)
    for damaged in (b"", b"\xc1", b"\xff" * 100, encode(Ok())[:-1] + b"\xc1", encode(Ok(), seq=3) + b"tail"):
        worker.control.send(damaged)
    worker.control.send_multipart([b"two", b"frames"])
    body = msgspec.Raw(msgspec.msgpack.encode({"client": "not a client", "offer": {"parameters": {"password": "secret"}}}))
    worker.control.send(msgspec.msgpack.encode(Envelope("watch", 0, "", 1, body)))
    # What is not even ZeroMQ's protocol.
    for path in (monitor.paths.control, monitor.paths.events):
        with socket.socket(socket.AF_UNIX) as raw:
            raw.connect(str(path))
            raw.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
    eventually(lambda: worker.status()["counters"].get("garbage", 0) >= 6, "the damaged requests to be counted")
    worker.until(lambda: worker.writer(topic), "the service to go on")
    assert "secret" not in monitor.log.read_text()


def test_a_message_that_is_too_large_ends_its_own_connection_only(worker: Worker, new_worker: Callable[[], Worker]) -> None:
    other = new_worker()
    other.control.send(b"x" * (MAX_MESSAGE_BYTES + 1))
    assert worker.status()["clusters"] == []


def test_an_unknown_kind_is_refused_by_name_and_counted(worker: Worker) -> None:
    worker._seq += 1
    worker.control.send(msgspec.msgpack.encode(Envelope("from the future", 0, "", worker._seq, msgspec.Raw(b"\x80"))))
    worker._seq -= 1
    answer = worker.ask(Release(worker.client))
    assert isinstance(answer, Refused)
    assert "from the future" in answer.reason
    assert worker.status()["counters"]["unknown kind"] == 1


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"dialect": "oracle"}, Unsupported, "dialect 'oracle'"),
        ({"driver": "pg8000"}, Unsupported, "driver 'pg8000'"),
        ({"settings": Settings(interval=0.0)}, Refused, "settings.interval=0.0"),
        ({"settings": Settings(interval=float("nan"))}, Refused, "settings.interval=nan"),
        ({"endpoint": "x" * 300}, Watched, ""),
    ],
)
def test_what_cannot_be_watched_is_answered_with_the_reason(
    worker: Worker, server: Server, changes: dict[str, object], kind: type[object], text: str
) -> None:
    answer = worker.ask(worker.request(server, **changes))
    assert isinstance(answer, kind)
    assert text in getattr(answer, "reason", "")


def test_the_number_of_watches_of_one_client_is_bounded(worker: Worker, server: Server) -> None:
    answers = [worker.ask(worker.request(server, endpoint=f"alias-{number}")) for number in range(66)]
    assert [isinstance(answer, Watched) for answer in answers] == [True] * 64 + [False] * 2
    assert len(worker.status()["clusters"]) == 1


def test_a_thousand_workers_at_once(monitor: MonitorProcess, worker: Worker, server: Server) -> None:
    topic = worker.watch(server)
    before = processor_time(monitor.pid)
    for number in range(1000):
        request = msgspec.structs.replace(worker.request(server), client=Client(number, 1, "many"))
        worker.control.send(encode(request, seq=0))
    worker.until(lambda: worker.cluster(topic).clients == 1001, "all clients to be counted")
    worker.until(lambda: worker.writer(topic), "the first proof")
    assert processor_time(monitor.pid) - before < PAUSE, "none of it can have stopped the loop for longer"
    eventually(lambda: server.sessions() == 1, "one session")


def test_one_cluster_id_with_two_proofs_is_two_clusters(worker: Worker, server: Server) -> None:
    nowhere = TopologyHost("127.255.0.1", server.port)
    first = worker.watch(server, cluster_id="mine")
    second = worker.watch(server, cluster_id="mine", endpoint="another", seed=Topology(hosts=(nowhere,)))
    assert first != second
    worker.until(lambda: worker.events_named("SPLIT"), "the split to be told")
    worker.until(lambda: worker.cluster(second).health[nowhere.key].kind == "refused", "the host that is not there")


def test_the_sockets_are_private(monitor: MonitorProcess) -> None:
    for path in (monitor.paths.control, monitor.paths.events):
        assert os.stat(path).st_mode & 0o777 == 0o600
