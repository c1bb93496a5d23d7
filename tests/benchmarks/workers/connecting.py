"""Opening one connection in each of the three ways that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

RAW = "raw"
OURS = "ours"
REFERENCE = "reference"


def connect(side: str, conninfo: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """Open a connection in autocommit mode. `parameters` are the wrapper's own; the raw driver gets none of them."""
    connection: Any
    if side == RAW:
        connection = psycopg.Connection.connect(conninfo)
    elif side == OURS:
        from wrapper import AwsWrapperConnection

        connection = AwsWrapperConnection.connect(psycopg.Connection.connect, conninfo, **(parameters or {}))
    else:
        from aws_advanced_python_wrapper import (  # type: ignore[import-not-found]
            AwsWrapperConnection as ReferenceConnection,
        )

        connection = ReferenceConnection.connect(psycopg.Connection.connect, conninfo, **(parameters or {}))
    connection.autocommit = True
    return connection


def is_closed(connection: Any) -> bool:
    """Whether a connection of any side is closed, without network traffic."""
    return bool(connection.closed if isinstance(connection, psycopg.Connection) else connection.is_closed)
