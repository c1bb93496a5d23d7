"""Exceptions of the wrapper, named as in the AWS Advanced Python Wrapper and arranged as PEP 249 asks.

Driver errors pass through as the same object. Failover errors are at once ours and the driver's `OperationalError`, so that
`except psycopg.OperationalError` and `except FailoverSuccessError` both catch them: `for_driver` makes the joint class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from types import ModuleType

Outcome = Literal["not_sent", "unknown"]


class Warning(Exception):
    """PEP 249: important warnings."""


class Error(Exception):
    """PEP 249: base of all errors. `errno` and `sqlstate` are the driver's where it gives them."""

    errno: int | None = None
    sqlstate: str | None = None


class InterfaceError(Error):
    """PEP 249: an error of the interface rather than of the database."""


class DatabaseError(Error):
    """PEP 249: an error of the database."""


class DataError(DatabaseError):
    """PEP 249: a problem with the processed data."""


class OperationalError(DatabaseError):
    """PEP 249: an error in the database's operation, not necessarily under the programmer's control."""


class IntegrityError(DatabaseError):
    """PEP 249: relational integrity is affected."""


class InternalError(DatabaseError):
    """PEP 249: the database ran into an internal error."""


class ProgrammingError(DatabaseError):
    """PEP 249: a programming error, such as a table that does not exist."""


class NotSupportedError(DatabaseError):
    """PEP 249: a method or call that the database does not support."""


class AwsWrapperError(Error):
    """Wrong configuration or use of the wrapper. `driver_error` is the driver's exception behind it, if there was one."""

    def __init__(self, message: str = "", original_error: BaseException | None = None) -> None:
        super().__init__(message)
        self.driver_error: BaseException | None = original_error
        if isinstance(original_error, AwsWrapperError):
            self.driver_error = original_error.driver_error


class UnsupportedOperationError(AwsWrapperError, NotSupportedError):
    """The database, driver or plugin lacks what was asked for."""


class QueryTimeoutError(AwsWrapperError, OperationalError):
    """A query of the wrapper's own, or a call limited by `socket_timeout`, took too long."""


class PoolTimeoutError(AwsWrapperError, OperationalError):
    """No connection of a pool became free in time."""


class AwsConnectError(AwsWrapperError, OperationalError):
    """A plugin could not open a connection because of the network."""


class ReadWriteSplittingError(AwsWrapperError, InterfaceError):
    """A splitting plugin could not switch connections."""


class FailoverError(OperationalError):
    """Base of what a failover reports.

    `outcome` says what became of the call that met it: `"not_sent"`, the server never saw it and it may be redone freely;
    `"unknown"`, it may or may not have been carried out. `driver_error` is the driver's exception that started
    the failover, None when the connection was given up before anything was sent.
    """

    def __init__(self, message: str = "", *, outcome: Outcome = "unknown", driver_error: BaseException | None = None) -> None:
        super().__init__(message)
        self.outcome: Outcome = outcome
        self.driver_error = driver_error


class FailoverSuccessError(FailoverError):
    """The connection now leads to a working host and no transaction was open: make a new cursor and look at `outcome`."""


class TransactionResolutionUnknownError(FailoverError):
    """A transaction was open when the connection was lost: its fate is unknown. The connection leads to a working host."""


class FailoverFailedError(FailoverError):
    """No acceptable host within `failover_timeout_sec`; the connection is unusable."""


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an error, once. Python 3.10, which has no `add_note`, keeps it without printing it."""
    notes: list[str] = getattr(error, "__notes__", [])
    if note not in notes:
        error.__notes__ = [*notes, note]  # type: ignore[attr-defined]


_E = TypeVar("_E", bound=Error)


_joint: dict[tuple[type, type], type] = {}


def for_driver(error: type[_E], driver_error: type[Exception]) -> type[_E]:
    """Return a class that is both `error` and one of the driver's, such as its `OperationalError`, under the name of `error`."""
    key = (error, driver_error)
    if key not in _joint:
        _joint[key] = type(error.__name__, key, {"__module__": error.__module__, "__doc__": error.__doc__})
    return _joint[key]


def joint(error: AwsWrapperError, driver: ModuleType) -> AwsWrapperError:
    """Return an error of the wrapper's as one that is the driver module's too; wrong parameters are a `ProgrammingError`."""
    kinds = (OperationalError, NotSupportedError, InterfaceError)
    kind = next((kind.__name__ for kind in kinds if isinstance(error, kind)), "ProgrammingError")
    return for_driver(type(error), getattr(driver, kind))(str(error), error.driver_error)
