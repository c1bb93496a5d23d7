"""mysql-connector-python with the wrapper's connections: a PEP 249 module to use where `mysql.connector` itself was used.

`connect` (and its other name `Connect`) makes wrapper connections. Every other name is the driver's own object, `MySQLConnection`
included; so `except wrapper.mysql_connector.IntegrityError` catches what the driver raises.
"""

from __future__ import annotations

from typing import Any

import mysql.connector as driver
from mysql.connector import (
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    DatabaseError,
    DataError,
    Date,
    DateFromTicks,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    Warning,
    apilevel,
    paramstyle,
    threadsafety,
)

from wrapper.connection import AwsWrapperConnection
from wrapper.errors import AwsWrapperError, joint


def connect(**kwargs: Any) -> AwsWrapperConnection:
    """As `AwsWrapperConnection.connect` with the driver's `connect`. All errors are the driver's, those of the wrapper are both."""
    try:
        return AwsWrapperConnection.connect(driver.connect, **kwargs)
    except Error:
        raise
    except AwsWrapperError as error:
        raise joint(error, driver) from error


Connect = connect


def __getattr__(name: str) -> Any:
    try:
        return getattr(driver, name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}, and neither has {driver.__name__!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(driver)})


__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connect",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]
