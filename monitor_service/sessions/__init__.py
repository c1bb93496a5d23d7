"""Probe sessions: what the monitor asks a database server, per driver, and how such a question ends."""

from __future__ import annotations

from wrapper.drivers.classify import ErrorKind


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
