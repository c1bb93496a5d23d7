"""From start to end: what service managers are told, what is logged, and how one monitor follows another."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monitor_service import systemd
from monitor_service.checks.meeting import open_parent
from monitor_service.cli import main
from monitor_service.election import is_held
from wrapper.monitor.messages import Ok, Refused, Release, Watched

from .harness import REPOSITORY, MonitorProcess, command, worker
from .servers import Server, eventually

Start = Callable[..., MonitorProcess]
Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str], directory: Path) -> Ask:
    """Runs a command of the command line on the monitor in `directory`: `ask(command, *arguments)` returns its exit code and all it
    wrote. In this process: another one takes longer to start than the command takes."""

    def ask(name: str, *arguments: str, directory: Path = directory) -> tuple[int, str]:
        code = main([name, "--directory", str(directory), *arguments])
        written = capfd.readouterr()
        return code, written.out + written.err

    return ask


# -- service managers ----------------------------------------------------------------------------------------------------------


class Manager:
    """systemd's end of the notification socket."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._socket.settimeout(20)

    def next(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def heard_nothing(self) -> bool:
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    # Short: a socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="sd-") as directory:
        manager = Manager(Path(directory))
        yield manager
        manager.close()


def test_systemd_hears_of_start_life_and_end(start_monitor: Start, manager: Manager) -> None:
    monitor = start_monitor(environment={"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "600000"})
    first = manager.next()
    assert first["READY"] == "1"
    assert str(monitor.paths.directory) in first["STATUS"]
    for _ in range(3):
        assert manager.next() == {"WATCHDOG": "1"}
    monitor.process.terminate()
    last = manager.next()
    while "WATCHDOG" in last:
        last = manager.next()
    assert last == {"STOPPING": "1", "STATUS": "signal SIGTERM"}


def test_a_monitor_that_waits_for_another_is_ready_and_alive(start_monitor: Start, manager: Manager) -> None:
    start_monitor()
    start_monitor(wait=False, environment={"NOTIFY_SOCKET": str(manager.path)})
    assert manager.next() == {"READY": "1", "STATUS": "waiting for the monitor that runs to end"}
    assert manager.next() == {"WATCHDOG": "1"}


def test_a_monitor_on_demand_does_not_speak_for_the_service_that_started_it(start_monitor: Start, manager: Manager) -> None:
    environment = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "100000"}
    monitor = start_monitor("--on-demand", environment=environment)
    with worker(monitor.paths):
        pass  # it has beaten at least once
    monitor.stop()
    assert manager.heard_nothing()


def test_watchdog_is_for_the_process_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    assert systemd.watchdog_interval() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_interval() is None
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert systemd.watchdog_interval() == 1.5


def test_an_abstract_notification_socket_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # the kernel chooses a name
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + manager.getsockname()[1:].decode())
        systemd.notify("READY=1")
        manager.settimeout(20)
        assert manager.recv(100) == b"READY=1"
    systemd.notify("READY=1")  # nobody there: nothing happens


# -- logs ----------------------------------------------------------------------------------------------------------------------


def test_a_log_in_json_has_the_parts_of_every_transition(start_monitor: Start, server: Server) -> None:
    monitor = start_monitor("--log-format", "json", "--on-demand", wait=False)
    eventually(lambda: "STARTED" in monitor.log.read_text(), "the first line of the log")
    with worker(monitor.paths) as one:
        topic = one.watch(server, interval=0.1)
        one.until_writer(topic, server)
        server.hang()
        one.until(lambda: one.events_named("DOWN?"), "three silent probes")
        server.resume()
    monitor.stop()
    lines = [json.loads(line) for line in monitor.log.read_text().splitlines()]
    assert {"at", "level", "logger", "message"} <= set(lines[0])
    transitions = [line for line in lines if "event" in line]
    assert {"STARTED", "UP", "WRITER", "SILENT", "DOWN?", "STOPPED"} <= {line["event"] for line in transitions}
    assert all(line["evidence"] for line in transitions), "no verdict without its evidence"
    (down, *_) = [line for line in transitions if line["event"] == "DOWN?"]
    assert (down["subject"], down["cluster"]) == (server.key, topic)
    assert "3 silent probes of" in down["evidence"]


# -- one after the other -------------------------------------------------------------------------------------------------------


def test_a_draining_monitor_serves_those_it_has_and_ends_with_the_last(start_monitor: Start, ask: Ask, server: Server) -> None:
    monitor = start_monitor()
    with worker(monitor.paths) as old, worker(monitor.paths) as new:
        topic = old.watch(server)
        assert ask("drain", "--no-wait") == (0, "draining; clients left: 1\n")
        refused = new.ask(new.request(server))
        assert isinstance(refused, Refused)
        assert "draining" in refused.reason
        status = new.status()
        assert (status["draining"], status["counters"]["refused while draining"]) == (True, 1)
        assert isinstance(old.ask(old.request(server, interval=0.1)), Watched)
        old.until_writer(topic, server)
        assert isinstance(old.renew(), Ok)
        assert monitor.process.poll() is None
        old.ask(Release(old.client))
    assert monitor.process.wait(20) == 0
    assert "drained" in monitor.log.read_text()
    assert ask("drain")[0] == 3


@pytest.mark.slow
def test_a_draining_monitor_hands_over_to_one_that_waits(start_monitor: Start, ask: Ask, server: Server) -> None:
    first = start_monitor()
    second = start_monitor(wait=False)
    eventually(lambda: "it stays" in second.log.read_text(), "the second one to wait")
    with worker(first.paths) as one:
        one.watch(server)
        assert ask("drain") == (0, "draining; clients left: 1\nstopped\n"), "it waits for the end of that one, not of the next"
        eventually(second.serves, "the second one to serve")
        one.until(lambda: one._epoch == int(first.paths.lock.read_text()), "the new epoch to be heard")
        assert isinstance(one.ask(one.request(server)), Watched)
    assert first.process.wait(20) == 0


def test_taking_over_needs_nobody_to_stop_the_first(start_monitor: Start, ask: Ask) -> None:
    first = start_monitor()
    second = start_monitor("--take-over")
    assert first.process.wait(20) == 0
    with worker(second.paths) as one:
        assert one.status()["pid"] == second.pid
    assert ask("stop") == (0, "stopped\n")
    assert second.process.wait(20) == 0


@pytest.mark.slow
def test_an_interrupted_drain_leaves_the_monitor_draining_and_stop_ends_it(start_monitor: Start, ask: Ask, server: Server) -> None:
    monitor = start_monitor()
    arguments = command("drain", "--directory", str(monitor.paths.directory))
    with worker(monitor.paths) as one:
        one.watch(server)
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=REPOSITORY) as waiting:
            eventually(lambda: one.status()["draining"], "the monitor to drain")
            waiting.send_signal(signal.SIGINT)
            assert waiting.wait(20) == 0
        assert one.status()["draining"]
        assert ask("stop") == (0, "stopped\n")
    assert monitor.process.wait(20) == 0
    assert not is_held(monitor.paths)


@pytest.mark.slow
def test_two_versions_of_the_protocol_live_side_by_side(start_monitor: Start, ask: Ask, directory: Path) -> None:
    monitor = start_monitor()
    program = (
        "import sys; from wrapper.monitor import messages; messages.PROTOCOL_MAJOR = 2\n"
        "from monitor_service.cli import main; sys.exit(main(sys.argv[1:]))\n"
    )
    following = [sys.executable, "-c", program]
    log = directory / "log-2"
    with log.open("wb") as output:
        arguments = ["run", "--directory", str(directory)]
        second = subprocess.Popen([*following, *arguments], stdout=output, stderr=output, cwd=REPOSITORY)
    try:
        eventually(lambda: "STARTED" in log.read_text(), "the next version to serve")
        with worker(monitor.paths) as one:
            assert one.status()["pid"] == monitor.pid
        assert "another version of the protocol" in ask("doctor")[1]
        stop = [*following, "stop", "--directory", str(directory)]
        assert subprocess.run(stop, cwd=REPOSITORY, capture_output=True, timeout=30).returncode == 0
        assert second.wait(20) == 0
        assert monitor.process.poll() is None
    finally:
        if second.poll() is None:
            second.kill()
            second.wait()


# -- doctor --------------------------------------------------------------------------------------------------------------------


def findings(ask: Ask, *arguments: str) -> tuple[int, dict[str, list[dict[str, object]]]]:
    code, written = ask("doctor", "--json", *arguments)
    document = json.loads(written)
    assert document["ok"] == (code == 0)
    found: dict[str, list[dict[str, object]]] = {}
    for finding in document["findings"]:
        found.setdefault(finding["subject"], []).append(finding)
    return code, found


def test_doctor_without_a_monitor(ask: Ask, directory: Path) -> None:
    code, found = findings(ask)
    assert code == 0
    assert found["monitor"][0]["facts"] == {"running": False}
    assert found["directory"][0]["facts"] == {
        "path": str(directory),
        "in_force": True,
        "socket_path_bytes": len(str(directory)) + len("/control-1.sock"),
        "owner": os.getuid(),
        "mode": "0700",
    }
    assert {"packages", "credentials", "limits", "keepalive", "mysql", "clock"} <= set(found)
    assert found["mysql"][0]["facts"] in ({"abortable": True}, {}), "tried with this very driver"
    assert not list(directory.iterdir()), "it changes nothing"


def test_doctor_with_a_monitor_and_an_endpoint(start_monitor: Start, ask: Ask, server: Server) -> None:
    monitor = start_monitor()
    dsn = server.lab.dsn(server.id, by_address=True)
    code, found = findings(ask, dsn)
    assert code == 0
    assert "explicit" in str(found["monitor"][0]["text"])
    assert found["endpoint"][0]["facts"] == {"host": server.endpoint, "port": server.port, "dialect": "pg", "hosts": []}
    assert "the connection text" in str(found["credentials"][-1]["text"])
    text = ask("doctor", dsn)[1]
    assert server.lab.password not in text
    # A busy machine may have held up the monitor, of which it is warned.
    complaints = [
        line for line in text.splitlines() if ("WARNING" in line or "PROBLEM" in line) and "its loop stood still" not in line
    ]
    assert complaints == []
    assert "\n0 problems, " in text
    monitor.pause()
    code, found = findings(ask)
    assert code == 1
    assert "did not answer within" in str(found["monitor"][0]["text"])


@pytest.mark.parametrize("trouble", ["mode", "long", "file", "endpoint", "unreadable endpoint"])
def test_doctor_finds_what_is_wrong(ask: Ask, directory: Path, trouble: str) -> None:
    chosen, arguments, expected = directory, [], ""
    if trouble == "mode":
        directory.chmod(0o755)
        expected = "run chmod 700"
    elif trouble == "long":
        chosen, expected = directory / ("x" * 120), "at most 107"
    elif trouble == "file":
        chosen, expected = directory / "file", "is not a directory"
        chosen.touch()
    else:
        arguments = ["host=127.0.0.1 port=1 password=hush" if trouble == "endpoint" else "hush"]
        expected = "cannot be asked"
    code, text = ask("doctor", *arguments, directory=chosen)
    assert code == 1
    assert any("PROBLEM" in line and expected in line for line in text.splitlines()), text
    assert "hush" not in text
    directory.chmod(0o700)


def test_a_parent_that_others_may_write_to_is_seen(tmp_path: Path) -> None:
    directory = tmp_path / "open" / "monitor"
    directory.mkdir(parents=True)
    assert open_parent(directory) is None
    directory.parent.chmod(0o777)
    assert open_parent(directory) == directory.parent
    directory.parent.chmod(0o1777)
    assert open_parent(directory) is None, "a sticky directory protects each one's entries"
