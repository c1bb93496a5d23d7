"""The control socket: requests in, answers out. Nothing here waits; damaged requests are dropped and counted."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

import zmq

from wrapper.monitor.messages import MAX_MESSAGE_BYTES, Envelope, Garbage, Message, Refused, decode_body, decode_envelope, encode

logger = logging.getLogger(__name__)

# Requests handled before other work gets its turn.
BATCH = 200
HIGH_WATER_MARK = 1000


class ControlServer:
    """A ROUTER socket. `handle(route, message)` returns the answer, or None for none."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        epoch: int,
        handle: Callable[[bytes, Message], Message | None],
        unknown: Callable[[str], Message],
    ) -> None:
        self.epoch = epoch
        self.counters: Counter[str] = Counter()
        self._handle = handle
        self._unknown = unknown
        self._garbage_logged = False
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        # A peer that sends more is cut off by the library before the message takes memory.
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)

    def bind(self, url: str) -> None:
        self._socket.bind(url)

    def start(self) -> None:
        """Begin to serve on the running loop."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self.drain)
        self.drain()

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def drain(self, limit: int | None = BATCH) -> None:
        """Handle what has arrived; `limit=None` for all of it."""
        handled = 0
        while not self._socket.closed and int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            if limit is not None and handled >= limit:
                # The descriptor signals changes only: what is left must be looked for.
                asyncio.get_running_loop().call_soon(self.drain)
                return
            handled += 1
            self._receive(self._socket.recv_multipart(zmq.NOBLOCK))

    def tell(self, route: bytes, message: Message, seq: int = 0) -> None:
        """Send a message; one that cannot be delivered is dropped."""
        if self._socket.closed:
            return
        try:
            self._socket.send_multipart([route, encode(message, epoch=self.epoch, seq=seq)], zmq.NOBLOCK)
        except zmq.Again:
            self.counters["dropped answers"] += 1
        # Sending may have consumed the descriptor's signal of something to receive.
        asyncio.get_running_loop().call_soon(self.drain)

    def _receive(self, frames: list[bytes]) -> None:
        route = frames[0]
        try:
            if len(frames) != 2:
                raise Garbage(f"a message of {len(frames) - 1} frames, expected one")
            envelope: Envelope = decode_envelope(frames[1])
            message = decode_body(envelope)
        except Garbage as error:
            self.counters["garbage"] += 1
            if not self._garbage_logged:
                self._garbage_logged = True
                logger.warning("dropped a damaged request: %s; further ones are only counted", error)
            return
        self.counters[envelope.kind if message is not None else "unknown kind"] += 1
        try:
            answer = self._unknown(envelope.kind) if message is None else self._handle(route, message)
        except Exception:
            # One client's request must not end the service of all others.
            self.counters["failed requests"] += 1
            # The message is not logged: it may hold login values.
            logger.exception("a %r request failed", envelope.kind)
            answer = Refused("the monitor failed on this request; see its log")
        if answer is not None and envelope.seq:
            self.tell(route, answer, envelope.seq)
