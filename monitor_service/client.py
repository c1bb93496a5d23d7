"""Asking a monitor from the command line: one request, one answer, or a stream of events. Synchronous and bounded."""

from __future__ import annotations

import os
import secrets
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
from wrapper.monitor.parts import Joiner
from wrapper.monitor.paths import URL_VARIABLE, MonitorPaths, candidates, locate

# Seconds that a monitor has for the status of ten thousand hosts.
STATUS_PATIENCE = 5.0


class NoMonitorError(Exception):
    """No monitor answers; the text says where was looked and what to do."""


class MonitorConnection:
    """A control connection to one monitor. Use it as a context manager."""

    def __init__(self, paths: MonitorPaths) -> None:
        self.paths = paths
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        encrypt(self._socket, paths.keys)
        self._socket.connect(paths.control_url)
        self._seq = 0
        self._joiner = Joiner()

    def __enter__(self) -> MonitorConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._context.destroy(linger=0)

    def ask(self, message: Message, timeout: float = 2.0) -> Message:
        """Return the answer to a request. Raises `TimeoutError`."""
        self._seq += 1
        self._socket.send(encode(message, seq=self._seq))
        while self._socket.poll(int(timeout * 1000)):
            envelope = self._joiner.envelope(self._socket.recv())
            if envelope is None:
                continue
            answer = decode_body(envelope)
            if envelope.seq == self._seq and answer is not None:
                return answer
        raise TimeoutError(
            f"the monitor in {self.paths.directory} did not answer within {timeout:g} s; it may be stopped or starting, "
            f"have no descriptors left, or not admit uid {os.getuid()}"
        )

    def journal(self, idle: float) -> Iterator[Journal | None]:
        """Yield transitions as they happen; None after `idle` seconds without any sign of life from the monitor."""
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.subscribe(JOURNAL_TOPIC)
        socket.subscribe(HEARTBEAT_TOPIC)
        encrypt(socket, self.paths.keys)
        socket.connect(self.paths.events_url)
        while True:
            if not socket.poll(int(idle * 1000)):
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
        paths = MonitorPaths(one)
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
