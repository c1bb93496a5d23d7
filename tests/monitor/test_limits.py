"""The monitor without descriptors or disk: nobody is blamed, and it is whole again when there is room."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from wrapper.monitor.messages import Ok, StopRequest
from wrapper.monitor.paths import MonitorPaths

from .harness import REPOSITORY, MonitorProcess, Worker, command, worker
from .servers import Server, eventually

Start = Callable[..., MonitorProcess]
# Below every socket that a running monitor has; those that it has it keeps.
FEWEST = 8


@pytest.fixture(params=["server", "mysql_server"], ids=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def limited(pid: int, what: int, to: int) -> Iterator[None]:
    """Lower a limit of a process."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (to, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def test_a_monitor_without_descriptors_blames_nobody(start_monitor: Start, server: Server) -> None:
    monitor = start_monitor("--dumpable")
    with worker(monitor.paths) as one:
        # So patient that a busy machine cannot make the server look silent.
        topic = one.watch(server, interval=3.0)
        one.until(lambda: one.writer(topic), "the first proof")
        before = descriptors(monitor.pid)
        with limited(monitor.pid, resource.RLIMIT_NOFILE, FEWEST):
            server.drop_sessions()
            one.until(lambda: "open files" in one.health(topic, server).detail, "the lack of descriptors to be told")
            assert not one.health(topic, server).is_failing
            probes = asked(one, topic, server)
            one.until(lambda: asked(one, topic, server) >= probes + 3, "more attempts")
        one.until(lambda: asked(one, topic, server) and not one.health(topic, server).detail, "a session")
        assert one.health(topic, server).accepting
        assert one.writer(topic) == server.key
        assert all(not update.health.is_failing for _, update in one.updates if type(update).__name__ == "HealthUpdate")
        eventually(lambda: descriptors(monitor.pid) <= before, "no more descriptors than before")


# Descriptors of a monitor that is given few.
FEW = 96


class Crowd:
    """Connections that stay."""

    def __init__(self, paths: MonitorPaths) -> None:
        self._url = paths.control_url
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def is_let_in(self) -> bool:
        """Connect once more; return the monitor's verdict."""
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RECONNECT_IVL, -1)  # who is refused comes back else, and is counted again
        link = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        self._sockets += [socket, link]
        socket.connect(self._url)
        assert link.poll(10_000), "no verdict"
        return bool(recv_monitor_message(link)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def leave(self) -> None:
        self._context.destroy(linger=0)


def test_more_workers_than_descriptors_end_no_monitor(directory: Path) -> None:
    monitor = MonitorProcess(directory, "--dumpable", prefix=("sh", "-c", f'ulimit -n {FEW}; exec "$@"', "sh"))
    crowd = Crowd(monitor.paths)
    try:
        with worker(monitor.paths) as one:
            assert one.status()["limits"]["clients"] == FEW * 6 // 8 // 2
            let_in = [crowd.is_let_in() for _ in range(FEW)]
            assert FEW // 4 < sum(let_in) < FEW * 7 // 8
            assert one.status()["counters"]["refused for want of descriptors"] == FEW - sum(let_in)
            crowd.leave()
            eventually(lambda: descriptors(monitor.pid) < FEW // 2, "the crowd to have gone")
            with worker(monitor.paths) as other:
                assert other.status()["pid"] == monitor.pid
        assert "too few descriptors are left (ulimit -n)" in monitor.log.read_text()
    finally:
        crowd.leave()
        assert monitor.stop() == 0


def asked(one: Worker, topic: str, server: Server) -> int:
    """Have the host asked once more; return how often it has been."""
    one.report(topic, server)
    return int(one.status()["clusters"][0]["hosts"][0]["probes"])


def test_a_log_that_takes_nothing_stops_nobody(directory: Path, server: Server) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(command("run", "--directory", str(directory)), stdout=full, stderr=full, cwd=REPOSITORY)
    paths = MonitorPaths(directory)
    try:
        eventually(paths.control.exists, "the control socket")
        with worker(paths) as one:
            # So patient that a busy machine cannot make the server look silent.
            topic = one.watch(server, interval=3.0)
            one.until(lambda: one.writer(topic), "the first proof")
            assert one.status()["clusters"]
            assert isinstance(one.ask(StopRequest()), Ok)
        process.wait(20)
    finally:
        process.kill()
        process.wait(20)


def no_file_may_grow() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def test_a_full_disk_is_told_in_a_sentence(directory: Path) -> None:
    done = subprocess.run(
        command("run", "--directory", str(directory)),
        preexec_fn=no_file_may_grow,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"aws-shared-monitor: {directory}/monitor-1.lock cannot be written: ")
    assert "AWS_WRAPPER_MONITOR_DIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
def test_an_epoch_is_raised_on_a_full_disk(directory: Path) -> None:
    """What was written while there was room is enough: the next monitor serves, with a larger epoch."""
    script = (
        'mount -t tmpfs -o size=4k,mode=700 none "$0"; '
        'echo 4102444800000 > "$0/monitor-1.lock"; cat /dev/zero > "$0/fill"; exec "$@"'
    )
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script, str(directory), *command("run", "--directory", str(directory))],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = next((line for line in process.stderr if "STARTED" in line), "")
        assert "epoch 4102444800001" in line
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()
