"""Asking a monitor from the command line: one request, one answer, or a stream of events. Synchronous and bounded."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import zmq

from monitor_service.election import is_held
from wrapper.monitor.client import process_started
from wrapper.monitor.curve import encrypt
from wrapper.monitor.messages import (
    HEARTBEAT_TOPIC,
    JOURNAL_TOPIC,
    Client,
    Journal,
    Message,
    decode_body,
    decode_envelope,
    encode,
)
from wrapper.monitor.paths import URL_VARIABLE, MonitorPaths, candidates, locate, named_owner
from wrapper.monitor.peer import PeerCheck, guard


class NoMonitorError(Exception):
    """No monitor answers; the text says where was looked and what to do."""


class MonitorConnection:
    """A control connection to one monitor. Use it as a context manager. `has_login`: a login will be sent, so that nobody else's
    monitor will do than that of `paths.owner`."""

    def __init__(self, paths: MonitorPaths, *, has_login: bool = False) -> None:
        self.paths = paths
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._peers = PeerCheck(self._context, paths) if has_login else None
        self._socket = self._made(zmq.DEALER)
        self._socket.connect(paths.control_url)
        self._seq = 0

    def _made(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        if self._peers is not None:
            guard(socket)
        encrypt(socket, self.paths.keys)
        return socket

    def _wait(self, socket: zmq.Socket[bytes], timeout: float) -> bool:
        """Whether there is something to receive within `timeout` seconds."""
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        if self._peers is not None:
            poller.register(self._peers.socket, zmq.POLLIN)
        deadline = time.monotonic() + timeout
        while True:
            ready = dict(poller.poll(max(0, int((deadline - time.monotonic()) * 1000))))
            if self._peers is not None:
                self._peers.answer()
            if socket in ready or not ready:
                return socket in ready

    def __enter__(self) -> MonitorConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._context.destroy(linger=0)

    def ask(self, message: Message, timeout: float = 2.0) -> Message:
        """Return the answer to a request. Raises `TimeoutError`."""
        self._seq += 1
        self._socket.send(encode(message, seq=self._seq))
        while self._wait(self._socket, timeout):
            envelope = decode_envelope(self._socket.recv())
            answer = decode_body(envelope)
            if envelope.seq == self._seq and answer is not None:
                return answer
        raise TimeoutError(
            f"the monitor in {self.paths.directory} did not answer within {timeout:g} s; it may be stopped or starting, "
            f"or does not admit uid {os.getuid()}"
        )

    def journal(self, idle: float) -> Iterator[Journal | None]:
        """Yield transitions as they happen; None after `idle` seconds without any sign of life from the monitor."""
        socket = self._made(zmq.SUB)
        socket.subscribe(JOURNAL_TOPIC)
        socket.subscribe(HEARTBEAT_TOPIC)
        socket.connect(self.paths.events_url)
        while True:
            if not self._wait(socket, idle):
                yield None
                continue
            frames = socket.recv_multipart()
            if len(frames) == 2:
                message = decode_body(decode_envelope(frames[1]))
                if isinstance(message, Journal):
                    yield message


def find(directory: Path | None) -> MonitorPaths:
    """Return the paths of a running monitor: in `directory`, else where `$AWS_WRAPPER_MONITOR_URL` leads, else in the first
    candidate directory that has one.

    Raises `NoMonitorError`.
    """
    if directory is None and os.environ.get(URL_VARIABLE):
        return locate()
    looked = [directory] if directory is not None else candidates()
    for one in looked:
        paths = MonitorPaths(one, owner=named_owner())
        if is_held(paths):
            return paths
    places = ", ".join(str(one) for one in looked)
    raise NoMonitorError(
        f"no monitor runs for uid {os.getuid()} (looked in {places}). "
        "Start one with 'aws-shared-monitor run', or let the first connection start it (monitor_mode=auto)."
    )


def this_client() -> Client:
    """Return the identity of this process for a lease of its own."""
    return Client(pid=os.getpid(), started=process_started(os.getpid()), token=secrets.token_hex(16))
