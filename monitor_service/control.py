"""The control socket: requests in, answers out. Nothing here waits; damaged requests are dropped and counted.

Every request comes with its sender's principal, as the gate established it when the connection was made.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

import zmq

from wrapper.monitor.messages import MAX_MESSAGE_BYTES, Envelope, Garbage, Message, Refused, decode_body, decode_envelope, encode
from wrapper.monitor.parts import split
from wrapper.monitor.peer import guard

logger = logging.getLogger(__name__)

# Requests handled before other work gets its turn.
BATCH = 200
HIGH_WATER_MARK = 1000


class ControlServer:
    """A ROUTER socket. `handle(route, principal, message)` returns the answer, or None for none. `largest`: bytes of a request
    that is still served."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        epoch: int,
        handle: Callable[[bytes, str, Message], Message | None],
        largest: int,
    ) -> None:
        self.epoch = epoch
        self.counters: Counter[str] = Counter()
        self._handle = handle
        self._largest = largest
        self._garbage_logged = False
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        guard(self.socket)
        # A peer that sends more is cut off by the library before the message takes memory.
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)

    def start(self) -> None:
        """Begin to serve on the running loop."""
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self.drain)
        self.drain()

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket.fileno())
        self.socket.close()

    def drain(self, limit: int | None = BATCH) -> None:
        """Handle what has arrived; `limit=None` for all of it."""
        handled = 0
        while not self.socket.closed and int(self.socket.get(zmq.EVENTS)) & zmq.POLLIN:
            if limit is not None and handled >= limit:
                # The descriptor signals changes only: what is left must be looked for.
                asyncio.get_running_loop().call_soon(self.drain)
                return
            handled += 1
            self._receive(self.socket.recv_multipart(zmq.NOBLOCK, copy=False))

    def tell(self, route: bytes, message: Message, seq: int = 0) -> None:
        """Send a message; one that cannot be delivered is dropped."""
        if self.socket.closed:
            return
        try:
            for data in split(encode(message, epoch=self.epoch, seq=seq), epoch=self.epoch, seq=seq):
                self.socket.send_multipart([route, data], zmq.NOBLOCK)
        except zmq.Again:
            self.counters["dropped answers"] += 1
        # Sending may have consumed the descriptor's signal of something to receive.
        asyncio.get_running_loop().call_soon(self.drain)

    def _receive(self, frames: list[zmq.Frame]) -> None:
        route = frames[0].bytes
        try:
            if len(frames) != 2:
                raise Garbage(f"a message of {len(frames) - 1} frames, expected one")
            envelope: Envelope = decode_envelope(frames[1].bytes)
            size = len(frames[1])
            message = decode_body(envelope) if size <= self._largest else None
        except Garbage as error:
            self.counters["garbage"] += 1
            if not self._garbage_logged:
                self._garbage_logged = True
                logger.warning("dropped a damaged request: %s; further ones are only counted", error)
            return
        if size > self._largest:
            self.counters["refused requests"] += 1
            self._answer(route, envelope, Refused(f"a request of {size} bytes: {self._largest} are allowed (--max-request)"))
        elif message is None:
            self.counters["unknown kind"] += 1
            self._answer(route, envelope, Refused(f"unknown request {envelope.kind!r}"))
        else:
            self.counters[envelope.kind] += 1
            self._serve(route, str(frames[1].get("User-Id")), envelope, message)

    def _serve(self, route: bytes, principal: str, envelope: Envelope, message: Message) -> None:
        try:
            self._answer(route, envelope, self._handle(route, principal, message))
        except Exception:
            # One client's request, or what cannot be said in answer to it, must not end the service of all others.
            self.counters["failed requests"] += 1
            # The message is not logged: it may hold login values.
            logger.exception("a %r request failed", envelope.kind)
            self._answer(route, envelope, Refused("the monitor failed on this request; see its log"))

    def _answer(self, route: bytes, envelope: Envelope, answer: Message | None) -> None:
        if answer is not None and envelope.seq:
            self.tell(route, answer, envelope.seq)
