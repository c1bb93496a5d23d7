"""psycopg with the wrapper's connections: a PEP 249 module to use where `psycopg` itself was used.

`connect` and `Connection.connect` make wrapper connections. Every other name is psycopg's own object, `AsyncConnection` included;
so `except wrapper.psycopg.IntegrityError` catches what the driver raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import psycopg as driver
from psycopg import (
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
)
from psycopg.rows import Row

from wrapper import errors as ours
from wrapper.connection import AwsWrapperConnection

if TYPE_CHECKING:
    from typing_extensions import Self

# One less than psycopg's own: a wrapper connection may replace the driver's between two calls, and no lock guards that.
threadsafety = 1


class Connection(driver.Connection[Row]):
    """psycopg's connection class for whoever opens connections through a class, such as `psycopg_pool`'s `connection_class`."""

    @classmethod
    def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
        """As `AwsWrapperConnection.connect`, through this class. All errors are psycopg's, those of the wrapper are both."""
        try:
            return cast("Self", AwsWrapperConnection.connect(super().connect, conninfo, **kwargs))
        except ours.AwsWrapperError as error:
            if isinstance(error, Error):
                raise
            raise ours.joint(error, driver) from error


connect = Connection.connect


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
    "Connection",
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
