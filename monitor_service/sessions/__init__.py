"""Probe sessions: what the monitor asks a database server, per engine, and how such a question ends."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wrapper.drivers.classify import ErrorKind
from wrapper.monitor.state import ANSWERED, OURS, REFUSED, SILENT

# What servers list the monitor's sessions as.
APPLICATION_NAME = "aws-shared-monitor"


class ProbeError(Exception):
    """A question to a server that did not end in rows.

    `kind` is how it ended on the wire (`wrapper.monitor.state`: answered, refused, silent, ours), `error` what an answer meant.
    `detail` is one line for people, without login values.
    """

    def __init__(self, kind: str, detail: str, error: ErrorKind = ErrorKind.OTHER) -> None:
        super().__init__(detail)
        self.kind = kind
        self.error = error
        self.detail = detail


class UnsupportedError(ProbeError):
    """The server wants a login of a kind that the monitor does not have: other values of the same kind will not do either."""

    def __init__(self, detail: str) -> None:
        super().__init__(ANSWERED, detail, ErrorKind.LOGIN)


class Session(Protocol):
    """One autocommit session that is asked one question at a time. After any `ProbeError` but a missing right it must be closed."""

    address: str

    async def ask(self, query: str, timeout: float) -> list[tuple[Any, ...]]:
        """Return the rows. Raises `ProbeError`, within `timeout` seconds."""
        ...

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the idle session hears something: the server has closed it or has something to say."""
        ...

    def shut(self) -> None:
        """End a running question at once; it raises. The session is then of no more use."""
        ...

    def close(self) -> None:
        """Give the session up; nothing may be running on it. Does not wait for the server."""
        ...


class Door(Protocol):
    """The way to a session with the server at one address."""

    async def knock(self, timeout: float) -> None:
        """Return when the server has said something; no login is spent. Raises `ProbeError` within `timeout` seconds."""
        ...

    async def log_in(self, offer: Mapping[str, Any], timeout: float) -> Session:
        """Log in. Raises `ProbeError`; a server that does not finish the login within `timeout` seconds is `silent`."""
        ...

    def close(self) -> None:
        """Go away, if nobody was let in."""
        ...


def kind_of(error: OSError) -> str:
    """Return what an error of a socket says of the server."""
    if isinstance(error, ConnectionError):
        return REFUSED  # or reset, by the server or its host
    # No route, no descriptor, no local port, forbidden by a local filter: says nothing of the server.
    return SILENT if error.errno == errno.ETIMEDOUT else OURS
