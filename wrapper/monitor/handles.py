"""Handles on physical connections, by which another thread can end a blocked call without touching the driver.

A handle owns a *dup* of the connection's socket, made on the owner's thread when the connection opens: libpq closes its own
descriptor inside a failing call, and the number may belong to something else a moment later. Shutting the dup down ends the
connection for every descriptor that shares it; closing it does not. Nothing here calls a driver.
"""

from __future__ import annotations

import _socket
import os
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from wrapper.decisions.verdict import Sensitivity, covers, is_down, is_path_alive
from wrapper.monitor.state import ClusterState, HostHealth
from wrapper.monitor.threads import allocate_lock, original

# struct tcp_info (linux/tcp.h): eight one-byte fields, then 32-bit ones; the tenth is tcpi_last_data_sent, the twelfth
# tcpi_last_data_recv, both in milliseconds.
_LAST_DATA = struct.Struct("@IxxxxI")
_LAST_DATA_OFFSET = 8 + 9 * 4
_TCP_INFO_SIZE = 104
# Seconds without traffic after which a connection that no call is using is idle. A COPY between two of its parts is not.
_QUIET = 0.1


class Handle:
    """One physical connection as the client thread sees it.

    `key`: the host it leads to; `opened_at`: CLOCK_MONOTONIC seconds; `to_writer`: whether that host was the writer then;
    `sensitivity`: how its owner judges evidence, None to leave it alone whatever happens; `ends_with_writer`: whether to end it
    when another host has become the writer in its host's place; `in_use`: tells whether a call is using it, without touching the
    driver; `is_pooled`: it waits in a pool, nobody's; `aborted_by`: the evidence on which it was shut down.
    """

    __slots__ = (
        "__weakref__",
        "_fd",
        "_lock",
        "_pid",
        "aborted_by",
        "ends_with_writer",
        "in_use",
        "is_pooled",
        "key",
        "opened_at",
        "sensitivity",
        "to_writer",
        "watch_key",
    )

    def __init__(self, fd: int, watch_key: str, key: str, opened_at: float, in_use: Callable[[], bool] = bool) -> None:
        self._fd = os.dup(fd)
        self._pid = os.getpid()
        # Only ever held across a system call.
        self._lock = allocate_lock()
        self.watch_key = watch_key
        self.key = key
        self.opened_at = opened_at
        self.to_writer = False
        self.sensitivity: Sensitivity | None = None
        self.ends_with_writer = False
        self.in_use = in_use
        self.is_pooled = False
        self.aborted_by: HostHealth | None = None

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def last_received(self) -> float | None:
        """When the kernel last received data on the connection (CLOCK_MONOTONIC seconds), None if it does not say."""
        traffic = self._traffic()
        return None if traffic is None else traffic[1]

    def is_idle(self) -> bool:
        """Whether no call is using the connection, and there was no traffic just now."""
        if self.in_use():
            return False
        traffic = self._traffic()
        return traffic is None or time.monotonic() - max(traffic) > _QUIET

    def _traffic(self) -> tuple[float, float] | None:
        """When data was last sent and received."""
        with self._lock:
            if self._fd < 0:
                return None
            with _borrowed(self._fd) as sock:
                try:
                    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
                except OSError:
                    return None
        now = time.monotonic()
        sent, received = _LAST_DATA.unpack_from(info, _LAST_DATA_OFFSET)
        return now - sent / 1000, now - received / 1000

    def is_severed(self) -> bool:
        """Whether the peer has closed or reset the connection, as the kernel knows; no traffic, and nothing is read."""
        with self._lock:
            return self._fd < 0 or is_severed(self._fd)

    def shut_down(self) -> None:
        """End the connection in both directions: a call that is blocked on it returns with an error at once."""
        with self._lock:
            if self._fd < 0 or self._pid != os.getpid():
                return
            with _borrowed(self._fd) as sock:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # the peer was faster

    def give_up(self, evidence: HostHealth) -> None:
        """End the connection on evidence; its owner learns of it at the next use."""
        self.aborted_by = evidence
        self.shut_down()

    def close(self) -> None:
        """Give the descriptor back; the connection itself stays as it is."""
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # Attributes are missing when dup failed.
        if getattr(self, "_fd", -1) >= 0:
            self.close()


def is_severed(fd: int) -> bool:
    """Whether the peer has closed or reset the connection of a socket, as the kernel knows; no traffic, and nothing is read."""
    # Not gevent's, which would hand control to another greenlet while a lock is held.
    poll = original("select", "poll")()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


class _borrowed:
    """A socket object on a descriptor that stays open when the object goes."""

    def __init__(self, fd: int) -> None:
        # The class that `socket.socket` and gevent's are built on.
        self._socket = _socket.socket(fileno=fd)

    def __enter__(self) -> _socket.socket:
        return self._socket

    def __exit__(self, *exc: Any) -> None:
        self._socket.detach()


def is_superseded(handle: Handle, cluster: ClusterState) -> bool:
    """Whether the connection was opened to the writer, and another host has proved since that it is the writer now."""
    writer = cluster.topology.writer
    if not handle.to_writer or writer is None or writer == handle.key:
        return False
    proved_at = cluster.writer_proved_at
    return proved_at is not None and proved_at > handle.opened_at


def ends_now(handle: Handle, cluster: ClusterState) -> bool:
    """Whether a connection that should end with its writer should end now. A call that is under way is left to the server, as long
    as that answers: a query is as good there as anywhere, and a write is refused."""
    if not handle.ends_with_writer or not is_superseded(handle, cluster):
        return False
    evidence = cluster.health.get(handle.key)
    return (evidence is not None and evidence.is_failing) or handle.is_idle()


def evidence_against(handle: Handle, cluster: ClusterState) -> HostHealth | None:
    """Return the evidence on which the connection should be shut down now, None if there is no reason to."""
    evidence = cluster.health.get(handle.key)
    if evidence is not None and ends_now(handle, cluster):
        return evidence
    if handle.sensitivity is None or evidence is None or not covers(evidence, handle.opened_at):
        return None
    if not is_down(evidence, handle.sensitivity, superseded=is_superseded(handle, cluster)):
        return None
    last_received = handle.last_received()
    if last_received is not None and is_path_alive(evidence, last_received):
        return None
    return evidence
