"""What one process may not do to another, by the monitor: limits, admission, shared and remote monitors, secrets."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from monitor_service.cli import main
from monitor_service.client import MonitorConnection
from monitor_service.gate import Rules
from wrapper.monitor.messages import Message, Offer, Refused, Status, StatusRequest, StopRequest, Watched
from wrapper.monitor.paths import MonitorDirectoryError, MonitorPaths, events_url, locate
from wrapper.monitor.state import Topology, TopologyHost

from .harness import REPOSITORY, MonitorProcess, login, worker
from .servers import Server, eventually
from .users import ALICE, BOB, GROUP, OWNER, STRANGER, as_user, python

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
            (other.ask(other.request(server)), "clients", "1 are allowed (--max-clients)"),
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


@pytest.fixture
def foreign_monitor(directory: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a monitor of the user `OWNER`."""
    os.chown(directory, OWNER if os.getuid() == 0 else -1, -1)
    started: list[subprocess.Popen[bytes]] = []
    log = directory / "log"

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [python(), "-m", "monitor_service", "run", "--directory", str(directory), *arguments]
        with log.open("wb") as output:
            started.append(subprocess.Popen(command, stdout=output, stderr=output, **as_user(OWNER, GROUP)))
        eventually(lambda: "STARTED" in log.read_text(), "the monitor to serve", timeout=30)
        return started[-1]

    yield start
    for one in started:
        one.terminate()
        one.wait(10)
        assert "Traceback" not in log.read_text(), log.read_text()


def test_a_foreign_user_is_refused_even_where_the_files_let_it_in(
    foreign_monitor: Callable[..., subprocess.Popen[bytes]], directory: Path
) -> None:
    foreign_monitor()
    paths = MonitorPaths(directory)
    directory.chmod(0o777)
    for path in (paths.control, paths.events):
        path.chmod(0o666)
    program = (
        "import sys, zmq; from pathlib import Path\n"
        "from monitor_service.client import MonitorConnection\n"
        "from wrapper.monitor.messages import StatusRequest\n"
        "from wrapper.monitor.paths import MonitorPaths\n"
        "with MonitorConnection(MonitorPaths(Path(sys.argv[1]))) as connection:\n"
        "    try: connection.ask(StatusRequest(), timeout=1.0)\n"
        "    except TimeoutError: print('no answer')\n"
        "    try: print(next(connection.journal(idle=1.0)))\n"
        "    except StopIteration: pass\n"
    )
    done = subprocess.run([python(), "-c", program, str(directory)], capture_output=True, text=True, timeout=30, **as_user(BOB))
    assert (done.stdout, done.stderr) == ("no answer\nNone\n", "")
    with MonitorConnection(paths) as connection:
        answer = connection.ask(StatusRequest())  # root is admitted
    assert isinstance(answer, Status)
    assert answer.document["counters"]["refused peers"] >= 2
    log = (directory / "log").read_text()
    assert log.count(f"refused a connection of uid {BOB}") == 1


# -- a monitor that several users share ----------------------------------------------------------------------------------------


class Honeypot:
    """A server that asks for a password in clear text, and keeps whatever it is sent."""

    def __init__(self) -> None:
        self.heard = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with client:
            try:
                client.settimeout(10)
                client.recv(8)
                client.sendall(b"N")  # no TLS
                while data := client.recv(4096):
                    self.heard += data
                    client.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()


class Member:
    """A worker of another user: runs `body` with a `Worker` called `w`, whose last value is printed as JSON."""

    def __init__(self, uid: int, directory: Path, body: str, *arguments: str, groups: tuple[int, ...] = (GROUP,)) -> None:
        program = (
            "import json, sys; from pathlib import Path; from tests.monitor.harness import *\n"
            "from wrapper.monitor.messages import *; from wrapper.monitor.state import *\n"
            "def say(value): print(json.dumps(value), flush=True)\n"
            f"w = Worker(MonitorPaths(Path({str(directory)!r})))\n{body}"
        )
        self.process = subprocess.Popen(
            [python(), "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **as_user(uid, *groups),
        )

    def says(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate(timeout=10)[1])
        return json.loads(line)

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=10)


ALICE_DOES = """
host, port, offer = sys.argv[1], int(sys.argv[2]), Offer(json.loads(sys.argv[3]))
server = Server(None, "x", host, port)
topic = w.watch(server, offer=offer, interval=0.1)
w.until(lambda: w.writer(topic), "the first proof")
say([topic, w.client.pid, w.client.started, w.client.token])
sys.stdin.readline()
w.snapshot(w.request(server, offer=None).watch.key)
say({"renewed": type(w.renew()).__name__, "status": w.status(), "accepting": w.health(topic, server).accepting})
sys.stdin.readline()
"""

BOB_DOES = """
host, port, pot, claimed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Client(*json.loads(sys.argv[4]))
server, trap = Server(None, "x", host, port), Server(None, "x", "127.0.0.1", pot)
# The same endpoint, with Alice's server and one of his own as members, and no login at all.
topic = w.watch(server, trap, offer=None, interval=0.1)
# The same in Alice's name.
imposed = w.ask(w.request(server, trap, offer=None, client=claimed))
released = w.ask(Release(claimed))
w.report(topic, server)
w.until(lambda: w.health(topic, server).detail, "Bob's probe without a login")
# What he offers himself does get there, so the trap works.
w.watch(server, trap, offer=Offer({"user": "bob", "password": "bobs-own", "dbname": "postgres"}), interval=0.1)
say({"topic": topic, "imposed": imposed.topic, "stop": w.ask(StopRequest()).reason, "drain": w.ask(DrainRequest()).reason,
     "snapshot": [one.topic for one in w.snapshot(w.request(server, offer=None).watch.key).clusters],
     "status": w.status()})
sys.stdin.readline()
say({"writer": w.writer(topic), "status": w.status()})
"""


def test_users_of_a_shared_monitor_cannot_use_each_others_logins(
    foreign_monitor: Callable[..., subprocess.Popen[bytes]], directory: Path, server: Server
) -> None:
    monitor = foreign_monitor("--group", str(GROUP))
    modes = {path.name: f"{path.stat().st_mode & 0o7777:04o}" for path in (directory, *directory.iterdir())}
    assert modes == {
        directory.name: "2750",
        "log": modes["log"],
        "control-1.sock": "0660",
        "events-1.sock": "0660",
        "monitor-1.lock": "0600",
    }
    offered = {**login(server).parameters, "password": server.lab.password}
    pot = Honeypot()
    alice = Member(ALICE, directory, ALICE_DOES, server.endpoint, str(server.port), json.dumps(offered))
    bob = None
    try:
        topic, *identity = alice.says()
        bob = Member(BOB, directory, BOB_DOES, server.endpoint, str(server.port), str(pot.port), json.dumps(identity))
        his = bob.says()
        assert his["topic"] == his["imposed"] != topic
        assert his["snapshot"] == [his["topic"]], "nothing of Alice's, by whatever name"
        for answer in (his["stop"], his["drain"]):
            assert answer == f"only uid {OWNER} and root may end this monitor, not uid {BOB}"
        assert {lease["owner"] for lease in his["status"]["leases"]} == {f"uid {BOB}"}
        assert [cluster["topic"] for cluster in his["status"]["clusters"]] == [his["topic"]]
        assert str(topic) not in json.dumps(his["status"])
        eventually(lambda: b"bobs-own" in pot.heard, "Bob's own login to walk into his trap")
        bob.go_on()
        assert bob.says()["writer"] is None, "no session of Alice's proves anything to Bob"
        alice.go_on()
        hers = alice.says()
        assert hers["renewed"] == "Ok", "Bob cannot give Alice's lease up"
        assert hers["accepting"]
        assert [(cluster["offers"], len(cluster["hosts"])) for cluster in hers["status"]["clusters"]] == [(1, 1)]
        assert server.lab.password.encode() not in pot.heard
        assert monitor.poll() is None
        with MonitorConnection(MonitorPaths(directory)) as connection:
            answer = connection.ask(StatusRequest())
        assert isinstance(answer, Status)
        assert {cluster["owner"] for cluster in answer.document["clusters"]} == {f"uid {ALICE}", f"uid {BOB}"}, "root sees all"
    finally:
        pot.close()
        alice.close()
        if bob is not None:
            bob.close()


def test_only_members_reach_a_shared_monitor_and_only_by_naming_its_owner(
    foreign_monitor: Callable[..., subprocess.Popen[bytes]], directory: Path
) -> None:
    foreign_monitor("--group", str(GROUP))
    program = (
        "import os, sys; from wrapper.monitor.paths import *; from wrapper.monitor.launch import is_served\n"
        "try:\n"
        "    paths = locate(); print(paths.directory, paths.may_start, is_served(paths))\n"
        "except MonitorDirectoryError as error: print(error)\n"
    )

    def tries(uid: int, *groups: int, **environment: str) -> str:
        settings = as_user(uid, *groups)
        settings["env"] |= {"AWS_WRAPPER_MONITOR_DIR": str(directory), **environment}
        done = subprocess.run([python(), "-c", program], capture_output=True, text=True, timeout=30, **settings)
        assert done.stderr == ""
        return done.stdout.strip()

    owner = {"AWS_WRAPPER_MONITOR_OWNER": str(OWNER)}
    assert tries(ALICE, GROUP, **owner) == f"{directory} False True"
    assert tries(STRANGER, **owner) == f"{directory} False False", "the kernel does not let it in"
    assert "AWS_WRAPPER_MONITOR_OWNER to the user of a shared monitor" in tries(ALICE, GROUP)
    assert f"belongs to uid {OWNER}, not to uid {BOB}" in tries(ALICE, GROUP, AWS_WRAPPER_MONITOR_OWNER=str(BOB))
    assert "is no user of this machine" in tries(ALICE, GROUP, AWS_WRAPPER_MONITOR_OWNER="nobody-at-all")


# -- a monitor that is reached over TCP ----------------------------------------------------------------------------------------


def free_url() -> str:
    """A tcp:// address whose port and the next one are free."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1]
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


def test_a_monitor_leaves_no_core(start_monitor: Start) -> None:
    monitor = start_monitor()
    limits = Path(f"/proc/{monitor.pid}/limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
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
