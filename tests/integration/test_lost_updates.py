"""Updates of the monitor that never arrive, and garbage in their place: the client notices, and asks for the whole."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import wrapper
from tests.forwarder import Forwarder
from tests.integration.conftest import client, eventually, forget_client
from tests.integration.test_monitor_faults import Load
from wrapper.monitor.messages import (
    HEARTBEAT_TOPIC,
    JOURNAL_TOPIC,
    Heartbeat,
    Message,
    NeedCredentials,
    Ok,
    Snapshot,
    Watched,
    WatchRequest,
    decode_body,
    decode_envelope,
    encode,
)
from wrapper.monitor.state import (
    ClusterGone,
    ClusterState,
    ClusterUpdate,
    HealthUpdate,
    HostHealth,
    Topology,
    TopologyHost,
    TopologyUpdate,
)
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]


class Relay:
    """Stands between workers and a monitor, with sockets in a directory of its own; drops one update when told to."""

    def __init__(self, directory: Path, monitor: Path) -> None:
        self.drops = 0
        self.dropped: list[str] = []
        self._monitor = monitor
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / "control-1.sock"))
        listener.listen()
        self._control = Forwarder(listener, self._connect)
        self._stop = threading.Event()
        front = self._context.socket(zmq.XPUB)
        front.setsockopt(zmq.XPUB_WELCOME_MSG, HEARTBEAT_TOPIC.encode())
        front.bind(f"ipc://{directory}/events-1.sock")
        self._events = threading.Thread(target=self._publish, args=(front,))
        self._events.start()

    def _publish(self, front: zmq.Socket[bytes]) -> None:
        back = self._context.socket(zmq.SUB)
        back.subscribe("")
        back.connect(f"ipc://{self._monitor}/events-1.sock")
        while not self._stop.is_set():
            if back.poll(20):
                frames = back.recv_multipart()
                topic = frames[0].decode()
                if len(frames) == 2 and topic not in (HEARTBEAT_TOPIC, JOURNAL_TOPIC) and self.drops:
                    self.drops -= 1
                    self.dropped.append(decode_envelope(frames[1]).kind)
                elif len(frames) == 2:
                    front.send_multipart(frames)
            while front.poll(0):
                front.recv()
        for one in (front, back):
            one.close(linger=0)

    def _connect(self) -> socket.socket:
        far = socket.socket(socket.AF_UNIX)
        far.connect(f"{self._monitor}/control-1.sock")
        return far

    def close(self) -> None:
        self._stop.set()
        self._control.close()
        self._events.join(10)
        self._context.destroy(linger=0)


@pytest.fixture
def elsewhere(monitor_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Another directory, where this process looks for its monitor."""
    with tempfile.TemporaryDirectory(prefix="asm-") as name:
        monkeypatch.setenv("AWS_WRAPPER_MONITOR_DIR", name)
        forget_client()
        yield Path(name)
        wrapper.release_resources()
        forget_client()
        monkeypatch.setenv("AWS_WRAPPER_MONITOR_DIR", str(monitor_directory))


@pytest.fixture
def relay(aurora: LocalAurora, monitor_directory: Path, elsewhere: Path) -> Iterator[Relay]:
    """A relay where this process looks for its monitor, and the monitor behind it."""
    monitor = subprocess.Popen(
        [sys.executable, "-m", "monitor_service", "run", "--directory", str(monitor_directory)], stderr=subprocess.DEVNULL
    )
    try:
        eventually((monitor_directory / "control-1.sock").exists, "the monitor")
        relay = Relay(elsewhere, monitor_directory)
        try:
            yield relay
        finally:
            wrapper.release_resources()
            relay.close()
    finally:
        monitor.terminate()
        monitor.wait(20)


@pytest.mark.parametrize("lost", [1, 10**9], ids=["one", "all"])
def test_lost_updates_are_noticed_and_made_good(relay: Relay, watched: Connect, aurora: LocalAurora, lost: int) -> None:
    """Where all are lost, nothing comes after the last one that would show a gap but the heartbeat."""
    connection = watched(monitor_mode="attach")
    watch = connection.plugin_service.watch.key
    (target, *_) = aurora.readers
    relay.drops = lost
    aurora.failover(target.id)

    def writer() -> str:
        cluster = client().state.by_watch(watch)
        return str(cluster.topology.writer) if cluster is not None else ""

    eventually(lambda: relay.dropped, "an update to be lost")
    eventually(lambda: writer().startswith(f"{target.id}."), "the new writer to be known all the same")


# Of another cluster than the test's: what survives the damage must not be evidence against a host of that.
STRANGER = ClusterState(
    "cluster/1/1/",
    "pg",
    ("postgresql://no-such-host.invalid:5432/",),
    Topology(hosts=(TopologyHost("no-such-host.invalid", 5432, "a", "writer"),), writer="no-such-host.invalid:5432", term=1),
    {"no-such-host.invalid:5432": HostHealth("no-such-host.invalid:5432", role="writer", proved_at=1.0, silent=3)},
)
PUBLISHED: tuple[Message, ...] = (
    HealthUpdate(HostHealth("no-such-host.invalid:5432", failing_since=1.0, failed_at=2.0, failures=3, silent=3, kind="silent")),
    TopologyUpdate(STRANGER.topology),
    ClusterUpdate(STRANGER),
    ClusterGone("cluster/1/2/"),
    Heartbeat(at=1.0, pid=1, seqs={"cluster/1/1/": 3}),
)
ANSWERS: tuple[Message, ...] = (
    Watched(STRANGER.watches[0], STRANGER.topic, 15.0),
    Snapshot((STRANGER,), {STRANGER.topic: 3}, 1.0),
    NeedCredentials(STRANGER.watches[0], "none works"),
    Ok(),
)


def damaged(chance: random.Random, sound: bytes) -> bytes:
    """`sound` with some bytes changed, cut out or put in."""
    data = bytearray(sound)
    for _ in range(chance.randint(0, 4)):
        at = chance.randrange(len(data))
        if chance.random() < 0.5:
            data[at] = chance.randrange(256)
        else:
            data[at : at + chance.randint(0, 4)] = chance.randbytes(chance.randint(0, 4))
        data = data or bytearray(b"?")
    return bytes(data)


class Madman(threading.Thread):
    """A monitor that greets, accepts watches, and talks nonsense ever after."""

    def __init__(self, directory: Path, seed: int) -> None:
        super().__init__()
        self.said = 0
        self.stopping = False
        self._chance = random.Random(seed)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._control, self._events = self._context.socket(zmq.ROUTER), self._context.socket(zmq.XPUB)
        self._events.setsockopt(zmq.XPUB_WELCOME_MSG, HEARTBEAT_TOPIC.encode())
        self._control.bind(f"ipc://{directory}/control-1.sock")
        self._events.bind(f"ipc://{directory}/events-1.sock")

    def run(self) -> None:
        topics = (HEARTBEAT_TOPIC, JOURNAL_TOPIC, STRANGER.topic)
        while not self.stopping:
            while self._control.poll(2):
                route, data = self._control.recv_multipart()
                request = decode_body(decode_envelope(data))
                if isinstance(request, WatchRequest):
                    answer = Watched(request.watch.key, STRANGER.topic, 15.0)
                    self._control.send_multipart([route, encode(answer, epoch=1, seq=decode_envelope(data).seq)])
                nonsense = damaged(self._chance, encode(self._chance.choice(ANSWERS), epoch=1, seq=3))
                self._control.send_multipart([route, nonsense])
            self._events.send_multipart([HEARTBEAT_TOPIC.encode(), encode(Heartbeat(1.0, 1, {}), epoch=1, topic=HEARTBEAT_TOPIC)])
            for _ in range(20):
                sound = encode(self._chance.choice(PUBLISHED), epoch=1, topic=STRANGER.topic, seq=self._chance.randint(1, 9))
                frames = [self._chance.choice(topics).encode(), damaged(self._chance, sound)]
                self._events.send_multipart(
                    frames[: self._chance.choice((1, 2, 2, 2))] + frames[:1] * (self._chance.random() < 0.1)
                )
                self.said += 1
        self._context.destroy(linger=0)


@pytest.mark.parametrize(("seed", "count"), [(1, 3000), pytest.param(None, 100_000, marks=pytest.mark.slow)])
def test_a_client_that_is_fed_garbage_does_its_work(
    elsewhere: Path, connect: Connect, seed: int | None, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    madman = Madman(elsewhere, seed)
    madman.start()
    try:
        connection = connect(monitor_mode="attach")
        loop = eventually(lambda: client()._loop, "the client's thread")
        eventually(lambda: loop.garbage > 10, f"garbage to be counted, seed {seed}")
        before = len(os.listdir("/proc/self/fd"))
        with Load(connection) as load:
            said = madman.said
            eventually(lambda: madman.said > said + count, "garbage", timeout=120)
        assert load.errors == []
        assert client()._loop is loop, f"seed {seed}"
        eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "no more descriptors than before")
        assert "failed; it starts again" not in caplog.text, f"seed {seed}"
        assert connection.plugin_service.physical(connection.target_connection).handle.aborted_by is None
    finally:
        madman.stopping = True
        madman.join(10)
