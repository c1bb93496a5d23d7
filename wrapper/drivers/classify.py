"""What an error means, whatever driver raised it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import ClassVar, Protocol

from wrapper.errors import AwsWrapperError


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


def first_meaning(error: BaseException, meaning: Callable[[BaseException], ErrorKind]) -> ErrorKind:
    """Return what `meaning` makes of the error, or of the first of its causes that says something."""
    return next((kind for cause in causes(error) if (kind := meaning(cause)) is not ErrorKind.OTHER), ErrorKind.OTHER)


def by_prefix(sqlstates: Mapping[str, ErrorKind], sqlstate: str) -> ErrorKind:
    """Return what a SQLSTATE means: the longest prefix of it that is listed decides."""
    return next((sqlstates[sqlstate[:length]] for length in (5, 2) if sqlstate[:length] in sqlstates), ErrorKind.OTHER)


class ExceptionHandler(Protocol):
    """Says what errors mean. Either argument may be missing; `sql_state` comes alone where only that is known."""

    def is_network_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        """Whether the connection is gone."""
        ...

    def is_login_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        """Whether the server refused the credentials."""
        ...

    def is_read_only_connection_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        """Whether the host does not take writes."""
        ...


class DriverExceptionHandler:
    """A driver's tables as an `ExceptionHandler`; each driver has one, to derive from."""

    _classify: Callable[[BaseException], ErrorKind]
    _classify_sqlstate: Callable[[str], ErrorKind]

    def is_network_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        return self._means(ErrorKind.NETWORK, error, sql_state)

    def is_login_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        return self._means(ErrorKind.LOGIN, error, sql_state)

    def is_read_only_connection_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        return self._means(ErrorKind.READ_ONLY, error, sql_state)

    def _means(self, kind: ErrorKind, error: BaseException | None, sql_state: str | None) -> bool:
        return (error is not None and self._classify(error) is kind) or (
            sql_state is not None and self._classify_sqlstate(sql_state) is kind
        )


# What drivers and OpenSSL say when a server was reached and TLS with it cannot be: a certificate, a file, a setting is wrong, and
# nobody is down. Not among them: a connection that ends, in the handshake or later.
TLS_TEXTS = (
    "certificate verify failed",
    "does not match host name",
    "root certificate file",
    "Invalid CA Certificate",
    "Invalid Certificate/Key",
    "SSL_CTX_",
    "SSL is required but",
    "server does not support SSL",
    " alert ",
    "unsupported protocol",
    "no protocols available",
    "no cipher match",
    "could not read certificate file",
    "could not load private key file",
)


class ExceptionManager:
    """Where the application says itself what errors mean, for all connections of this process."""

    _custom: ClassVar[ExceptionHandler | None] = None

    @classmethod
    def set_custom_handler(cls, handler: ExceptionHandler) -> None:
        """Have `handler` asked in place of the driver's tables. Raises `AwsWrapperError` for what is no handler."""
        questions = ("is_network_exception", "is_login_exception", "is_read_only_connection_exception")
        missing = [name for name in questions if not callable(getattr(handler, name, None))]
        if missing:
            raise AwsWrapperError(f"a {type(handler).__name__} is not an exception handler: it has no {', '.join(missing)}")
        cls._custom = handler

    @classmethod
    def reset_custom_handler(cls) -> None:
        """Have the driver's tables decide again."""
        cls._custom = None

    @classmethod
    def decide(cls, known: ErrorKind, error: BaseException | None = None, sql_state: str | None = None) -> ErrorKind:
        """Return what an error means: `known`, which the driver's tables say, unless the custom handler answers otherwise.

        The handler is asked three questions. What it denies is not so; kinds that it is not asked about stay what they are.
        """
        handler = cls._custom
        if handler is None:
            return known
        if handler.is_network_exception(error, sql_state):
            return ErrorKind.NETWORK
        if handler.is_login_exception(error, sql_state):
            return ErrorKind.LOGIN
        if handler.is_read_only_connection_exception(error, sql_state):
            return ErrorKind.READ_ONLY
        return ErrorKind.OTHER if known in (ErrorKind.NETWORK, ErrorKind.LOGIN, ErrorKind.READ_ONLY) else known
