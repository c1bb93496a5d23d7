"""The worker while its monitor is killed, stopped, restarted, missing or surrounded by trouble."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wrapper
from tests.drivers import Driver, ask
from tests.integration.conftest import client, drivers, eventually, forget_client
from tests.integration.test_failover import FAST, instance_of
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
ROOT = Path(__file__).parents[2]
MYSQL = ("mysql-pure", "mysql-extension")


def monitor_status() -> dict[str, Any]:
    """What `monitor_service status --json` prints, empty while no monitor answers."""
    done = subprocess.run(
        [sys.executable, "-m", "monitor_service", "status", "--json"], capture_output=True, text=True, timeout=20, check=False
    )
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def monitor_pid() -> int:
    pid = eventually(lambda: monitor_status().get("pid"), "a monitor that answers")
    return int(pid)


class Load:
    """Queries in a loop on a thread; counts what failed."""

    def __init__(self, connection: Any) -> None:
        self.done = 0
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._connection = connection
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                ask(self._connection, "SELECT 1")
                self.done += 1
            except Exception as error:  # noqa: BLE001  the test looks at them
                self.errors.append(error)
                return

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


@drivers("psycopg", "mysql-extension", slow=("mysql-pure",))
def test_a_killed_monitor_costs_no_query_and_is_replaced(watched: Connect, lab: LocalAurora) -> None:
    connection = watched()
    pid = monitor_pid()
    epoch = client().state.epoch
    descriptors = len(os.listdir("/proc/self/fd"))
    with Load(connection) as load:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: client().is_live and client().state.epoch > epoch, "another monitor")
        eventually(lambda: client().state.confirmed, "the new monitor to watch the cluster")
        done = load.done
        eventually(lambda: load.done > done + 10, "the load to go on")
    assert load.errors == []
    assert connection.plugin_service.physical(connection.target_connection).handle.aborted_by is None
    assert monitor_pid() != pid
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors, "no more descriptors than before")
    eventually(lambda: sum(lab.monitoring_sessions().values()) <= 4, "the sessions of one monitor: hosts + 1")


@drivers("psycopg", slow=MYSQL)
def test_a_stopped_monitor_aborts_nothing_when_it_goes_on(watched: Connect, lab: LocalAurora) -> None:
    connection = watched(**FAST)
    pid = monitor_pid()
    heard = client().heard_at
    with Load(connection) as load:
        os.kill(pid, signal.SIGSTOP)
        try:
            eventually(lambda: not client().is_live, "the monitor to count as absent")
            time.sleep(2.0)  # many probe intervals, in which nothing was probed
        finally:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: client().is_live and client().heard_at > heard, "the monitor to be heard again")
        eventually(lambda: all(not h.is_failing for c in client().state.clusters.values() for h in c.health.values()), "all well")
    assert load.errors == []
    assert connection.plugin_service.physical(connection.target_connection).handle.aborted_by is None


@drivers("psycopg", "mysql-extension", slow=("mysql-pure",))
def test_the_writer_dies_while_the_monitor_is_stopped(watched: Connect, lab: LocalAurora) -> None:
    connection = watched()
    old = lab.writer.id
    pid = monitor_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        lab.kill("writer")
        lab.promote_later(0.2, rejoin=False)
        with pytest.raises(wrapper.FailoverSuccessError):
            ask(connection, "SELECT 1")
        assert instance_of(connection) == lab.writer.id != old
    finally:
        os.kill(pid, signal.SIGCONT)


@drivers("psycopg", "mysql-extension", slow=("mysql-pure",))
def test_monitor_and_writer_die_together(watched: Connect, lab: LocalAurora) -> None:
    connection = watched()
    old = lab.writer.id
    pid = monitor_pid()
    os.kill(pid, signal.SIGKILL)
    lab.kill("writer")
    lab.promote_later(0.2, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        ask(connection, "SELECT 1")
    assert instance_of(connection) == lab.writer.id != old


@drivers("psycopg", slow=MYSQL)
def test_a_hung_host_that_comes_back_is_forgiven(watched: Connect, lab: LocalAurora) -> None:
    connection = watched(failure_detection_count=10)  # leaves a busy machine the time to resume it
    writer = lab.writer.id

    def health() -> Any:
        cluster = client().state.by_watch(connection.plugin_service.watch.key)
        assert cluster is not None
        assert cluster.topology.writer is not None
        return cluster.health[cluster.topology.writer]

    lab.hang(writer)
    eventually(lambda: health().is_failing, "a silent probe")
    lab.resume(writer)
    eventually(lambda: not health().is_failing, "an answered probe")
    assert instance_of(connection) == writer


@pytest.mark.parametrize("trouble", ["mode", "file", "long", "relative"])
def test_an_unusable_directory_leaves_a_working_connection(
    trouble: str,
    lab: LocalAurora,
    driver: Driver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    directory = tmp_path / "d"
    if trouble == "mode":
        directory.mkdir(mode=0o755)
    elif trouble == "file":
        directory.touch()
    elif trouble == "long":
        directory = tmp_path / ("x" * 120)
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_DIR", "relative" if trouble == "relative" else str(directory))
    forget_client()
    try:
        with caplog.at_level(logging.WARNING):
            connection = wrapper.connect(
                driver.connect, **lab.parameters(), cluster_instance_host_pattern=lab.instance_host_pattern, autocommit=True
            )
        assert ask(connection, "SELECT 1") == [(1,)]
        (record,) = [record for record in caplog.records if "working without the shared monitor" in record.message]
        assert "AWS_WRAPPER_MONITOR_DIR" in record.message or "chmod" in record.message or "remove it" in record.message
        old = lab.writer.id
        lab.kill("writer")
        lab.promote_later(0.1, rejoin=False)
        with pytest.raises(wrapper.FailoverSuccessError):
            ask(connection, "SELECT 1")
        assert instance_of(connection) != old
        connection.close()
    finally:
        forget_client()


def test_garbage_on_the_control_socket_is_dropped_and_counted(watched: Connect, monitor_directory: Path) -> None:
    connection = watched()
    import zmq

    context = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as stranger:
            stranger.setsockopt(zmq.LINGER, 0)
            stranger.connect(f"ipc://{monitor_directory}/control-1.sock")
            for data in (b"", b"\xff" * 50, b"\x95\xa3abc", os.urandom(4096)):
                stranger.send(data)
            eventually(lambda: "garbage" in json.dumps(monitor_status()) or monitor_status(), "the monitor to answer")
    finally:
        context.destroy(linger=0)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(monitor_directory / "control-1.sock"))
        raw.sendall(os.urandom(1024))
    assert ask(connection, "SELECT 1") == [(1,)]
    assert client().is_live


@drivers("psycopg", slow=MYSQL)
def test_eight_processes_share_one_monitor_and_its_sessions(watched: Connect, lab: LocalAurora, driver: Driver) -> None:
    watched()
    script = (
        "import json, sys, wrapper\n"
        "from tests.drivers import DRIVERS, ask\n"
        "connection = wrapper.connect(DRIVERS[sys.argv[1]].connect, **json.loads(sys.argv[2]))\n"
        "print(ask(connection, 'SELECT 1'), flush=True)\n"
        "sys.stdin.read()\n"
        "connection.close()\n"
    )
    parameters = {
        **lab.parameters(),
        **driver.options,
        "autocommit": True,
        "cluster_instance_host_pattern": lab.instance_host_pattern,
    }
    command = [sys.executable, "-c", script, driver.name, json.dumps(parameters)]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(8)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "[(1,)]\n"
        eventually(lambda: monitor_status().get("leases") and len(monitor_status()["leases"]) >= 9, "nine leases")
        eventually(lambda: sum(lab.monitoring_sessions().values()) <= 4, "the monitoring sessions to be hosts + 1 at most")
        assert sum(lab.monitoring_sessions().values()) >= 3
    finally:
        for worker in workers:
            worker.communicate(timeout=20)
    assert [worker.returncode for worker in workers] == [0] * 8
