"""What one process may not do to another, by the monitor: limits, admission, remote monitors, secrets."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from monitor_service.cli import main
from monitor_service.client import MonitorConnection
from monitor_service.gate import Rules
from monitor_service.keys import serve_encrypted
from wrapper.monitor.launch import is_served
from wrapper.monitor.messages import Message, Offer, Refused, Renew, StatusRequest, StopRequest, Watched, encode
from wrapper.monitor.paths import MonitorDirectoryError, MonitorPaths, events_url, locate, prepare
from wrapper.monitor.state import Topology, TopologyHost

from .harness import REPOSITORY, MonitorProcess, command, run, worker
from .servers import Server, eventually

Start = Callable[..., MonitorProcess]
CANARY = "canary-s3cret"


# -- limits --------------------------------------------------------------------------------------------------------------------


def test_what_goes_over_a_limit_is_refused_by_name_and_counted(
    start_monitor: Start, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    monitor = start_monitor(
        *("--max-clients", "1", "--max-clusters", "1", "--max-watches", "2", "--max-hosts", "3", "--max-request", "4000")
    )
    with worker(monitor.paths) as one, worker(monitor.paths) as other:
        one.watch(server)
        elsewhere = Topology(hosts=(TopologyHost("127.255.0.1", server.port),))
        many = Topology(hosts=tuple(TopologyHost(f"127.255.0.{number}", server.port) for number in range(4)))
        refused: list[tuple[Message, str, str]] = [
            (other.ask(other.request(server)), "clients", "1 are allowed (--max-clients, ulimit -n)"),
            (one.ask(one.request(server, endpoint="elsewhere", seed=elsewhere)), "clusters", "1 are allowed (--max-clusters)"),
            (one.ask(one.request(server, seed=many)), "hosts", "a watch of 4 hosts: 3 are allowed (--max-hosts)"),
            (one.ask(one.request(server, offer=Offer({"password": "x" * 5000}))), "requests", "4000 are allowed (--max-request)"),
        ]
        assert isinstance(one.ask(one.request(server, endpoint="alias")), Watched)
        refused.append((one.ask(one.request(server, endpoint="alias-2")), "watches", "2 per client are allowed (--max-watches)"))
        counters = one.status()["counters"]
        for answer, limit, reason in refused:
            assert isinstance(answer, Refused)
            assert reason in answer.reason
            assert counters[f"refused {limit}"] == 1
        assert main(["status", "--directory", str(monitor.paths.directory)]) == 0
        assert "refused: clients 1, clusters 1, hosts 1, requests 1, watches 1\n" in capsys.readouterr().out


def test_limits_and_listening_are_checked_before_anything_starts(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--directory", str(directory)]
    with pytest.raises(SystemExit):
        main(["run", *where, "--max-clients", "0"])
    assert "'0' is not a positive whole number" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", *where, "--group", "no-such-group"])
    assert "'no-such-group' is no group of this machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--listen", "tcp://127.0.0.1:5490"], "TCP is served encrypted or not at all"),
        (["--listen", "tcp://127.0.0.1:5490", "--keys", "/nowhere"], "'/nowhere/server.key_secret' cannot be read"),
        (["--listen", "127.0.0.1:5490", "--keys", "/nowhere"], "is not tcp://HOST:PORT"),
    ],
)
def test_tcp_is_refused_without_keys(start_monitor: Start, arguments: list[str], expected: str) -> None:
    monitor = start_monitor(*arguments, wait=False)
    assert monitor.process.wait(20) == 1
    assert expected in monitor.log.read_text()


def test_what_a_client_makes_up_is_its_own_trouble(monitor: MonitorProcess, server: Server) -> None:
    with worker(monitor.paths) as one, worker(monitor.paths) as other:
        topic = one.watch(server)
        other.watch(server)
        for two in (one, other):
            # Alone each could be sent on, their sum could not.
            two.control.send(encode(Renew(two.client, {server.key: 2**64 - 1}), seq=0))
        for at in (math.nan, math.inf, -math.inf):
            one.report(topic, server, at=at)
        forged = "x\n2026-01-01 INFO forged \x1b[2J"
        refused = one.ask(one.request(server, seed=Topology(hosts=(TopologyHost(forged, 5432),))))
        assert isinstance(refused, Refused)
        assert "is not an endpoint" in refused.reason
        # Two clusters of one `cluster_id`, which is told.
        assert isinstance(one.ask(one.request(server, cluster_id=forged)), Watched)
        nowhere = Topology(hosts=(TopologyHost("nowhere.invalid", 5432),))
        assert isinstance(one.ask(one.request(server, endpoint="nowhere.invalid", cluster_id=forged, seed=nowhere)), Watched)
        eventually(lambda: one.status()["counters"].get("garbage") == 2, "the counts that nobody can have to be dropped")
        one.until_proved_since_report(topic, server)
        assert "failed requests" not in one.status()["counters"]
        page = run(monitor.paths.directory, "status").stdout
    log = monitor.log.read_text()
    assert "forged \\x1b[2J" in page
    assert " SPLIT: " in log
    for text in (page, log):
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if line.startswith("2026-01-01")]


def test_a_subscription_is_short(monitor: MonitorProcess) -> None:
    with worker(monitor.paths) as one, worker(monitor.paths) as other:
        link = other.events.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        other.events.subscribe("x" * 2000)
        assert link.poll(10_000), "whoever asks for more is cut off"
        beats = one.beats
        one.until(lambda: one.beats > beats, "a heartbeat for everybody else")


# -- the directory -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "shared", "trouble"),
    [
        (0o700, False, None),
        (0o2750, True, None),
        (0o700, True, None),
        (0o710, False, "has mode 0710"),
        (0o701, False, "has mode 0701"),
        (0o1777, False, "has mode 1777"),
        (0o2770, True, "has mode 2770"),
        (0o2751, True, "has mode 2751"),
    ],
)
def test_a_directory_that_others_can_reach_is_not_used(
    mode: int, shared: bool, trouble: str | None, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_DIR", str(directory))
    if shared:
        monkeypatch.setenv("AWS_WRAPPER_MONITOR_OWNER", str(os.getuid()))
    directory.chmod(mode)
    if trouble is None:
        assert locate().directory == directory
    else:
        with pytest.raises(MonitorDirectoryError, match=f"{trouble}; others could reach the monitor: run chmod "):
            locate()


def test_a_link_to_a_directory_is_not_used(directory: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(directory)
    with pytest.raises(MonitorDirectoryError, match="is a symbolic link; remove it"):
        prepare(link)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away takes root")
def test_a_directory_of_somebody_else_is_not_used(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(directory, 23001, -1)
    with pytest.raises(MonitorDirectoryError, match="belongs to uid 23001, not to uid 0"):
        prepare(directory)
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_DIR", str(directory))
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_OWNER", "23001")
    assert locate().owner == 23001
    assert not locate().may_start


# -- admission -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mechanism", "address", "alone", "shared"),
    [
        (b"NULL", "localhost:1000:1000:7", "uid 1000", "uid 1000"),
        (b"NULL", "localhost:0:0:7", "uid 0", "uid 0"),
        (b"NULL", "localhost:1001:1000:7", None, "uid 1001"),
        (b"NULL", "localhost:65534:65534:7", None, None),
        (b"NULL", "127.0.0.1", None, None),
        (b"NULL", "localhost", None, None),
        (b"NULL", "", None, None),
        (b"PLAIN", "localhost:1000:1000:7", None, None),
        (b"CURVE", "localhost:1000:1000:7", None, None),
    ],
)
def test_who_is_admitted(mechanism: bytes, address: str, alone: str | None, shared: str | None) -> None:
    assert Rules(1000).admit(mechanism, address, ()) == alone
    assert Rules(1000, shared=True).admit(mechanism, address, ()) == shared


def test_a_key_is_admitted_by_its_bytes() -> None:
    public, _ = zmq.curve_keypair()
    key = zmq.utils.z85.decode(public)
    rules = Rules(1000, keys=frozenset({public.decode()}))
    assert rules.admit(b"CURVE", "127.0.0.1", (key,)) == f"key {public.decode()}"
    assert rules.admit(b"CURVE", "127.0.0.1", (bytes(32),)) is None
    assert rules.admit(b"CURVE", "127.0.0.1", (key[:-1],)) is None
    assert not rules.is_operator(f"key {public.decode()}")


# -- a monitor that is reached over TCP ----------------------------------------------------------------------------------------


def free_url() -> str:
    """A tcp:// address whose port and the next one are free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = int(one.getsockname()[1])
            try:
                with socket.create_server(("127.0.0.1", port + 1)):
                    return f"tcp://127.0.0.1:{port}"
            except (OSError, OverflowError):
                continue


def test_tcp_serves_the_keys_it_knows_and_nobody_else(
    start_monitor: Start, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, strange = tmp_path / "keys", tmp_path / "strange"
    assert main(["keys", str(keys), "app", "other"]) == 0
    assert main(["keys", str(strange), "intruder"]) == 0
    assert main(["keys", str(keys), "app"]) == 1, "keys in use are not replaced"
    assert {path.stat().st_mode & 0o077 for path in keys.rglob("*")} == {0}
    url = free_url()
    monitor = start_monitor("--listen", url, "--keys", str(keys))

    monkeypatch.setenv("AWS_WRAPPER_MONITOR_URL", url)
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_KEYS", str(keys / "handout" / "app"))
    paths = locate()
    assert not paths.may_start
    other = MonitorPaths(paths.directory, url, keys / "handout" / "other")
    with worker(paths) as one, worker(other) as two:
        topic = one.watch(server)
        one.until_writer(topic, server)
        assert two.watch(server, offer=None) != topic, "each key is an owner of its own"
        assert len(one.status()["clusters"]) == 1
        refused = one.ask(StopRequest())
        assert isinstance(refused, Refused)
        assert "may end this monitor" in refused.reason

    impostor = strange / "handout" / "intruder"
    (impostor / "server.key").write_bytes((keys / "server.key").read_bytes())
    for intruder in (MonitorPaths(impostor, url, impostor), MonitorPaths(impostor, url)):
        with MonitorConnection(intruder) as connection, pytest.raises(TimeoutError):
            connection.ask(StatusRequest(), timeout=0.5)
    with worker(monitor.paths) as local:
        eventually(lambda: local.status()["counters"].get("refused peers", 0) >= 1, "the unknown key to be counted")
        assert len(local.status()["clusters"]) == 2, "its own user sees all"


def test_a_worker_speaks_to_nobody_who_lacks_the_monitors_key(tmp_path: Path) -> None:
    keys, strange = tmp_path / "keys", tmp_path / "strange"
    for directory in (keys, strange):
        assert main(["keys", str(directory), "app"]) == 0
    url, handout = free_url(), keys / "handout" / "app"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        # Without a handler of ZAP, it lets every key in.
        with context.socket(zmq.ROUTER) as impostor:
            serve_encrypted(impostor, strange)
            impostor.bind(url)
            with MonitorConnection(MonitorPaths(handout, url, handout), has_login=True) as connection:
                with pytest.raises(TimeoutError):
                    connection.ask(StatusRequest(), timeout=0.5)
                assert not impostor.poll(0)
            # With the right key it hears what it is sent.
            shutil.copy(strange / "server.key", handout / "server.key")
            with MonitorConnection(MonitorPaths(handout, url, handout), has_login=True) as connection:
                with pytest.raises(TimeoutError):
                    connection.ask(StatusRequest(), timeout=0.1)
                assert impostor.poll(10_000)
    finally:
        context.destroy(linger=0)


def test_keys_that_others_can_read_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["keys", str(tmp_path / "keys"), "app"]) == 0
    handout = tmp_path / "keys" / "handout" / "app"
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_URL", "tcp://127.0.0.1:5490")
    with pytest.raises(MonitorDirectoryError, match="needs AWS_WRAPPER_MONITOR_KEYS"):
        locate()
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_KEYS", str(handout))
    assert locate().control_url == "tcp://127.0.0.1:5490"
    (handout / "client.key_secret").chmod(0o644)
    with pytest.raises(MonitorDirectoryError, match="has mode 0644; others could read it"):
        locate()
    (handout / "client.key_secret").unlink()
    with pytest.raises(MonitorDirectoryError, match="cannot be read"):
        locate()
    monkeypatch.setenv("AWS_WRAPPER_MONITOR_URL", "tcp://127.0.0.1:65535")
    with pytest.raises(MonitorDirectoryError, match="port between 1 and 65534"):
        locate()
    assert events_url("tcp://[::1]:5490") == "tcp://[::1]:5491"


# -- the process ---------------------------------------------------------------------------------------------------------------


def cores_are_allowed() -> None:
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


@pytest.mark.parametrize("option", ["", "--dumpable"])
def test_a_crashed_monitor_leaves_no_core(option: str, directory: Path, tmp_path: Path) -> None:
    paths = MonitorPaths(directory)
    with (tmp_path / "log").open("wb") as log:
        monitor = subprocess.Popen(
            [*command("run", "--directory", str(directory)), *option.split()],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            preexec_fn=cores_are_allowed,
        )
    try:
        eventually(lambda: is_served(paths), "the monitor to serve", timeout=60)
    finally:
        monitor.send_signal(signal.SIGSEGV)
        _, status = os.waitpid(monitor.pid, 0)
        monitor.returncode = os.waitstatus_to_exitcode(status)
    assert monitor.returncode == -signal.SIGSEGV
    if option:
        # Where this machine makes any core files: what the other case has to prevent.
        if not os.WCOREDUMP(status):
            pytest.skip("no process of this machine leaves a core")
        for core in tmp_path.glob("core*"):
            core.unlink()
    else:
        assert not os.WCOREDUMP(status)
        assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_monitor_is_closed_to_debuggers() -> None:
    program = (
        "import ctypes; from monitor_service.process import keep_memory_private\n"
        "libc = ctypes.CDLL(None); before = libc.prctl(3, 0, 0, 0, 0)\n"
        "keep_memory_private(); print(before, libc.prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, timeout=30)
    assert done.stdout == "1 0\n", "PR_GET_DUMPABLE"


def test_a_worker_with_a_login_says_nothing_of_it(monitor: MonitorProcess, server: Server) -> None:
    with worker(monitor.paths) as one:
        request = one.request(server, offer=Offer({"user": "app", "password": CANARY}))
        assert CANARY not in repr(request)
        topic = one.watch(server, offer=Offer({"user": "app", "password": CANARY}))
        one.until(lambda: one.events_named("NEEDS LOGIN"), "the wrong login to be refused")
        assert CANARY not in json.dumps(one.status())
        assert CANARY not in repr((one.journal, one.updates, one.unasked, one.state))
        assert topic
    assert CANARY not in monitor.log.read_text()
