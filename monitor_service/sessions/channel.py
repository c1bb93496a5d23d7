"""A TCP connection, with or without TLS in it, that can be waited for, shut and closed at any moment.

On the socket itself, not on a transport of asyncio's: cancelling a wait is harmless, closing is immediate, and whether a byte came
is known before anybody makes sense of it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_READ = 1 << 16
# Seconds, seconds, count: a dead peer is noticed even when nobody asks it.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 3, socket.TCP_KEEPCNT: 3}


class Channel:
    """One connection. `heard`: whether a byte has arrived since somebody set it to False. `OSError` is the end of it."""

    def __init__(self, address: str) -> None:
        """Make the socket; raises `OSError`."""
        self._socket = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.heard = False

    @property
    def is_secure(self) -> bool:
        return self._tls is not None

    async def connect(self, port: int) -> None:
        await self._loop.sock_connect(self._socket, (self._address, port))

    async def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Go on in TLS with a server that is called `name`. Raises `ssl.SSLError` when that fails."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        await self._run(tls.do_handshake)
        self._tls = tls

    async def send(self, data: bytes) -> None:
        if self._tls is None:
            await self._loop.sock_sendall(self._socket, data)
            return
        tls = self._tls
        await self._run(lambda: tls.write(data))

    async def receive(self) -> bytes:
        """Return the next bytes. The end of the stream is a `ConnectionResetError`."""
        if self._tls is None:
            return await self._receive()
        tls = self._tls
        data = await self._run(lambda: tls.read(_READ))
        if not data:
            raise ConnectionResetError("closed by the server")
        return data

    async def _receive(self) -> bytes:
        data = await self._loop.sock_recv(self._socket, _READ)
        if not data:
            raise ConnectionResetError("closed by the server")
        self.heard = True
        return data

    async def _run(self, step: Callable[[], T]) -> T:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await self._receive())
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                raise ConnectionResetError("closed by the server") from None
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._loop.sock_sendall(self._socket, self._outgoing.read())

    def watch(self, callback: Callable[[], None]) -> None:
        """Call back whenever there is something to read; nobody may be waiting for it."""
        self._loop.add_reader(self._socket.fileno(), callback)

    def unwatch(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())

    def shut(self) -> None:
        """End a running wait at once: it raises."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more: what was wanted

    def say(self, data: bytes) -> None:
        """Send last words, as far as that needs no waiting."""
        try:
            if self._tls is not None:
                self._tls.write(data)
                data = self._outgoing.read()
            self._socket.send(data)
        except OSError:
            pass

    def close(self) -> None:
        self.unwatch()
        self._socket.close()

    def reset(self) -> None:
        """Close without a farewell: the peer's kernel forgets the connection, even when nobody there has accepted it yet."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass
        self.close()
