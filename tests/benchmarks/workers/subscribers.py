"""Many clients of the monitor in one process, each with sockets and a lease of its own, that note when news has reached them all.

All watch the first host, the *subject*, and each one other of the hosts. Every client is also subscribed to a bare publisher, which
sends what the monitor sent last. Events: `told` and `bare` when every client of this process has a piece of news, `silent` when the
subject's probes have found it silent `count` times in a row, `well` when it answers again.
"""

from __future__ import annotations

import os
import resource
import time
from typing import Any

import zmq

from tests.benchmarks.workers.parent import arguments, listen, tell
from wrapper.hosts import host_key
from wrapper.monitor.client import process_started
from wrapper.monitor.messages import (
    HEARTBEAT_TOPIC,
    RENEW_INTERVAL,
    Client,
    Message,
    Offer,
    Renew,
    Settings,
    Watch,
    Watched,
    WatchRequest,
    decode_body,
    decode_envelope,
    encode,
)
from wrapper.monitor.state import FROM_DIRECT, ClusterState, ClusterUpdate, HealthUpdate, HostHealth, Topology, TopologyHost

BARE_TOPIC = "bare/"


class Subscriber:
    """One client: what a worker's client thread has open."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], given: dict[str, Any], hosts: list[tuple[str, int]]) -> None:
        self.identity = Client(os.getpid(), process_started(os.getpid()), os.urandom(8).hex())
        self.control = context.socket(zmq.DEALER)
        self.events = context.socket(zmq.SUB)
        self.bare = context.socket(zmq.SUB)
        for socket in (self.control, self.events, self.bare):
            socket.setsockopt(zmq.LINGER, 0)
        self.events.subscribe(HEARTBEAT_TOPIC)
        self.bare.subscribe(BARE_TOPIC)
        self.control.connect(given["control_url"])
        self.events.connect(given["events_url"])
        self.bare.connect(given["bare_url"])
        settings = Settings(interval=given["interval"])
        for host, port in hosts:
            watch = Watch("postgresql", host, port)
            seed = Topology(hosts=(TopologyHost(host, port),), source=FROM_DIRECT)
            self.say(WatchRequest(self.identity, watch, "pg", "psycopg", settings, seed, Offer(given["login"])))

    def say(self, message: Message) -> None:
        self.control.send(encode(message, seq=1))


class Tally:
    """Counts the clients that a piece of news has reached; tells of the last one."""

    def __init__(self, event: str, clients: int) -> None:
        self._event = event
        self._clients = clients
        self._reached: dict[object, int] = {}

    def count(self, news: object, **facts: Any) -> None:
        self._reached[news] = self._reached.get(news, 0) + 1
        if self._reached[news] == self._clients:
            tell(self._event, **facts)


def subject_health(message: Message | None, key: str) -> HostHealth | None:
    """Return what a message says of the host with this key, None when nothing."""
    if isinstance(message, HealthUpdate):
        return message.health if message.health.key == key else None
    cluster: ClusterState | None = message.cluster if isinstance(message, ClusterUpdate) else None
    return None if cluster is None else cluster.health.get(key)


def main() -> None:
    given = arguments()
    stopping = listen()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 8192)
    subject, *others = [(address, given["port"]) for address in given["addresses"]]
    key = host_key(*subject)
    subscribers = [Subscriber(context, given, [subject, *others[number : number + 1]]) for number in given["numbers"]]
    by_socket: dict[zmq.Socket[bytes], tuple[str, Subscriber]] = {}
    poller = zmq.Poller()
    for one in subscribers:
        for kind, socket in (("control", one.control), ("events", one.events), ("bare", one.bare)):
            by_socket[socket] = kind, one
            poller.register(socket, zmq.POLLIN)
    told, bare = Tally("told", len(subscribers)), Tally("bare", len(subscribers))
    watched = 0
    topic = ""
    failing = False
    silent = 0
    renew_at = time.monotonic() + RENEW_INTERVAL
    tell("ready")
    while not stopping.is_set():
        for socket, _ in poller.poll(50):
            kind, one = by_socket[socket]
            frames = socket.recv_multipart()
            if kind == "control":
                answer = decode_body(decode_envelope(frames[0]))
                if isinstance(answer, Watched):
                    one.events.subscribe(answer.topic)
                    topic = answer.topic if answer.watch.endswith(key) else topic
                    watched += 1
                    if watched == len(subscribers) * (2 if others else 1):
                        tell("watched", topic=topic)
                continue
            if len(frames) == 1:
                continue  # the publisher's welcome
            envelope = decode_envelope(frames[1])
            message = decode_body(envelope)
            if kind == "bare":
                bare.count(envelope.seq, seq=envelope.seq)
                continue
            health = subject_health(message, key)
            if health is None:
                continue
            if health.failing_since is not None:
                told.count(health.failing_since, failed_at=health.failed_at)
            if one is not subscribers[0]:
                continue
            if failing and not health.is_failing:
                tell("well")
            if health.silent > silent:
                tell("silent", count=health.silent)
            failing, silent = health.is_failing, health.silent
        if time.monotonic() >= renew_at:
            renew_at = time.monotonic() + RENEW_INTERVAL
            for one in subscribers:
                one.say(Renew(one.identity, {key: 1}))
    context.destroy(linger=0)


if __name__ == "__main__":
    main()
