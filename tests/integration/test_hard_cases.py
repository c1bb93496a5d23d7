"""Cases that a local cluster has to be able to play: trouble in unusual places, twice, or with only one of those who watch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import client, eventually
from tests.integration.test_failover import FAST, instance_of
from tests.integration.test_monitor_faults import monitor_status
from wrapper.pipeline import _REGISTRY
from wrapper.plugin import EveryConnectPlugin, Plugin
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
Lose = Callable[[], object]


# -- an error inside of everything ---------------------------------------------------------------------------------------------


def copy_in(connection: Any, lose: Lose) -> None:
    with connection.cursor().copy("COPY unfinished FROM STDIN") as copy:
        copy.write_row(("1",))
        lose()
        for _ in range(1000):
            copy.write_row(("x" * 1000,))


def copy_out(connection: Any, lose: Lose) -> None:
    with connection.cursor().copy("COPY (SELECT generate_series(1, 3000000)) TO STDOUT") as copy:
        for number, _ in enumerate(copy):
            if number == 0:
                lose()


def pipeline(connection: Any, lose: Lose) -> None:
    with connection.pipeline():
        connection.execute("INSERT INTO unfinished VALUES ('1')")
        lose()
        connection.execute("INSERT INTO unfinished VALUES ('2')")


def nested_transaction(connection: Any, lose: Lose) -> None:
    with connection.transaction():
        connection.execute("INSERT INTO unfinished VALUES ('1')")
        with connection.transaction():
            lose()
            connection.execute("INSERT INTO unfinished VALUES ('2')")


def server_cursor(connection: Any, lose: Lose) -> None:
    with connection.transaction(), connection.cursor("named") as cursor:
        cursor.execute("SELECT generate_series(1, 1000)")
        assert cursor.fetchone() == (1,)
        lose()
        cursor.fetchall()


def two_phases(connection: Any, lose: Lose) -> None:
    connection.autocommit = False
    connection.tpc_begin("gid")
    connection.execute("INSERT INTO unfinished VALUES ('1')")
    lose()
    connection.tpc_prepare()


def executemany(connection: Any, lose: Lose) -> None:
    with connection.transaction():
        cursor = connection.cursor()
        cursor.executemany("INSERT INTO unfinished VALUES (%s)", [("1",), ("2",)])
        lose()
        cursor.executemany("INSERT INTO unfinished VALUES (%s)", [("3",), ("4",)])


def notifies(connection: Any, lose: Lose) -> None:
    connection.execute("LISTEN news")
    lose()
    for _ in connection.notifies(timeout=20):
        pass


@pytest.mark.parametrize("use", [copy_in, copy_out, pipeline, nested_transaction, server_cursor, two_phases, executemany, notifies])
def test_a_session_that_is_lost_inside(watched: Connect, aurora: LocalAurora, use: Callable[[Any, Lose], None]) -> None:
    """The error is the driver's or ours, nothing of what was begun is there, and the connection works when all blocks are left."""
    with psycopg.connect(aurora.admin_dsn(aurora.writer.id), autocommit=True) as admin:
        admin.execute("CREATE TABLE IF NOT EXISTS unfinished (x text)")
        admin.execute("TRUNCATE unfinished")
        admin.execute("GRANT ALL ON unfinished TO public")
    connection = watched()
    with pytest.raises(psycopg.OperationalError):
        use(connection, lambda: aurora.drop_sessions("writer"))
    with suppress(wrapper.FailoverError):
        connection.execute("SELECT 1")
    assert connection.execute("SELECT count(*) FROM unfinished").fetchone() == (0,)
    assert instance_of(connection) == aurora.writer.id


# -- trouble during the failover itself ----------------------------------------------------------------------------------------

gate: list[Callable[[], object]] = []


class Gate(EveryConnectPlugin):
    """Does what is in `gate`, once, before a connection is opened."""

    @property
    def subscribed_methods(self) -> set[str]:
        return {"connect"}

    def connect(self, *arguments: Any) -> Any:
        if gate:
            gate.pop()()
        return arguments[-1]()


class GateFactory:
    @staticmethod
    def get_instance(plugin_service: Any, props: Mapping[str, Any]) -> Plugin:
        return Gate()


@pytest.fixture
def _gate() -> Iterator[None]:
    wrapper.register_plugin("gate", GateFactory)
    yield
    gate.clear()
    del _REGISTRY["gate"]


@pytest.mark.usefixtures("_gate")
def test_the_writer_moves_again_while_a_failover_connects_to_it(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(plugins="failover_v2,gate,host_monitoring_v2")
    first, (second, third) = aurora.writer.id, (reader.id for reader in aurora.readers)

    def again() -> None:
        aurora.kill(second)
        aurora.failover(third, rejoin=False)

    gate.append(again)
    aurora.kill(first)
    aurora.failover(second, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert not gate, "it was on its way to the second"
    assert instance_of(connection) == third


def test_a_new_writer_that_refuses_logins_for_a_moment_is_waited_for(watched: Connect, aurora: LocalAurora) -> None:
    """The monitor's session from before goes on proving that it is the writer."""
    connection = watched(**FAST)
    old, new = aurora.writer.id, aurora.readers[0].id
    aurora.refuse_logins(new)
    aurora.kill(old)
    aurora.failover(new, rejoin=False, drop_sessions=False)
    relents = threading.Timer(1.0, aurora.refuse_logins, (new, False))
    relents.start()
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    relents.join()
    assert instance_of(connection) == new


@pytest.mark.slow
def test_descriptors_that_are_used_again_under_load_are_nobodys_but_their_new_owners(watched: Connect, aurora: LocalAurora) -> None:
    connections = [watched(**FAST) for _ in range(6)]
    stopping = threading.Event()
    spoiled: list[str] = []

    def reuse() -> None:
        while not stopping.is_set():
            pairs = [socket.socketpair() for _ in range(20)]
            for number, (one, other) in enumerate(pairs):
                try:
                    one.sendall(bytes([number]))
                    if other.recv(1) != bytes([number]):
                        spoiled.append("another's data")
                except OSError as error:
                    spoiled.append(str(error))
            for pair in pairs:
                for end in pair:
                    end.close()

    def use(connection: Any) -> None:
        while not stopping.is_set():
            with suppress(wrapper.FailoverError):
                connection.execute("SELECT 1")

    threads = [threading.Thread(target=reuse) for _ in range(4)]
    threads += [threading.Thread(target=use, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            old = aurora.writer.id
            aurora.drop_sessions(old)
            aurora.hang(old)
            aurora.failover(rejoin=False)
            eventually(lambda: client().state.by_host(_key(aurora)).topology.writer == _key(aurora), "the new writer")  # type: ignore[union-attr]
            aurora.reset()
    finally:
        stopping.set()
        for thread in threads:
            thread.join(30)
    assert spoiled == []


def _key(lab: LocalAurora) -> str:
    return f"{lab.writer.endpoint}:{lab.port}"


# -- only one of them is in trouble --------------------------------------------------------------------------------------------


def test_a_locked_out_monitor_costs_the_application_nothing(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(**FAST, **{"monitoring-user": "nobody", "monitoring-password": "wrong"})
    service = connection.plugin_service

    def is_refused() -> bool:
        state = client().state.by_watch(service.watch.key)
        return state is not None and any(health.detail and not health.accepting for health in state.health.values())

    eventually(is_refused, "the monitor to be refused")
    session = connection.info.backend_pid
    for _ in range(50):
        connection.execute("SELECT pg_sleep(0.02)")
    assert connection.info.backend_pid == session
    aurora.kill("writer")
    aurora.promote_later(0.2, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id


def namespaces() -> bool:
    """Whether this machine lets us make network namespaces."""
    try:
        return subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not namespaces(), reason="needs unshare(1), ip(8) and the right to make network namespaces")
@pytest.mark.parametrize("loopback", ["down", "up"])
def test_a_monitor_in_another_network_than_the_worker(
    connect: Connect, aurora: LocalAurora, monitor_directory: Path, loopback: str
) -> None:
    """It reaches nobody: without a route, or refused by its own machine. The workers' connections are as good as ever."""
    script = f"ip link set lo {loopback} && exec {sys.executable} -m monitor_service run --directory {monitor_directory}"
    monitor = subprocess.Popen(["unshare", "-rn", "sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        connection = connect(**FAST, monitor_mode="attach")
        service = connection.plugin_service

        def is_tried() -> bool:
            state = client().state.by_watch(service.watch.key)
            return client().is_live and state is not None and all(health.detail for health in state.health.values())

        eventually(is_tried, "the monitor to have tried every host")
        session = connection.info.backend_pid
        for _ in range(50):
            connection.execute("SELECT pg_sleep(0.02)")
        assert connection.info.backend_pid == session
        assert instance_of(connect(monitor_mode="attach")) == aurora.writer.id
        aurora.kill("writer")
        aurora.promote_later(0.2, rejoin=False)
        with pytest.raises(wrapper.FailoverSuccessError):
            connection.execute("SELECT 1")
        assert instance_of(connection) == aurora.writer.id
    finally:
        monitor.terminate()
        monitor.wait(20)


WORKER = textwrap.dedent("""
    import json, os, sys, time
    import psycopg, wrapper
    from wrapper.monitor.process import current_client

    def wait(condition, what):
        deadline = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.01)

    connection = wrapper.connect(psycopg.connect, os.environ["DSN"], cluster_instance_host_pattern=os.environ["PATTERN"],
                                 autocommit=True, failure_detection_interval_ms=100)
    wait(lambda: current_client().is_live and current_client().state.confirmed, "the monitor")
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    try:
        connection.execute("SELECT 1")
        outcome = None
    except wrapper.FailoverSuccessError as error:
        outcome = error.outcome
    wait(lambda: current_client().is_live and current_client().state.confirmed, "the monitor again")
    (instance,) = connection.execute("SELECT aurora_db_instance_identifier()").fetchone()
    print(json.dumps([outcome, instance]), flush=True)
    sys.stdin.readline()
""")


@pytest.mark.slow
def test_a_worker_that_was_stopped_longer_than_its_lease(aurora: LocalAurora, monitor_directory: Path) -> None:
    run = [sys.executable, "-m", "monitor_service", "run", "--directory", os.fspath(monitor_directory), "--lease", "2"]
    environment = {**os.environ, **aurora.environment(), "DSN": aurora.dsn(), "PATTERN": aurora.instance_host_pattern}
    monitor = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    assert worker.stdin is not None
    assert worker.stdout is not None

    def leases() -> list[int]:
        return [lease["pid"] for lease in monitor_status().get("leases", ())]

    try:
        assert int(worker.stdout.readline()) == worker.pid
        worker.send_signal(signal.SIGSTOP)
        eventually(lambda: monitor_status() and not leases(), "the lease to lapse")
        aurora.kill("writer")
        aurora.failover(rejoin=False)
        worker.stdin.write("\n")
        worker.stdin.flush()
        worker.send_signal(signal.SIGCONT)
        outcome, instance = json.loads(worker.stdout.readline())
        # Its thread may hear the news before its call does.
        assert outcome in ("unknown", "not_sent")
        assert instance == aurora.writer.id
        eventually(lambda: leases() == [worker.pid], "a new lease")
    finally:
        worker.send_signal(signal.SIGCONT)
        worker.stdin.close()
        worker.wait(20)
        worker.stdout.close()
        monitor.terminate()
        monitor.wait(20)
