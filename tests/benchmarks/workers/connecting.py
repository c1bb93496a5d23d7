"""Opening one connection in each of the three ways that are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.drivers import DRIVERS

RAW = "raw"
OURS = "ours"
REFERENCE = "reference"


def connect(side: str, login: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> Any:
    """Open a connection in autocommit mode. `login`: the name of the driver and what its connect function takes. `parameters` are
    the wrapper's own; the raw driver gets none of them."""
    arguments = dict(login)
    driver = DRIVERS[arguments.pop("driver")]
    connection: Any
    if side == RAW:
        connection = driver.connect(**arguments)
    elif side == OURS:
        from wrapper import AwsWrapperConnection

        connection = AwsWrapperConnection.connect(driver.connect, **arguments, **(parameters or {}))
    else:
        from aws_advanced_python_wrapper import (  # type: ignore[import-not-found]
            AwsWrapperConnection as ReferenceConnection,
        )

        connection = ReferenceConnection.connect(driver.connect, **arguments, **(parameters or {}))
    connection.autocommit = True
    return connection


def is_closed(connection: Any, side: str, login: Mapping[str, Any]) -> bool:
    """Whether a connection is closed, as far as is known without network traffic (mysql-connector-python alone has to ask)."""
    return DRIVERS[login["driver"]].is_closed(connection) if side == RAW else bool(connection.is_closed)
