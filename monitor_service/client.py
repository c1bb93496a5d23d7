"""Asking a monitor from the command line: one request, one answer, or a stream of events. Synchronous and bounded."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import zmq

from monitor_service.election import holder, is_held
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
from wrapper.monitor.paths import URL_VARIABLE, MonitorPaths, candidates, locate, named_owner
from wrapper.monitor.peer import PeerCheck, guard

# Seconds that a monitor has for the status of ten thousand hosts.
STATUS_PATIENCE = 5.0


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
        self._events: zmq.Socket[bytes] | None = None
        self._seq = 0
        self._joiner = Joiner()

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
            if self._peers is not None and self._peers.socket in ready:
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
            envelope = self._joiner.envelope(self._socket.recv())
            if envelope is None:
                continue
            answer = decode_body(envelope)
            if envelope.seq == self._seq and answer is not None:
                return answer
        raise TimeoutError(_silence(self.paths, timeout))

    def subscribe(self, timeout: float = 2.0) -> None:
        """Have `journal` begin with what happens from now on. Raises `TimeoutError`."""
        self._events = self._made(zmq.SUB)
        self._events.subscribe(JOURNAL_TOPIC)
        self._events.subscribe(HEARTBEAT_TOPIC)
        self._events.connect(self.paths.events_url)
        # The first heartbeat proves that the subscription is in force.
        if not self._wait(self._events, timeout):
            raise TimeoutError(_silence(self.paths, timeout))

    def journal(self, idle: float) -> Iterator[Journal | None]:
        """Yield transitions as they happen; None after `idle` seconds without any sign of life from the monitor. After
        `subscribe`."""
        assert self._events is not None
        while True:
            if not self._wait(self._events, idle):
                yield None
                continue
            frames = self._events.recv_multipart()
            if len(frames) == 2:
                message = decode_body(decode_envelope(frames[1]))
                if isinstance(message, Journal):
                    yield message


def _silence(paths: MonitorPaths, timeout: float) -> str:
    """Return what is known of a monitor that does not answer, and what to do."""
    said = f"did not answer within {timeout:g} s"
    if paths.url is not None:
        return f"no monitor at {paths.url} {said}: it may not run, be unreachable, or not admit the keys in {paths.keys}"
    if not is_held(paths):
        return f"the monitor in {paths.directory} has ended"
    found = holder(paths)
    if found is None:
        return (
            f"the monitor in {paths.directory} {said}; it may be stopped or starting, "
            f"or does not admit uid {os.getuid()} (it says so in its log)"
        )
    pid, state = found
    if state == "T":
        return (
            f"the monitor in {paths.directory} {said}: its process {pid} is stopped (SIGSTOP); 'kill -CONT {pid}' has it go on, "
            f"'kill -KILL {pid}' ends it"
        )
    return (
        f"the monitor in {paths.directory} {said}: its process {pid} may be starting, or starved; if it stays so, "
        f"'kill -KILL {pid}' ends it, and workers start another or go on without"
    )


def find(directory: Path | None, *, elsewhere: bool = True) -> MonitorPaths:
    """Return the paths of a running monitor: in `directory`, else where `$AWS_WRAPPER_MONITOR_URL` leads, else in the first
    candidate directory that has one. `elsewhere`: whether others than the one in force count.

    Raises `NoMonitorError`.
    """
    if directory is None and os.environ.get(URL_VARIABLE):
        return locate()
    looked = [directory] if directory is not None else candidates()
    owner = named_owner()
    running = [paths for one in looked if is_held(paths := MonitorPaths(one, owner=owner))]
    if running and (elsewhere or running[0].directory == looked[0]):
        return running[0]
    if running:
        raise NoMonitorError(
            f"no monitor runs in {looked[0]}, the directory in force; one runs in {running[0].directory}: "
            f"if you mean that one, add --directory {running[0].directory}"
        )
    raise NoMonitorError(
        f"no monitor runs for uid {os.getuid()} (looked in {', '.join(map(_place, looked))}). "
        "Start one with 'aws-shared-monitor run', or let the first connection start it (monitor_mode=auto)."
    )


def _place(directory: Path) -> str:
    """Return a directory in which no monitor was found, and what else is wrong with it."""
    try:
        os.scandir(directory).close()
    except OSError as error:
        return f"{directory}: {error.strerror}"
    return str(directory)


def this_client() -> Client:
    """Return the identity of this process for a lease of its own."""
    return Client(pid=os.getpid(), started=process_started(os.getpid()), token=secrets.token_hex(16))
