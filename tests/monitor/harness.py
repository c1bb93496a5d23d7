"""A monitor process, and a worker that speaks the protocol over real sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zmq

from monitor_service.client import this_client
from monitor_service.election import is_held
from wrapper.monitor.curve import encrypt
from wrapper.monitor.messages import (
    HEARTBEAT_TOPIC,
    JOURNAL_TOPIC,
    Envelope,
    Journal,
    Message,
    Offer,
    Renew,
    Report,
    Settings,
    Snapshot,
    SnapshotRequest,
    Status,
    StatusRequest,
    Watch,
    Watched,
    WatchRequest,
    decode_body,
    decode_envelope,
    encode,
)
from wrapper.monitor.parts import Joiner
from wrapper.monitor.paths import MonitorPaths
from wrapper.monitor.state import (
    FROM_DIRECT,
    ClusterGone,
    ClusterState,
    ClusterUpdate,
    HealthUpdate,
    HostHealth,
    SharedState,
    Topology,
    TopologyHost,
    TopologyUpdate,
    adopt,
    apply,
)

from .servers import PATIENCE, Server, eventually

DRIVERS = {"postgresql": "psycopg", "mysql": "mysql-connector-python"}
REPOSITORY = Path(__file__).parent.parent.parent


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "monitor_service", *arguments]


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the command line on the monitor in `directory`."""
    name, *rest = arguments
    return subprocess.run(
        command(name, "--directory", str(directory), *rest), capture_output=True, text=True, timeout=30, cwd=REPOSITORY
    )


def login(server: Server, password: str | None = None) -> Offer:
    """The application's login values, or a wrong password."""
    lab = server.lab
    values = lab.parameters(server.id, password=password or lab.password)
    return Offer({name: value for name, value in values.items() if name not in ("host", "port")})


class MonitorProcess:
    """`python -m monitor_service run` with a directory of its own. `environment` is added to ours; `prefix`: a command that becomes
    the one that follows it."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        wait: bool = True,
        environment: dict[str, str] | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.paths = MonitorPaths(directory)
        self.log = directory / f"log-{time.monotonic_ns()}"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command("run", "--directory", str(directory), *arguments)],
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env={**os.environ, **(environment or {})},
            )
        self.pid = self.process.pid
        if wait:
            eventually(self.serves, f"the monitor to serve; its log: {self.log.read_text()}")

    def serves(self) -> bool:
        return f"pid {self.pid}, epoch" in self.log.read_text()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


class Worker:
    """What a worker's client does, one call at a time."""

    def __init__(self, paths: MonitorPaths) -> None:
        self.client = this_client()
        self.state = SharedState()
        self.updates: list[tuple[str, Any]] = []
        self.journal: list[Journal] = []
        self.unasked: list[Message] = []
        self.beats = 0
        self.welcomed = False
        self._seq = 0
        self._joiner = Joiner()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.control = self._context.socket(zmq.DEALER)
        self.events = self._context.socket(zmq.SUB)
        for socket in (self.control, self.events):
            socket.setsockopt(zmq.LINGER, 0)
            encrypt(socket, paths.keys)
        self.events.subscribe(HEARTBEAT_TOPIC)
        self.events.subscribe(JOURNAL_TOPIC)
        self.control.connect(paths.control_url)
        self.events.connect(paths.events_url)
        self.until(lambda: self.welcomed and self.beats, "welcome and heartbeat")

    def close(self) -> None:
        self._context.destroy(linger=0)

    # -- control ---------------------------------------------------------------------------------------------------------------

    def ask(self, message: Message, timeout: float = PATIENCE) -> Message:
        self._seq += 1
        self.control.send(encode(message, seq=self._seq))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.control.poll(20):
                envelope = self._joiner.envelope(self.control.recv())
                if envelope is None:
                    continue
                answer = decode_body(envelope)
                assert answer is not None
                if envelope.seq == self._seq:
                    return answer
                self.unasked.append(answer)
        raise AssertionError(f"no answer to {type(message).__name__} within {timeout} s")

    def request(self, *servers: Server, **changes: Any) -> WatchRequest:
        settings = Settings(interval=changes.pop("interval", 0.2), instance_template=changes.pop("template", "?"))
        first = servers[0]
        values: dict[str, Any] = {
            "client": self.client,
            "watch": Watch(first.engine, changes.pop("endpoint", first.endpoint), first.port, changes.pop("cluster_id", None)),
            "dialect": first.dialect,
            "driver": DRIVERS[first.engine],
            "settings": settings,
            "seed": Topology(hosts=tuple(TopologyHost(one.endpoint, one.port) for one in servers), source=FROM_DIRECT),
        }
        if "offer" not in changes:
            values["offer"] = login(first)
        return WatchRequest(**{**values, **changes})

    def watch(self, *servers: Server, **changes: Any) -> str:
        """Watch, follow the topic, adopt the snapshot. Returns the topic."""
        request = self.request(*servers, **changes)
        answer = self.ask(request)
        assert isinstance(answer, Watched), answer
        self.events.subscribe(answer.topic)
        self.snapshot(request.watch.key)
        return answer.topic

    def snapshot(self, *watches: str) -> Snapshot:
        answer = self.ask(SnapshotRequest(watches))
        assert isinstance(answer, Snapshot)
        self.state = adopt(self.state, self.state.epoch or self._epoch, answer.clusters, answer.seqs)
        return answer

    def report(self, topic: str, server: Server, error: str = "network", at: float | None = None) -> float:
        """Report a failed connection, as seen now or `at`; return the time reported."""
        moment = time.monotonic() if at is None else at
        endpoint = self.cluster(topic).watches[0].partition("://")[2].rpartition(":")[0]
        watch = Watch(server.engine, endpoint, server.port)
        self.control.send(encode(Report(watch, server.key, moment, error=error), seq=0))
        return moment

    def until_proved_since_report(self, topic: str, server: Server) -> None:
        """Report a failed connection, and wait for the writer's proof that is younger than the first report."""
        since = self.report(topic, server)

        def is_proved() -> bool:
            self.report(topic, server)  # a hint that a busy monitor reads late is dropped
            return (self.cluster(topic).writer_proved_at or 0) > since

        self.until(is_proved, "a proof after the report")

    def renew(self, **connections: int) -> Message:
        return self.ask(Renew(self.client, connections))

    def status(self) -> dict[str, Any]:
        answer = self.ask(StatusRequest())
        assert isinstance(answer, Status)
        return answer.document

    # -- events ----------------------------------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
        """Take events in until `condition` holds."""
        deadline = time.monotonic() + timeout
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout:g} s for {what}; known: {self.state.clusters}; journal: {self.journal[-8:]}")
            if self.events.poll(20):
                self._take(self.events.recv_multipart())

    def follow(self, seconds: float) -> None:
        """Take in whatever is published during `seconds` (for claims that something does not happen)."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.events.poll(10):
                self._take(self.events.recv_multipart())

    def _take(self, frames: list[bytes]) -> None:
        if frames == [HEARTBEAT_TOPIC.encode()]:
            self.welcomed = True
            return
        envelope: Envelope = decode_envelope(frames[1])
        message = decode_body(envelope)
        self._epoch = envelope.epoch
        if envelope.topic == HEARTBEAT_TOPIC:
            self.beats += 1
        elif isinstance(message, Journal):
            self.journal.append(message)
        elif isinstance(message, (HealthUpdate, TopologyUpdate, ClusterUpdate, ClusterGone)):
            self.updates.append((envelope.topic, message))
            if envelope.topic not in self.state.seqs:
                return  # no snapshot of it yet, or not any more
            self.state = apply(self.state, envelope.epoch, envelope.topic, envelope.seq, message)

    def cluster(self, topic: str) -> ClusterState:
        return self.state.clusters[topic]

    def health(self, topic: str, server: Server) -> HostHealth:
        return self.cluster(topic).health[server.key]

    def writer(self, topic: str) -> str | None:
        """The writer that has been accepted and has proved itself."""
        cluster = self.cluster(topic)
        return cluster.topology.writer if cluster.writer_proved_at is not None else None

    def until_writer(self, topic: str, server: Server) -> None:
        self.until(lambda: self.writer(topic) == server.key, f"{server.key} to be the writer")

    def events_named(self, event: str) -> list[Journal]:
        return [entry for entry in self.journal if entry.event == event]


@contextmanager
def worker(paths: MonitorPaths) -> Iterator[Worker]:
    one = Worker(paths)
    try:
        yield one
    finally:
        one.close()


def is_free(paths: MonitorPaths) -> bool:
    return not is_held(paths)


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used: what it does, and not how busy the machine is."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")
