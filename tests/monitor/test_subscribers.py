"""A subscriber that reads slowly or not at all loses messages; nobody else does, and the monitor keeps no more than it said."""

from __future__ import annotations

import pytest
import zmq

from wrapper.monitor.messages import decode_envelope
from wrapper.monitor.state import FROM_DIRECT, Topology, TopologyHost

from .harness import MonitorProcess, Worker
from .servers import Server

# Hosts where nobody listens: each is worth a line in the journal.
HOSTS = 50
CLUSTERS = 40


def refusing(number: int) -> Topology:
    hosts = tuple(TopologyHost(f"127.254.{number}.{host}", 9) for host in range(1, HOSTS + 1))
    return Topology(hosts=hosts, source=FROM_DIRECT)


@pytest.mark.slow
def test_who_never_reads_loses_messages_and_nobody_else(monitor: MonitorProcess, worker: Worker, server: Server) -> None:
    one = worker
    topic = one.watch(server, interval=30.0)
    one.until(lambda: one.writer(topic), "the first proof")
    watches = one.cluster(topic).watches
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    lazy = [context.socket(zmq.SUB) for _ in range(5)]
    for socket in lazy:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVHWM, 1)
        socket.setsockopt(zmq.RCVBUF, 4096)
        socket.subscribe("")
        socket.connect(monitor.paths.events_url)
        assert socket.poll(5000)
    for number in range(CLUSTERS):
        # A few at a time: a monitor that is held up puts their refusals down to itself.
        watched = one.watch(server, cluster_id=f"c{number}", seed=refusing(number), endpoint=f"127.254.{number}.1", interval=5.0)
        one.until(lambda watched=watched: is_known(one, watched), "every refusal")  # type: ignore[misc]
    # Who reads has got everything, or would have met a gap, and is served.
    one.snapshot(*watches)
    one.until_proved_since_report(topic, server)
    for socket in lazy:
        # Besides a thousand messages in the monitor there is what the kernel keeps.
        assert kept(socket) < 2 * HOSTS * CLUSTERS
    context.destroy(linger=0)


def is_known(one: Worker, topic: str) -> bool:
    one.snapshot(*one.cluster(topic).watches)
    return all(health.detail for health in one.cluster(topic).health.values())


def kept(socket: zmq.Socket[bytes]) -> int:
    """Read what the monitor kept for a subscriber, and return how many messages that was before some are missing."""
    last: dict[bytes, int] = {}
    count = 0
    while socket.poll(2000):
        topic, *data = socket.recv_multipart()
        if data:
            seq = decode_envelope(data[0]).seq
            if seq > last.get(topic, seq) + 1:
                return count
            last[topic] = seq
            count += 1
    raise AssertionError(f"nothing was lost: {count} messages were kept")
