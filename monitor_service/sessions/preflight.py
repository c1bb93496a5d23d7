"""Is anybody there? A TCP connect and the eight bytes of an SSLRequest, which every PostgreSQL server answers with one byte before
it asks who we are: 1-2 ms, bounded, and no login is spent."""

from __future__ import annotations

import asyncio
import socket
import struct

from monitor_service.loop_guard import LoopGuard, bounded
from monitor_service.sessions import ProbeError, kind_of
from wrapper.monitor.state import OURS, REFUSED, SILENT

# Length and request code: PostgreSQL manual, "Message Formats", SSLRequest.
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


async def preflight(address: str, port: int, timeout: float, guard: LoopGuard) -> None:
    """Return when the server has answered. Raises `ProbeError` (refused, silent or ours) within `timeout` seconds."""
    try:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise ProbeError(OURS, f"no socket: {error.strerror}") from error
    with sock:
        sock.setblocking(False)
        try:
            answer = await bounded(guard, timeout, _knock(sock, address, port))
        except TimeoutError:
            raise ProbeError(SILENT, f"no byte within {timeout:g} s") from None
        except OSError as error:
            raise ProbeError(kind_of(error), (error.strerror or str(error)).lower()) from error
    if not answer:
        raise ProbeError(REFUSED, "closed without a byte")


async def _knock(sock: socket.socket, address: str, port: int) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (address, port))
    await loop.sock_sendall(sock, SSL_REQUEST)
    return await loop.sock_recv(sock, 1)
