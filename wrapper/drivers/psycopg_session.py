"""What is set on a psycopg connection, as the connection object and libpq know it without asking the server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import psycopg
from psycopg import pq

from wrapper.drivers import psycopg_query
from wrapper.session_state import SessionState

# How the next transactions are to be.
_SESSION_ATTRIBUTES = ("autocommit", "isolation_level", "read_only", "deferrable")
# What an application makes of the connection as an object.
_OBJECT_ATTRIBUTES = ("row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold", "prepared_max")
ATTRIBUTES = (*_SESSION_ATTRIBUTES, *_OBJECT_ATTRIBUTES)
# Is None until somebody asks for `adapters`.
_ADAPTERS = "_adapters"
_HANDLERS = ("_notice_handlers", "_notify_handlers")
_NAMES = (*ATTRIBUTES, _ADAPTERS, *_HANDLERS)
# Where psycopg keeps them: its properties, which do nothing but return these, are called for every connect otherwise.
_read = attrgetter(
    *(f"_{name}" for name in _SESSION_ATTRIBUTES),
    "row_factory",
    "cursor_factory",
    "server_cursor_factory",
    "_prepared.prepare_threshold",
    "_prepared.prepared_max",
    _ADAPTERS,
)
_read_handlers = attrgetter(*_HANDLERS)
# What psycopg_pool keeps on a connection; without it a switched connection would never go back to its pool.
_POOL_ATTRIBUTES = ("_pool", "_created_at", "_expire_at")
# Settings that the server reports whenever they change and that a client may set (PostgreSQL manual, 34.2 and 55.2.7). A session's
# authorization is reported too; a wrapper that could grant itself another one would be a liability.
_REPORTED = (
    b"application_name",
    b"client_encoding",
    b"DateStyle",
    b"default_transaction_read_only",
    b"IntervalStyle",
    b"scram_iterations",  # from PostgreSQL 16 on
    b"search_path",  # from PostgreSQL 18 on
    b"standard_conforming_strings",
    b"TimeZone",
)
# Name of the attribute in which the guard keeps what was reported before the open transaction began.
BEFORE_TRANSACTION = "_before_transaction"
# Seconds that setting them may take: the server has just let us in.
_SET_TIMEOUT = 5.0

Reported = tuple[bytes | None, ...]


def reported(pgconn: Any) -> Reported:
    """Return the settings as the server last reported them. Called for every BEGIN: no more than it must be."""
    return tuple(map(pgconn.parameter_status, _REPORTED))


def take_session_state(connection: Any) -> Callable[[], SessionState]:
    """Take down what holds outside of the open transaction: what was set inside goes with it, and was SET LOCAL perhaps.

    Called for every connect, where what is made of it is hardly ever looked at: that is left for later.
    """
    attributes = (*_read(connection), *map(tuple, _read_handlers(connection)))
    try:
        values = getattr(connection, BEFORE_TRANSACTION, None) or reported(connection.pgconn)
    except psycopg.OperationalError:
        values = (None,) * len(_REPORTED)  # libpq has forgotten what a closed connection was told

    def session_state() -> SessionState:
        pairs = zip(_REPORTED, values, strict=True)
        parameters = {name.decode(): value.decode(errors="surrogateescape") for name, value in pairs if value is not None}
        found = dict(zip(_NAMES, attributes, strict=True))
        if found["prepared_max"] == sys.maxsize:
            found["prepared_max"] = None  # as the property says it
        return SessionState(found, parameters)

    return session_state


def set_session_state(connection: Any, state: SessionState) -> None:
    """Set what is different; one round trip at most."""
    different = state.beyond(take_session_state(connection)())
    for name, value in different.attributes.items():
        setattr(connection, name, list(value) if name in _HANDLERS else value)
    if different.parameters:
        pgconn = connection.pgconn
        assignments = [
            b"pg_catalog.set_config(%b, %b, false)" % (_literal(pgconn, name), _literal(pgconn, value))
            for name, value in different.parameters.items()
        ]
        psycopg_query.run(pgconn, b"SELECT " + b", ".join(assignments), _SET_TIMEOUT)


def adopt(old: Any, new: Any) -> None:
    """Have `new` be the same object to the application as `old`."""
    for name in (*_OBJECT_ATTRIBUTES, _ADAPTERS):
        setattr(new, name, getattr(old, name))
    for name in _HANDLERS:
        setattr(new, name, list(getattr(old, name)))
    for name in _POOL_ATTRIBUTES:
        if hasattr(old, name):
            setattr(new, name, getattr(old, name))


def _literal(pgconn: Any, text: str) -> bytes:
    literal: bytes = pq.Escaping(pgconn).escape_literal(text.encode(errors="surrogateescape"))
    return literal
