"""What systemd wants to hear (sd_notify(3)): datagrams to the socket that it names in the environment. Silent without systemd."""

from __future__ import annotations

import logging
import os
import socket

logger = logging.getLogger(__name__)

NOTIFY_SOCKET = "NOTIFY_SOCKET"


def notify(*assignments: str) -> None:
    """Send `NAME=value` lines. Never blocks, never fails: a monitor does not depend on who started it."""
    address = os.environ.get(NOTIFY_SOCKET)
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.sendto("\n".join(assignments).encode(), address)
        except OSError as error:
            logger.debug("systemd cannot be told %s: %s", assignments, error)


def watchdog_interval() -> float | None:
    """Seconds between signs of life that are asked of this process: half of what systemd waits for. None when it does not."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    if not limit.isdigit() or int(limit) == 0 or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(limit) / 2e6


def forget() -> None:
    """Whoever was started on demand inherited another service's socket: it must not speak for that one."""
    for name in (NOTIFY_SOCKET, "WATCHDOG_USEC", "WATCHDOG_PID"):
        os.environ.pop(name, None)
