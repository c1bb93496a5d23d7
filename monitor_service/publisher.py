"""The events socket: one topic and one sequence per cluster, heartbeats, and the journal with its ring."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter, deque
from time import monotonic, time

import zmq

from monitor_service.bell import Bell
from monitor_service.logs import ENTRY
from wrapper.monitor.messages import (
    HEARTBEAT_TOPIC,
    JOURNAL_TOPIC,
    Heartbeat,
    Journal,
    encode,
)
from wrapper.monitor.peer import guard
from wrapper.monitor.state import Update

logger = logging.getLogger(__name__)

RING = 1000
# Messages that may wait for one slow subscriber before it loses some and sees a gap.
HIGH_WATER_MARK = 1000
# Seconds. New subscribers are greeted together: a thousand of them may come at once.
GREETING_DELAY = 0.01
# Bytes. Each is kept, at some fifty times its size.
LARGEST_SUBSCRIPTION = 1024
# Subscriptions read per turn of the loop.
BATCH = 500


class Publisher:
    """Publishes on an XPUB socket. A subscriber first gets the welcome (one frame, `HEARTBEAT_TOPIC`), and a heartbeat soon after
    its subscription was taken in. `bell`: rung for every update of a cluster, before it is sent."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], epoch: int) -> None:
        self.epoch = epoch
        self.ring: deque[Journal] = deque(maxlen=RING)
        self.counters: Counter[str] = Counter()
        self.seqs: dict[str, int] = {}
        self.bell: Bell | None = None
        self._beats = 0
        self._greeting: asyncio.TimerHandle | None = None
        self.socket = context.socket(zmq.XPUB)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        self.socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_SUBSCRIPTION)
        guard(self.socket)
        self.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self.socket.setsockopt(zmq.XPUB_WELCOME_MSG, HEARTBEAT_TOPIC.encode())

    def start(self) -> None:
        """Begin to read subscriptions on the running loop."""
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._drain)
        self._drain()

    def stop(self) -> None:
        """Publish nothing any more."""
        asyncio.get_running_loop().remove_reader(self.socket.fileno())
        if self._greeting is not None:
            self._greeting.cancel()
        self.bell = None
        self.socket.close()

    def publish(self, topic: str, update: Update) -> None:
        """Send an update of a cluster under its next sequence number."""
        data = encode(update, epoch=self.epoch, topic=topic, seq=self._next(topic))
        if self.bell is not None:
            self.bell.ring(data)
        self._send(topic, data)

    def heartbeat(self) -> None:
        """Say that the loop runs, and how far every topic has come."""
        self._beats += 1
        beat = Heartbeat(at=monotonic(), pid=os.getpid(), seqs=dict(self.seqs))
        self._send(HEARTBEAT_TOPIC, encode(beat, epoch=self.epoch, topic=HEARTBEAT_TOPIC, seq=self._beats))

    def journal(self, subject: str, event: str, evidence: str, cluster: str = "") -> None:
        """Keep a transition in the ring, tell whoever follows, and write one line to the log. None goes without its evidence."""
        entry = Journal(at=time(), subject=subject, event=event, evidence=evidence, cluster=cluster)
        self.ring.append(entry)
        logger.info("%s %s: %s", subject, event, evidence, extra={ENTRY: entry})
        self._send(JOURNAL_TOPIC, encode(entry, epoch=self.epoch, topic=JOURNAL_TOPIC, seq=self._next(JOURNAL_TOPIC)))

    def _next(self, topic: str) -> int:
        self.seqs[topic] = self.seqs.get(topic, 0) + 1
        return self.seqs[topic]

    def _send(self, topic: str, data: bytes) -> None:
        if self.socket.closed:
            return
        # XPUB never blocks: a subscriber that is too slow loses the message and sees the gap.
        self.socket.send_multipart([topic.encode(), data], zmq.NOBLOCK)
        self.counters["published"] += 1

    def _drain(self) -> None:
        for _ in range(BATCH):
            if self.socket.closed or not int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
                return
            frame = self.socket.recv(zmq.NOBLOCK)
            if frame[:1] not in (b"\x00", b"\x01"):
                self.counters["garbage"] += 1
            elif frame[:1] == b"\x01" and self._greeting is None:
                self._greeting = asyncio.get_running_loop().call_later(GREETING_DELAY, self._greet)
        asyncio.get_running_loop().call_soon(self._drain)

    def _greet(self) -> None:
        self._greeting = None
        self.heartbeat()
