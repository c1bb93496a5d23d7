"""Who may speak to the monitor, and as whom: every connection is asked for by ZeroMQ's own protocol (ZAP, rfc.zeromq.org/spec/27)
before a byte of it is served.

A *principal* is whom the kernel or a key has proved a peer to be: `uid 1000`, or `key <public key>`. Nothing that a peer says of
itself counts. Without an answer from here ZeroMQ admits nobody: sockets that are guarded must enforce their domain, since a CURVE
server that finds no handler lets every key in.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.utils import z85

from monitor_service.process import lacks_descriptors
from wrapper.monitor.peer import peer_uid, zap_answer, zap_handler

logger = logging.getLogger(__name__)

ROOT = 0
# Connections judged before other work gets its turn: a thousand workers may come at once.
BATCH = 100
_OVERFLOW_UID = Path("/proc/sys/kernel/overflowuid")


@dataclass(frozen=True, slots=True)
class Rules:
    """Who is admitted.

    `uid`: the monitor's own; root is admitted as well. `shared`: everybody is whom the modes of the files let in. `keys`: over TCP,
    the public keys (Z85) that are. `nobody`: the uid that the kernel shows for users unknown to this user namespace.
    """

    uid: int
    shared: bool = False
    keys: frozenset[str] = frozenset()
    nobody: int = 65534

    def admit(self, mechanism: bytes, address: str, credentials: tuple[bytes, ...]) -> str | None:
        """Return the principal of a peer, None to refuse it."""
        if mechanism == b"CURVE":
            key = z85.encode(credentials[0]).decode() if credentials and len(credentials[0]) == 32 else ""
            return f"key {key}" if key in self.keys else None
        uid = peer_uid(address)
        if mechanism != b"NULL" or uid is None:
            return None
        if uid in (self.uid, ROOT):
            return principal(uid)
        # Several strangers bear that number: they cannot be told apart.
        return principal(uid) if self.shared and uid != self.nobody else None

    def is_operator(self, peer: str) -> bool:
        """Whether a principal may stop the monitor and see all of it."""
        return peer in (principal(self.uid), principal(ROOT))


def principal(uid: int) -> str:
    return f"uid {uid}"


def overflow_uid() -> int:
    """Return the kernel's number for users without one in this user namespace."""
    try:
        return int(_OVERFLOW_UID.read_text())
    except (OSError, ValueError):
        return 65534


class Gate:
    """Answers ZeroMQ's questions on the running loop. Refused peers are counted, and named once."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], rules: Rules) -> None:
        self.rules = rules
        self.counters: Counter[str] = Counter()
        self._named: set[str] = set()
        self._is_full = False  # which has been told
        self._socket = zap_handler(context)

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._drain)
        self._drain()

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _drain(self) -> None:
        for _ in range(BATCH):
            if self._socket.closed or not int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
                return
            _version, number, _domain, address, _identity, mechanism, *credentials = self._socket.recv_multipart(zmq.NOBLOCK)
            peer = self._judge(mechanism, address.decode("latin-1"), tuple(credentials))
            self._socket.send_multipart(zap_answer(number, peer, b"not admitted"))
        # The descriptor signals changes only: what is left must be looked for.
        asyncio.get_running_loop().call_soon(self._drain)

    def _judge(self, mechanism: bytes, address: str, credentials: tuple[bytes, ...]) -> str | None:
        peer = self.rules.admit(mechanism, address, credentials)
        if peer is not None and lacks_descriptors():
            self.counters["refused for want of descriptors"] += 1
            if not self._is_full:
                self._is_full = True
                logger.warning("too few descriptors are left (ulimit -n) to admit more connections; further ones are only counted")
            return None
        if peer is None:
            self.counters["refused peers"] += 1
            uid = peer_uid(address)
            name = f"uid {uid}" if uid is not None else f"{address} with an unknown key"
            if name not in self._named and len(self._named) < 100:
                self._named.add(name)
                logger.warning("refused a connection of %s; further ones are only counted", name)
        return peer
