"""The sockets by which a process talks with the monitor, and what ZeroMQ says of them. One thread uses them.

Beside a thread that computes, this one gets the interpreter's lock only after the switch interval (5 ms), and again after every
call that lets go of it. Here `wait`, and receiving a message that is there, are the only ones that do.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from wrapper.monitor.curve import encrypt
from wrapper.monitor.messages import HEARTBEAT_TOPIC
from wrapper.monitor.peer import PeerCheck, guard

if TYPE_CHECKING:
    from wrapper.monitor.paths import MonitorPaths

_HIGH_WATER_MARK = 1000


class Change(Enum):
    """What became of the connection to the monitor. After `NOT_ADMITTED` ZeroMQ does not try again by itself."""

    ADMITTED = auto()
    DISCONNECTED = auto()
    NOT_ADMITTED = auto()


_CHANGES = {
    # Not EVENT_CONNECTED: what is sent before both sides have agreed is refused, and asked for again half a second later.
    zmq.EVENT_HANDSHAKE_SUCCEEDED: Change.ADMITTED,
    zmq.EVENT_DISCONNECTED: Change.DISCONNECTED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: Change.NOT_ADMITTED,
}


class Link:
    """Requests to the monitor and their answers, and the events that it publishes. `wake_fd`: an eventfd that ends a `wait`."""

    def __init__(self, context: zmq.Context[Any], paths: MonitorPaths, wake_fd: int) -> None:
        self._wake_fd = wake_fd
        self._peers = PeerCheck(context, paths)
        self._control = context.socket(zmq.DEALER)
        self._events = context.socket(zmq.SUB)
        for sock in (self._control, self._events):
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.SNDHWM, _HIGH_WATER_MARK)
            sock.setsockopt(zmq.RCVHWM, _HIGH_WATER_MARK)
            sock.setsockopt(zmq.RECONNECT_IVL, 20)
            sock.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
            guard(sock)
            encrypt(sock, paths.keys)
        # Without a monitor nothing may queue up for the next one.
        self._control.setsockopt(zmq.IMMEDIATE, 1)
        self.subscribe(HEARTBEAT_TOPIC)
        self._ends = (self._control, paths.control_url), (self._events, paths.events_url)
        self._changes = (
            self._control.get_monitor_socket(
                zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
            ),
            self._events.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH),
        )
        self._poller = zmq.Poller()
        for source in (self._control, self._events, *self._changes, self._peers.socket, wake_fd):
            self._poller.register(source, zmq.POLLIN)
        for sock, url in self._ends:
            sock.connect(url)

    def reconnect(self) -> None:
        """Connect anew, to a monitor that did not admit us."""
        for sock, url in self._ends:
            sock.disconnect(url)
            sock.connect(url)

    def subscribe(self, topic: str) -> None:
        """Have the events of a topic delivered."""
        self._events.setsockopt_string(zmq.SUBSCRIBE, topic)

    def wait(self, seconds: float) -> None:
        """Return when there is something to read, somebody wrote to the eventfd, or the time is over."""
        ready = self._poller.poll(max(0, math.ceil(seconds * 1000)))
        if (self._wake_fd, zmq.POLLIN) in ready:
            os.eventfd_read(self._wake_fd)

    # What has come is looked at whatever `wait` saw: more may have come while this thread waited for the interpreter.

    def changes(self) -> Iterator[Change]:
        """Judge whom we are connected to, and yield what became of that since the last time."""
        while _has_message(self._peers.socket):
            self._peers.answer()
        for socket in self._changes:
            while _has_message(socket):
                change = _CHANGES[recv_monitor_message(socket)["event"]]
                # It may be we who do not want to speak to whoever listens there.
                if change is not Change.NOT_ADMITTED or not self._peers.is_refusing:
                    yield change

    def events(self) -> Iterator[list[bytes]]:
        """Yield the frames of every event that has come; a welcome of the publisher's is the heartbeat's topic alone."""
        while _has_message(self._events):
            yield self._events.recv_multipart(zmq.NOBLOCK)

    def answers(self) -> Iterator[bytes]:
        """Yield every answer that has come."""
        while _has_message(self._control):
            yield self._control.recv(zmq.NOBLOCK)

    def send(self, data: bytes) -> None:
        """Send a request. Without a connected monitor it goes nowhere."""
        try:
            self._control.send(data, zmq.NOBLOCK)
        except zmq.Again:
            pass


def _has_message(socket: zmq.Socket[Any]) -> bool:
    """Whether a message can be received at once. Unlike `poll` and `recv` this keeps the interpreter's lock."""
    return bool(int(socket.get(zmq.EVENTS)) & zmq.POLLIN)
