"""The layer: a process in front of one server, which replaces the names of AWS's own SQL and passes every other byte.

    python -m wrapper.testing.mysql.layer FAMILY ADDRESS PORT SERVER_ADDRESS [CERTIFICATE KEY]

With a certificate it offers TLS, which ends here. A process of its own, so that it dies and hangs with its server as one
instance. It listens when a line comes on stdin, and says so by a line on stdout; after SIGTERM it listens no more and ends with its
last connection.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import struct
import sys
from collections.abc import Callable

from wrapper.testing.mysql.login import SHORT_LOGIN, Login, asks_for_tls
from wrapper.testing.mysql.rewrite import FAMILIES, Commands, Names, greeting_size, plain_greeting, refusal

_BACKLOG = 512
_READ = 1 << 16


class _Side(asyncio.Protocol):
    """One end of a session: passes what it hears through `translate` to the other end."""

    transport: asyncio.Transport

    def __init__(self, translate: Callable[[bytes], bytes], other: _Side | None = None) -> None:
        self.translate = translate
        self.other = other
        self.is_connected = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.is_connected = True

    def data_received(self, data: bytes) -> None:
        if self.other is not None and (translated := self.translate(data)):
            self.other.write(translated)

    def write(self, data: bytes) -> None:
        """Send to whoever is at this end."""
        self.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.is_connected:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.is_connected:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_connected = False
        if self.other is not None and self.other.is_connected:
            reset(self.other.transport) if exc is not None else self.other.transport.close()


class _Client(_Side):
    """The client's end. It is not read before the server is there."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(Commands(layer.names).feed)
        self.layer = layer
        self._is_new = True
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._is_secure = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self.layer.sessions.add(self)
        self._reaching = asyncio.ensure_future(self._reach_server())  # the loop itself keeps no hold of it

    def data_received(self, data: bytes) -> None:
        if self._tls is not None:
            self._incoming.write(data)
            self._read_tls(self._tls)
            return
        if self._is_new:
            self._is_new = False
            if self.layer.files and asks_for_tls(data):
                self._start_tls(data[SHORT_LOGIN:])
                return
            if error := refusal(data):
                self.transport.write(error)
                self.transport.close()
                return
        super().data_received(data)

    def write(self, data: bytes) -> None:
        if self._tls is None:
            self.transport.write(data)
        else:
            self._tls.write(data)
            self.transport.write(self._outgoing.read())

    def _start_tls(self, beginning: bytes) -> None:
        assert self.other is not None
        # The files are read for each session: another certificate may be in them.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.layer.files)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        login, commands = Login(), self.translate
        self.translate = lambda data: commands(data) if login.is_over else login.to_server(data)
        self.other.translate = login.to_client
        self.data_received(beginning)

    def _read_tls(self, tls: ssl.SSLObject) -> None:
        try:
            if not self._is_secure:
                tls.do_handshake()
                self._is_secure = True
            while data := tls.read(_READ):
                super().data_received(data)
            self.transport.close()  # the client has said that it ends
        except ssl.SSLWantReadError:
            self.transport.write(self._outgoing.read())
        except ssl.SSLError:  # it does not like what it saw
            self.transport.write(self._outgoing.read())
            self.transport.close()

    async def _reach_server(self) -> None:
        server = _Side(Greeting(offers_tls=bool(self.layer.files)).feed, self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, *self.layer.server)
        except OSError:
            reset(self.transport)
            return
        self.other = server
        if self.is_connected:
            self.transport.resume_reading()
        else:
            server.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.layer.sessions.discard(self)
        self.layer.end_if_done()


class Greeting:
    """Takes from a server's first packet what the layer cannot do; the rest passes."""

    def __init__(self, *, offers_tls: bool) -> None:
        self._pending: bytes | None = b""
        self._offers_tls = offers_tls

    def feed(self, data: bytes) -> bytes:
        """Return what to send to the client."""
        if self._pending is None:
            return data
        data = self._pending + data
        size = greeting_size(data)
        if len(data) < size:
            self._pending = data
            return b""
        self._pending = None
        return plain_greeting(data[:size], tls=self._offers_tls) + data[size:]


class Layer:
    """Listens at `address` and reaches the server at `server`. `files`: certificate and key, if it offers TLS."""

    def __init__(self, names: Names, address: tuple[str, int], server: tuple[str, int], files: list[str]) -> None:
        self.names = names
        self.address = address
        self.server = server
        self.files = files
        self.sessions: set[_Client] = set()
        self._listener: asyncio.Server | None = None
        self._done = asyncio.Event()
        self._is_closing = False

    async def run(self) -> None:
        """Serve until SIGTERM has come and the last session has ended."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._close)
        self._listener = await loop.create_server(lambda: _Client(self), *self.address, backlog=_BACKLOG)
        sys.stdout.write("\n")
        sys.stdout.flush()
        await self._done.wait()

    def _close(self) -> None:
        self._is_closing = True
        if self._listener is not None:
            self._listener.close()
        self.end_if_done()

    def end_if_done(self) -> None:
        """End when nothing is left to do."""
        if self._is_closing and not self.sessions:
            self._done.set()


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def main() -> None:
    """Entry of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the lab's owner decides
    family, address, port, server, *files = sys.argv[1:]
    if sys.stdin.readline():
        asyncio.run(Layer(FAMILIES[family], (address, int(port)), (server, int(port)), files).run())


if __name__ == "__main__":
    main()
