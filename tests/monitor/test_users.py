"""Monitors of other users, and one that several users share: with real users, where the tests run as root."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from monitor_service.client import MonitorConnection
from wrapper.monitor.messages import Offer, Status, StatusRequest
from wrapper.monitor.paths import MonitorPaths

from .harness import login, worker
from .impostors import Impostor
from .servers import Server, eventually
from .users import ALICE, BOB, GROUP, OWNER, STRANGER, as_user, python


@pytest.fixture
def foreign_monitor(directory: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a monitor of the user `OWNER`."""
    os.chown(directory, OWNER if os.getuid() == 0 else -1, -1)
    started: list[subprocess.Popen[bytes]] = []
    log = directory / "log"

    def start(*arguments: str, home: str = "/") -> subprocess.Popen[bytes]:
        command = [python(), "-m", "monitor_service", "run", "--directory", str(directory), *arguments]
        settings = as_user(OWNER, GROUP)
        settings["env"] |= {"HOME": home}
        with log.open("wb") as output:
            started.append(subprocess.Popen(command, stdout=output, stderr=output, **settings))
        eventually(lambda: "STARTED" in log.read_text(), "the monitor to serve", timeout=30)
        return started[-1]

    yield start
    for one in started:
        one.terminate()
        one.wait(20)
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
        "    try: connection.subscribe(timeout=1.0)\n"
        "    except TimeoutError: print('no events')\n"
    )
    done = subprocess.run([python(), "-c", program, str(directory)], capture_output=True, text=True, timeout=30, **as_user(BOB))
    assert (done.stdout, done.stderr) == ("no answer\nno events\n", "")
    with MonitorConnection(paths) as connection:
        answer = connection.ask(StatusRequest())  # root is admitted
    assert isinstance(answer, Status)
    assert answer.document["counters"]["refused peers"] >= 2
    log = (directory / "log").read_text()
    assert log.count(f"refused a connection of uid {BOB}") == 1


class Honeypot(Impostor):
    """A server that asks for a password in clear text, and keeps whatever it is sent."""

    def __init__(self) -> None:
        self.heard = b""
        super().__init__(self._talk)

    def _talk(self, client: socket.socket) -> None:
        client.settimeout(20)
        client.recv(8)
        client.sendall(b"N")  # no TLS
        while data := client.recv(4096):
            self.heard += data
            client.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword


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
        "bell-1": "0640",
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


def test_members_of_the_group_hear_the_bell_and_cannot_ring_it(
    foreign_monitor: Callable[..., subprocess.Popen[bytes]], directory: Path
) -> None:
    foreign_monitor("--group", str(GROUP))
    with MonitorConnection(MonitorPaths(directory)) as connection:
        answer = connection.ask(StatusRequest())
    assert isinstance(answer, Status)
    epoch = answer.document["epoch"]
    program = (
        "import sys; from pathlib import Path; from wrapper.monitor.bell import *; from wrapper.monitor.paths import MonitorPaths\n"
        f"paths = MonitorPaths(Path({str(directory)!r}), owner={OWNER})\n"
        f"attach(paths, {epoch}); print(position(BELL)[0])\n"
        "try: open(paths.bell, 'r+b'); print('may write')\n"
        "except PermissionError: print('may not write')\n"
    )

    def finds(uid: int, *groups: int) -> str:
        done = subprocess.run([python(), "-c", program], capture_output=True, text=True, timeout=30, **as_user(uid, *groups))
        return str(done.stdout + done.stderr)

    assert finds(ALICE, GROUP) == f"{epoch}\nmay not write\n"
    assert finds(STRANGER) == "0\nmay not write\n"


BOB_TRIES = """
trap, passfile = Server(None, "x", "127.0.0.1", int(sys.argv[1])), sys.argv[2]
for offer in ({"user": "postgres"}, {"user": "postgres", "passfile": passfile}):
    w.watch(trap, offer=Offer(offer), interval=0.1)
    w.until(lambda: w.events_named("LOGIN REFUSED"), f"{sorted(offer)} to be tried")
    w.ask(Release(w.client))
    w.until(lambda: w.events_named("FORGOTTEN"), "the cluster to be forgotten")
    w.journal.clear()
w.watch(trap, offer=Offer({"user": "postgres", "password": "bobs-own"}), interval=0.1)
say("tried")
sys.stdin.readline()
"""


def test_a_member_cannot_use_the_files_of_the_monitors_own_user(
    foreign_monitor: Callable[..., subprocess.Popen[bytes]], directory: Path
) -> None:
    with tempfile.TemporaryDirectory() as home, closing(Honeypot()) as pot:
        passfile = Path(home) / ".pgpass"
        passfile.write_text("*:*:*:*:owners-own\n")
        passfile.chmod(0o600)
        for path in (Path(home), passfile):
            os.chown(path, OWNER, OWNER)
        foreign_monitor("--group", str(GROUP), "--warm", "0.1", home=home)
        with closing(Member(BOB, directory, BOB_TRIES, str(pot.port), str(passfile))) as bob:
            assert bob.says() == "tried"
            eventually(lambda: b"bobs-own" in pot.heard, "Bob's own login to walk into the trap")
        assert b"owners-own" not in pot.heard
        with worker(MonitorPaths(directory)) as operator:
            # What the monitor's own user, or root, offers may be made whole from that user's files.
            operator.watch(Server(None, "x", "127.0.0.1", pot.port), offer=Offer({"user": "postgres"}))  # type: ignore[arg-type]
            eventually(lambda: b"owners-own" in pot.heard, "the password of the file")


def test_no_other_process_reads_the_memory_of_a_monitor(foreign_monitor: Callable[..., subprocess.Popen[bytes]]) -> None:
    program = "import sys\ntry: open(f'/proc/{sys.argv[1]}/mem', 'rb'); print('open')\nexcept PermissionError: print('closed')"

    def looks(pid: int) -> str:
        """What a process of the monitor's own user finds."""
        done = subprocess.run([python(), "-c", program, str(pid)], capture_output=True, text=True, timeout=30, **as_user(OWNER))
        return str(done.stdout).strip()

    assert looks(foreign_monitor().pid) == "closed"
    with subprocess.Popen([python(), "-c", "input()"], stdin=subprocess.PIPE, **as_user(OWNER)) as other:
        assert looks(other.pid) == "open", "a process that does not keep its memory private"
        other.communicate(b"\n")


@pytest.mark.slow
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
        return str(done.stdout).strip()

    owner = {"AWS_WRAPPER_MONITOR_OWNER": str(OWNER)}
    assert tries(ALICE, GROUP, **owner) == f"{directory} False True"
    assert tries(STRANGER, **owner) == f"{directory} False False", "the kernel does not let it in"
    assert "AWS_WRAPPER_MONITOR_OWNER to the user of a shared monitor" in tries(ALICE, GROUP)
    assert f"belongs to uid {OWNER}, not to uid {BOB}" in tries(ALICE, GROUP, AWS_WRAPPER_MONITOR_OWNER=str(BOB))
    assert "is no user of this machine" in tries(ALICE, GROUP, AWS_WRAPPER_MONITOR_OWNER="nobody-at-all")
