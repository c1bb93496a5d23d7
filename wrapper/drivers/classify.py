"""What an error means, whatever driver raised it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum


class ErrorKind(Enum):
    """The meaning of a driver error for routing. Everything that is none of these is the application's own business (`OTHER`)."""

    NETWORK = "network"  # the connection is gone
    LOGIN = "login"  # the server is there and refused the credentials
    READ_ONLY = "read_only"  # the host does not take writes: it was demoted
    BUSY = "busy"  # the server is there and has no connection to give
    STARTING = "starting"  # the server is there and not ready (or going away)
    PRIVILEGE = "privilege"  # the session lacks a right or the server lacks a function
    OTHER = "other"


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, the driver error it carries, and its explicit causes, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting.append(getattr(current, "driver_error", None))
        waiting.append(current.__cause__)
