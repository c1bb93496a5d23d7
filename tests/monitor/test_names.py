"""A name server of the test's own that fails, hangs and changes its mind, asked by a real monitor through the C library.

The monitor runs in a mount namespace with an /etc/resolv.conf of its own, which takes root.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.forwarder import Forwarder
from wrapper.hosts import host_key
from wrapper.monitor.state import HostHealth, Topology, TopologyHost

from .harness import REPOSITORY, MonitorProcess, Worker, worker
from .servers import Server, eventually

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace with another /etc/resolv.conf takes root")

NAME = "db.names.test"
ANSWER, FAIL, MUTE = "answer", "fail", "mute"


class NameServer:
    """Answers on UDP, with the address that it is given: `mode` says whether."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.mode = FAIL
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.own = f"127.{os.getpid() % 200 + 10}.{os.getpid() // 200 % 256}.53"
        self._socket.bind((self.own, 53))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(512)
            if not query:
                return
            self.asked += 1
            if self.mode != MUTE:
                self._socket.sendto(self._reply(query), client)

    def _reply(self, query: bytes) -> bytes:
        """RFC 1035, section 4: the question again, and for an IPv4 address one answer that may not be kept."""
        end = query.index(b"\0", 12) + 5
        number, question = query[:2], query[12:end]
        if self.mode == FAIL:
            return number + struct.pack("!HHHHH", 0x8182, 1, 0, 0, 0) + question
        wants_ipv4 = question[-4:-2] == b"\0\x01"
        head = number + struct.pack("!HHHHH", 0x8180, 1, int(wants_ipv4), 0, 0) + question
        return head + (b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(self.address) if wants_ipv4 else b"")

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (self.own, 53))
        self._thread.join(10)
        self._socket.close()


@pytest.fixture(params=["server", "mysql_server"], ids=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def names(server: Server) -> Iterator[NameServer]:
    with closing(NameServer(server.endpoint)) as one:
        yield one


@pytest.fixture
def prefix(names: NameServer, tmp_path: Path) -> tuple[str, ...]:
    """What makes a command ask the test's name server."""
    (tmp_path / "resolv.conf").write_text(f"nameserver {names.own}\noptions timeout:1 attempts:1\n")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    mounts = " && ".join(f'mount --bind "{tmp_path}/{name}" /etc/{name}' for name in ("resolv.conf", "hosts"))
    return ("unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh")


@pytest.fixture
def monitor(directory: Path, prefix: tuple[str, ...]) -> Iterator[MonitorProcess]:
    one = MonitorProcess(directory, prefix=prefix)
    yield one
    one.stop()
    assert "Traceback" not in one.log.read_text()


def watch(one: Worker, server: Server) -> str:
    # So patient that a busy machine cannot make the server look silent.
    return one.watch(server, interval=3.0, endpoint=NAME, seed=Topology(hosts=(TopologyHost(NAME, server.port),)))


def known(one: Worker, topic: str, server: Server) -> HostHealth:
    return one.cluster(topic).health[host_key(NAME, server.port)]


def until_proved(one: Worker, topic: str, server: Server, what: str) -> None:
    since = one.report(topic, server)

    def is_proved() -> bool:
        one.report(topic, server)  # asks at once; one that a busy monitor reads late is dropped
        return (known(one, topic, server).proved_at or 0) > since

    one.until(is_proved, what, timeout=30)


def test_a_name_server_in_trouble_blames_no_host(monitor: MonitorProcess, names: NameServer, server: Server) -> None:
    with worker(monitor.paths) as one:
        topic = watch(one, server)
        one.until(lambda: "name look-up" in known(one, topic, server).detail, "the failed look-up to be told")
        assert not known(one, topic, server).is_failing
        names.mode = ANSWER
        until_proved(one, topic, server, "a proof")
        for mode in (FAIL, MUTE):
            names.mode = mode
            # A new session is opened to the address that was good last.
            server.drop_sessions()
            eventually(lambda: server.sessions() == 1, "a new session")
            until_proved(one, topic, server, f"a proof while the name server is to {mode}")
        assert all(not update.health.is_failing for _, update in one.updates if type(update).__name__ == "HealthUpdate")


# Connects; then asks, for each line that it reads, and says what came of it and whether a monitor watches.
WORKER = """
import json, sys, wrapper
from tests.drivers import DRIVERS, ask
from wrapper.monitor.process import current_client
connection = wrapper.connect(DRIVERS[sys.argv[1]].connect, **json.loads(sys.argv[2]))
watch = connection.plugin_service.watch.key
print("open", flush=True)
for _ in sys.stdin:
    found = current_client().state.by_watch(watch)
    watched = current_client().is_live and found is not None and found.topology.writer is not None
    print(ask(connection, "SELECT 1"), watched, flush=True)
connection.close()
"""


def test_a_worker_goes_on_while_names_fail(
    monitor: MonitorProcess, names: NameServer, server: Server, prefix: tuple[str, ...]
) -> None:
    names.mode = ANSWER
    driver = {"postgresql": "psycopg", "mysql": "mysql-pure"}[server.engine]
    parameters = {**server.lab.parameters(server.id), "host": NAME, "autocommit": True, "monitor_mode": "attach"}
    one = subprocess.Popen(
        [*prefix, sys.executable, "-c", WORKER, driver, json.dumps(parameters)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "AWS_WRAPPER_MONITOR_DIR": str(monitor.paths.directory)},
    )
    assert one.stdin is not None
    assert one.stdout is not None
    stdin, stdout = one.stdin, one.stdout

    def ask() -> str:
        stdin.write("ask\n")
        stdin.flush()
        return stdout.readline().strip()

    try:
        assert stdout.readline() == "open\n"
        eventually(lambda: ask() == "[(1,)] True", "the monitor to watch")
        for mode in (FAIL, MUTE):
            names.mode = mode
            for _ in range(20):
                assert ask().startswith("[(1,)] ")
            eventually(lambda: ask() == "[(1,)] True", f"the monitor to watch while the name server is to {mode}")
    finally:
        one.communicate()
    assert one.returncode == 0


@pytest.mark.slow
def test_a_name_that_moves_is_followed_and_told(monitor: MonitorProcess, names: NameServer, server: Server) -> None:
    names.mode = ANSWER
    with worker(monitor.paths) as one:
        topic = watch(one, server)
        one.until(lambda: known(one, topic, server).accepting, "a session")
        first = server.endpoint
        # Another address of the same server.
        other = f"127.{os.getpid() % 200 + 10}.{os.getpid() // 200 % 256}.99"
        listener = socket.create_server((other, server.port))
        with closing(Forwarder(listener, lambda: socket.create_connection((server.endpoint, server.port)))):
            names.address = other
            one.until(lambda: known(one, topic, server).address == other, "the other address", timeout=60)
            one.until(lambda: one.events_named("ADDRESS"), "the event")
            assert one.events_named("ADDRESS")[0].evidence == f"{first} -> {other}"
            assert known(one, topic, server).accepting
            # Looked up again and again, in vain: the address stays, and so does the session.
            names.mode = FAIL
            asked = names.asked
            one.until(lambda: names.asked > asked, "another look-up", timeout=60)
            until_proved(one, topic, server, "a proof")
            assert known(one, topic, server).address == other
            names.mode, names.address = ANSWER, first
            one.until(lambda: known(one, topic, server).address == first, "the first address", timeout=60)
        assert not known(one, topic, server).is_failing
