"""Damaged bytes on both sockets: the monitor goes on, counts them, and keeps nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import pytest
import zmq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from wrapper.monitor.messages import (
    Client,
    Message,
    Offer,
    Release,
    Renew,
    Report,
    Settings,
    SnapshotRequest,
    StatusRequest,
    Watch,
    WatchRequest,
    encode,
)
from wrapper.monitor.state import Topology, TopologyHost

from .harness import MonitorProcess, worker
from .servers import Server, eventually

Start = Callable[..., MonitorProcess]
CLIENT = Client(1, 2, "token")
# A name that nobody can resolve, however it is damaged: no probe leaves this machine.
WATCH = Watch("postgresql", "no-such-host.invalid", 5432)
REQUESTS: tuple[Message, ...] = (
    WatchRequest(
        CLIENT,
        WATCH,
        "pg",
        "psycopg",
        Settings(interval=0.2),
        Topology(hosts=(TopologyHost("no-such-host.invalid", 5432, "a", "writer"),)),
        Offer({"user": "app", "password": "?"}),
    ),
    Renew(CLIENT, {"no-such-host.invalid:5432": 3}),
    Report(WATCH, "no-such-host.invalid:5432", 1.0),
    SnapshotRequest((WATCH.key,)),
    StatusRequest(),
    Release(CLIENT),
)
# What a peer says first on a ZeroMQ connection: greeting, then the commands READY and SUBSCRIBE (rfc.zeromq.org/spec/37).
GREETING = b"\xff" + bytes(7) + b"\x01\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
SUBSCRIBE = b"\x04\x0a\x09SUBSCRIBE"
STREAM = GREETING + READY + SUBSCRIBE


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """`sound` with bytes changed, cut out, put in, or repeated."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(("set", "cut", "put", "end", "twice")))
        if how == "set" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif how == "put":
            data[at:at] = draw(st.binary(max_size=8))
        elif how == "end":
            del data[at:]
        else:
            data[at:at] = data[at:]
    return bytes(data)


requests = st.one_of([damaged(encode(request, seq=7)) for request in REQUESTS])
frames = st.lists(st.one_of(st.binary(max_size=64), requests), min_size=1, max_size=3)
streams = st.one_of(st.binary(max_size=200), damaged(STREAM), st.builds(bytes.__add__, st.just(STREAM), st.binary(max_size=64)))


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
def test_damaged_bytes_are_counted_and_forgotten(start_monitor: Start, server: Server, count: int) -> None:
    # Whatever a damaged request happens to start is soon over.
    monitor = start_monitor("--dumpable", "--lease", "5", "--warm", "0.5")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def held() -> int:
        return len(os.listdir(f"/proc/{monitor.pid}/fd"))

    with worker(monitor.paths) as one:
        topic = one.watch(server)
        one.until(lambda: one.writer(topic), "the first proof")
        before = held()

        @examples(count)
        @given(frames, streams)
        def bombard(message: list[bytes], stream: bytes) -> None:
            requester.send_multipart(message)
            subscriber.send_multipart(message)
            for path in (monitor.paths.control, monitor.paths.events):
                with socket.socket(socket.AF_UNIX) as raw:
                    raw.connect(str(path))
                    try:
                        raw.sendall(stream)
                    except (BrokenPipeError, ConnectionResetError):
                        pass  # it has seen enough
            one.renew()

        with context.socket(zmq.DEALER) as requester, context.socket(zmq.XSUB) as subscriber:
            for peer, url in ((requester, monitor.paths.control_url), (subscriber, monitor.paths.events_url)):
                peer.setsockopt(zmq.LINGER, 0)
                peer.connect(url)
            bombard()
        context.destroy(linger=0)
        counters = one.status()["counters"]
        assert counters["garbage"] > 0
        assert "failed requests" not in counters
        one.until_proved_since_report(topic, server)
        eventually(lambda: one.renew() and held() <= before, "no more descriptors than before", timeout=60)
        assert monitor.log.read_text().count("dropped a damaged request") == 1
