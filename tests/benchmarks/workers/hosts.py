"""Many hosts made of one server: addresses of the loopback network that all lead to it, each with troubles of its own.

Commands: `reset N` (its sessions are reset, connects are refused), `freeze N` (connects are taken, nothing is passed on any more),
`back N` (in order again). Each is answered by an event of the same name, with the time just before it was done.

A real server is another machine. The one here learns of a reset only when the host is back: else it would end its processes on the
CPUs of those who are measured, in the same milliseconds.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tests.benchmarks.workers.parent import arguments, tell


class Host:
    """One address. `flowing` is set while bytes are passed on."""

    def __init__(self, address: str, port: int, upstream: tuple[str, int]) -> None:
        self._address = address
        self._port = port
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._left: list[asyncio.StreamWriter] = []
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def back(self) -> None:
        self._flowing.set()
        while self._left:
            self._left.pop().transport.abort()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, self._address, self._port, backlog=64)

    async def freeze(self) -> None:
        self._flowing.clear()

    async def reset(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await asyncio.gather(self._pass_on(reader, server_writer), self._pass_on(server_reader, writer))
        except OSError:
            pass
        finally:
            self._writers.remove(writer)
            writer.transport.abort()
            if self._server is None:
                self._left.append(server_writer)
            else:
                server_writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError  # the other direction ends with this one


async def serve() -> None:
    given = arguments()
    hosts = [Host(address, given["port"], tuple(given["upstream"])) for address in given["addresses"]]
    for host in hosts:
        await host.back()
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    tell("ready")
    while line := (await commands.readline()).decode():
        command, _, number = line.strip().partition(" ")
        if command == "stop":
            break
        began = time.monotonic()
        await getattr(hosts[int(number)], command)()
        tell(command, at=began, host=int(number))
    for host in hosts:
        await host.reset()


if __name__ == "__main__":
    asyncio.run(serve())
