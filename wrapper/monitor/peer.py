"""Whom a worker speaks to: before a connection to the monitor carries anything, the kernel says whose process listens there.

The directory is checked when its path is taken, but a connection is made, and made again, by name. Where a directory in /tmp was
cleaned away, anybody may make another one of that name, with sockets of his own in it; a worker that trusted the name would send
him its login. So each connection is asked for by ZeroMQ's own protocol (ZAP, rfc.zeromq.org/spec/27), as the monitor does on its
side.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import zmq

from .paths import MonitorPaths

logger = logging.getLogger(__name__)

_ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"
_DOMAIN = b"aws-shared-monitor"


def guard(socket: zmq.Socket[Any]) -> None:
    """Have a socket use only connections that the context's ZAP handler admits, none where there is no handler. To be called before
    it is bound or connected."""
    socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def zap_handler(context: zmq.Context[Any]) -> zmq.Socket[Any]:
    """Return the socket on which a context asks who may connect."""
    handler: zmq.Socket[Any] = context.socket(zmq.REP)
    handler.setsockopt(zmq.LINGER, 0)
    handler.bind(_ZAP_ENDPOINT)
    return handler


def zap_answer(request: bytes, user: str | None, refusal: bytes) -> list[bytes]:
    """Return the answer to the request with this number: admitted as `user`, or not (None), for which `refusal` is the reason."""
    verdict = (b"400", refusal, b"") if user is None else (b"200", b"", user.encode())
    return [_ZAP_VERSION, request, *verdict, b""]


def peer_uid(address: str) -> int | None:
    """Return the uid in the address that libzmq makes of a local peer's SO_PEERCRED: `localhost:uid:gid:pid`.

    >>> peer_uid("localhost:1000:100:4711"), peer_uid("127.0.0.1")
    (1000, None)
    """
    parts = address.split(":")
    return int(parts[1]) if len(parts) == 4 and parts[0] == "localhost" and parts[1].isdigit() else None


class PeerCheck:
    """Admits the monitor of `paths` and nobody else. Whoever polls the sockets of `context` polls `socket`, too, and calls `answer`
    when it has something to read. A monitor that is reached by TCP has proved its key instead (CURVE)."""

    def __init__(self, context: zmq.Context[Any], paths: MonitorPaths) -> None:
        self._paths = paths
        self._uid = os.getuid() if paths.owner is None else paths.owner
        self._named: set[str] = set()
        self.is_refusing = False  # as of the latest answer
        self.socket = zap_handler(context)

    def answer(self) -> None:
        """Judge the next connection that waits for it."""
        _version, number, _domain, address, *_rest = self.socket.recv_multipart(zmq.NOBLOCK)
        self.is_refusing = not self._admits(address.decode("latin-1"))
        self.socket.send_multipart(zap_answer(number, None if self.is_refusing else "", b"not the monitor"))

    def _admits(self, address: str) -> bool:
        uid = peer_uid(address)
        if uid == self._uid:
            return True
        if address not in self._named and len(self._named) < 10:
            self._named.add(address)
            logger.warning(
                "what listens in %s is of uid %s, not of uid %d: nothing is sent to it; working without the shared monitor",
                self._paths.directory,
                uid,
                self._uid,
            )
        return False
