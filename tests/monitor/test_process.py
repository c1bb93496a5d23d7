"""The monitor as a process: election, hand-over, exits, and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from monitor_service.client import MonitorConnection
from monitor_service.watch import watch
from wrapper.monitor.messages import Refused, Release, Status, StatusRequest, StopRequest
from wrapper.monitor.paths import MonitorPaths

from .harness import REPOSITORY, MonitorProcess, Worker, command, exists, is_free, run, worker
from .servers import Server, eventually

Start = Callable[..., MonitorProcess]


def test_a_terminated_monitor_leaves_no_sockets(start_monitor: Start, directory: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        monitor = start_monitor()
        monitor.process.send_signal(number)
        assert monitor.process.wait(20) == 0
        assert not monitor.paths.control.exists()
        assert not monitor.paths.events.exists()
        assert monitor.paths.lock.exists(), "the lock file is never unlinked"


def test_epochs_rise_even_when_a_monitor_was_killed_and_its_sockets_lie_about(start_monitor: Start) -> None:
    first = start_monitor()
    before = int(first.paths.lock.read_text())
    first.kill()
    assert first.paths.control.exists()
    second = start_monitor()
    assert int(second.paths.lock.read_text()) > before
    worker = Worker(second.paths)
    assert worker.status()["pid"] == second.pid
    worker.close()


def test_an_epoch_rises_when_the_lock_file_was_lost_or_damaged(start_monitor: Start) -> None:
    monitor = start_monitor()
    before = int(monitor.paths.lock.read_text())
    monitor.stop()
    monitor.paths.lock.write_text("not a number")
    again = start_monitor()
    assert int(again.paths.lock.read_text()) >= before


def test_a_second_on_demand_monitor_leaves_at_once(start_monitor: Start, monitor: MonitorProcess) -> None:
    second = start_monitor("--on-demand", wait=False)
    assert second.process.wait(20) == 0
    assert monitor.process.poll() is None


def test_an_explicit_monitor_takes_over_from_one_on_demand(start_monitor: Start, server: Server) -> None:
    on_demand = start_monitor("--on-demand")
    worker = Worker(on_demand.paths)
    worker.watch(server)
    worker.close()
    explicit = start_monitor()
    assert on_demand.process.wait(20) == 0
    worker = Worker(explicit.paths)
    assert worker.status()["mode"] == "explicit"
    worker.close()


def test_a_second_explicit_monitor_waits_for_the_first(start_monitor: Start, monitor: MonitorProcess) -> None:
    second = start_monitor(wait=False)
    eventually(lambda: "it stays" in second.log.read_text(), "the second one to be told to wait")
    assert second.process.poll() is None
    with MonitorConnection(monitor.paths) as connection:
        assert isinstance(connection.ask(StopRequest(drain=True)), Refused)
    monitor.stop()
    eventually(second.serves, "the second one to take over")


def test_an_on_demand_monitor_ends_when_nobody_needs_it(start_monitor: Start, server: Server) -> None:
    monitor = start_monitor("--on-demand", "--linger", "0.5")
    worker = Worker(monitor.paths)
    worker.watch(server)
    worker.ask(Release(worker.client))
    worker.close()
    assert monitor.process.wait(20) == 0
    eventually(lambda: server.sessions() == 0, "its sessions to be closed")


def test_a_detached_monitor_outlives_its_starter(directory: Path) -> None:
    # The pipes would keep the starter waiting if the monitor had inherited them.
    done = run(directory, "run", "--on-demand", "--detach", "--linger", "30")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    paths = MonitorPaths(directory)
    eventually(lambda: paths.control.exists(), "the monitor to bind")
    with MonitorConnection(paths) as connection:
        answer = connection.ask(StatusRequest(), timeout=10)
        assert isinstance(answer, Status)
        pid = answer.document["pid"]
        assert os.getsid(pid) not in (os.getsid(0), pid), "a session of its own, and never a terminal's leader"
        inherited = {os.readlink(f"/proc/{pid}/fd/{number}") for number in (0, 1, 2)}
    assert inherited == {"/dev/null", str(paths.log)}
    eventually(lambda: "STARTED" in paths.log.read_text(), "the first line of its log")
    assert run(directory, "stop").stdout == "stopped\n"
    eventually(lambda: not exists(pid), "the process to be gone")


@pytest.mark.parametrize("victim", ["lock", "control", "directory"])
def test_a_monitor_that_lost_its_files_ends(start_monitor: Start, directory: Path, victim: str) -> None:
    monitor = start_monitor()
    if victim == "directory":
        moved = directory.with_name(directory.name + "-moved")
        directory.rename(moved)
        directory.mkdir(mode=0o700)
        monitor.log = moved / monitor.log.name
    else:
        path: Path = getattr(monitor.paths, victim)
        path.unlink()
        path.touch()
    assert monitor.process.wait(20) == 4
    if victim == "control":
        assert monitor.paths.control.exists(), "what another process put there is not ours to remove"
    assert "no longer this monitor's own" in monitor.log.read_text()
    if victim == "directory":
        monitor.log = Path(os.devnull)
        for left in moved.iterdir():
            left.unlink()
        moved.rmdir()


def test_status_for_people_and_for_scripts(directory: Path, start_monitor: Start, server: Server) -> None:
    none = run(directory, "status")
    assert none.returncode == 3
    assert "no monitor runs" in none.stderr
    monitor = start_monitor()
    assert "no cluster is watched" in run(directory, "status").stdout
    worker = Worker(monitor.paths)
    topic = worker.watch(server)
    worker.until(lambda: worker.writer(topic), "the first proof")
    page = run(directory, "status").stdout
    for part in (f"pid {monitor.pid}", server.key, "writer *", "answers", "probe sessions 1"):
        assert part in page
    document = json.loads(run(directory, "status", "--json").stdout)
    host = document["clusters"][0]["hosts"][0]
    assert (host["key"], host["role"], host["session"]) == (server.key, "writer", True)
    assert document["epoch"] == int(monitor.paths.lock.read_text())
    assert "password" not in json.dumps(document)
    worker.close()


def test_a_stopped_monitor_is_told_from_an_absent_one(directory: Path, monitor: MonitorProcess) -> None:
    monitor.pause()
    done = run(directory, "status")
    assert done.returncode == 3
    assert "did not answer within" in done.stderr


def test_events_replays_and_follows(directory: Path, monitor: MonitorProcess, server: Server) -> None:
    follower = subprocess.Popen(
        command("events", "--directory", str(directory), "--json", "--since-start"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:
        assert follower.stdout is not None
        assert json.loads(follower.stdout.readline())["event"] == "STARTED"
        worker = Worker(monitor.paths)
        worker.watch(server)
        # What the monitor says of itself comes in between: that it was held up by a busy machine.
        seen = next(entry for entry in map(json.loads, follower.stdout) if entry["subject"] != "monitor")
        assert (seen["subject"], seen["event"]) == (server.key, "UP")
        worker.close()
        monitor.stop()
        assert follower.wait(20) == 3, "it ends with the monitor"
    finally:
        if follower.poll() is None:
            follower.kill()
        assert follower.stdout is not None
        follower.stdout.close()
        follower.wait()


def leases(monitor: MonitorProcess) -> list[object]:
    with worker(monitor.paths) as one:
        return list(one.status()["leases"])


@pytest.mark.parametrize("kind", ["server", "mysql_server"])
def test_watch_by_hand(directory: Path, monitor: MonitorProcess, request: pytest.FixtureRequest, kind: str) -> None:
    server: Server = request.getfixturevalue(kind)
    dsn = server.lab.dsn(server.id, by_address=True)
    if server.engine == "mysql":
        dsn = f"mysql://{server.lab.user}:{server.lab.password}@{server.endpoint}:{server.port}?ssl_disabled=true"
    follower = subprocess.Popen(
        command("watch", "--directory", str(directory), dsn), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    try:
        assert follower.stdout is not None
        assert f"watching {server.engine}://" in follower.stdout.readline()
        eventually(lambda: server.sessions() == 1, "the monitor's session")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 0
        assert leases(monitor) == []
    finally:
        if follower.poll() is None:
            follower.kill()
        assert follower.stdout is not None
        follower.stdout.close()
        follower.wait()


def test_a_watch_by_hand_that_is_interrupted_at_once_leaves_no_lease(monitor: MonitorProcess, server: Server) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="watching postgresql://"):
        watch(monitor.paths, server.lab.dsn(server.id, by_address=True), 1.0, None, interrupt)
    assert leases(monitor) == []


@pytest.mark.parametrize("dsn", ["mysql://app:hush@127.0.0.1:1", "mysql://app:hush@127.0.0.1:nonsense", "host=127.0.0.1 port=1"])
def test_an_endpoint_that_cannot_be_asked_is_told(directory: Path, monitor: MonitorProcess, dsn: str) -> None:
    done = run(directory, "watch", dsn)
    assert done.returncode == 1
    assert done.stdout.startswith("cannot ask the endpoint: ")
    assert "hush" not in done.stdout + done.stderr


def test_mistakes_are_explained(directory: Path) -> None:
    directory.chmod(0o755)
    done = run(directory, "run")
    assert done.returncode == 1
    assert "run chmod 700" in done.stderr
    wrong = run(directory, "run", "--linger", "soon")
    assert wrong.returncode == 2
    assert "'soon' is not a positive number of seconds" in wrong.stderr
    directory.chmod(0o700)
    assert is_free(MonitorPaths(directory))
