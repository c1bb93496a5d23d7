"""What differs per driver: how to connect, what its errors mean, which of its methods reach the network."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wrapper.errors import AwsWrapperError

if TYPE_CHECKING:
    from wrapper.drivers.base import DriverDialect


def driver_dialect_for(target: Callable[..., Any] | None) -> DriverDialect:
    """Return the dialect of the driver that a connect function belongs to. Raises `AwsWrapperError` when it is nobody's."""
    if target is None:
        raise AwsWrapperError("the driver's connect function is missing: pass it first, for example psycopg.Connection.connect")
    if not callable(target):
        raise AwsWrapperError(f"the first argument must be the driver's connect function, not {type(target).__name__}")
    # Whoever holds a driver's connect function has imported the driver.
    if "psycopg" in sys.modules:
        from wrapper.drivers.psycopg import PsycopgDialect

        if PsycopgDialect.recognises(target):
            return PsycopgDialect(target)
    if "mysql.connector" in sys.modules:
        from wrapper.drivers.mysql_connector import MySqlConnectorDialect

        if MySqlConnectorDialect.recognises(target):
            return MySqlConnectorDialect(target)
    # Not its repr: that of a functools.partial shows the arguments, a password among them.
    name = getattr(target, "__qualname__", type(target).__name__)
    supported = "psycopg.Connection.connect or mysql.connector.connect"
    raise AwsWrapperError(f"{name} belongs to no driver that is supported: pass {supported}")
