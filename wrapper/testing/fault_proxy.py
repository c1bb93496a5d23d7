"""A TCP proxy that plays network faults in front of one server: refused, reset, hung, mute, black hole, slow.

It runs on a thread of its own with an asyncio loop, works for any user on any kernel, and sends nothing beyond loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from typing import Any

MODES = ("pass", "refuse", "reset", "hang", "mute", "blackhole")
_CHUNK = 65536


class FaultProxy:
    """Listens on `host:port` and forwards to `upstream`, as its `mode` says. A context manager.

    `pass`: forward. `refuse`: nobody listens; existing connections go on. `reset`: every connection is reset, new ones at once.
    `hang`: connects are accepted, no byte moves in either direction. `mute`: existing connections go on, new ones get no answer.
    `blackhole`: connects get no answer either (SYNs stay unanswered), no byte moves. `latency`: seconds added to each chunk.
    """

    def __init__(self, upstream: tuple[str, int], host: str = "127.0.0.1", port: int = 0) -> None:
        self.upstream = upstream
        self.host = host
        self.port = port
        self.latency = 0.0
        self._mode = "pass"
        self._flowing = asyncio.Event()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter | None]] = set()
        self._server: asyncio.Server | None = None
        self._hole: list[socket.socket] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._call(self._set("pass"))

    def _call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    @property
    def address(self) -> tuple[str, int]:
        """Where the proxy listens."""
        return self.host, self.port

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is not valid: expected one of {', '.join(MODES)}")
        self._call(self._set(mode))

    async def _set(self, mode: str) -> None:
        self._mode = mode
        if mode in ("hang", "blackhole"):
            self._flowing.clear()
        else:
            self._flowing.set()
        if mode == "reset":
            for client, upstream in list(self._pairs):
                _reset(client)
                if upstream is not None:
                    upstream.close()
        listening = mode not in ("refuse", "blackhole")
        if not listening and self._server is not None:
            self._server.close()
            self._server = None
        if mode == "blackhole":
            self._dig()
        else:
            self._fill()
        if listening and self._server is None:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    def _dig(self) -> None:
        """Listen without accepting, with a full queue: the kernel then drops SYNs, as a firewall would."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(0)
        self._hole = [listener]
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((self.host, self.port))
            self._hole.append(filler)

    def _fill(self) -> None:
        for sock in reversed(self._hole):
            sock.close()
        self._hole = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter | None] = (writer, None)
        self._pairs.add(pair)
        try:
            if self._mode == "reset":
                _reset(writer)
                return
            if self._mode == "mute":
                await reader.read(-1)  # until the client gives up
                return
            await self._flowing.wait()
            try:
                upstream_reader, upstream_writer = await asyncio.open_connection(*self.upstream)
            except OSError:
                _reset(writer)
                return
            self._pairs.discard(pair)
            pair = (writer, upstream_writer)
            self._pairs.add(pair)
            await asyncio.gather(self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))
        finally:
            self._pairs.discard(pair)
            writer.close()
            if pair[1] is not None:
                pair[1].close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                if self.latency:
                    await asyncio.sleep(self.latency)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            _reset(writer)

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._fill()
        if self._server is not None:
            self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
