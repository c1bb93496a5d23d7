"""What psycopg's errors mean: by SQLSTATE, else by the driver's texts. Data first; no import of psycopg.

SQLSTATE classes: PostgreSQL manual, appendix A. Texts: psycopg 3.1-3.3 and libpq, in English (libpq's own messages are translated
only where its catalogues are installed; the binary wheels ship none).
"""

from __future__ import annotations

from wrapper.drivers.classify import TLS_TEXTS, DriverExceptionHandler, ErrorKind, by_prefix, first_meaning
from wrapper.errors import AwsConnectError, QueryTimeoutError

# Longest prefix wins.
SQLSTATES: dict[str, ErrorKind] = {
    "08": ErrorKind.NETWORK,  # connection exception
    "08004": ErrorKind.LOGIN,  # the server rejected the connection
    "25006": ErrorKind.READ_ONLY,  # read-only transaction
    "28": ErrorKind.LOGIN,  # invalid authorization
    "53300": ErrorKind.BUSY,  # too many connections
    "57P01": ErrorKind.NETWORK,  # admin shutdown: the session is terminated
    "57P02": ErrorKind.NETWORK,  # crash shutdown
    "57P03": ErrorKind.STARTING,  # cannot connect now
    "57P05": ErrorKind.NETWORK,  # idle session timeout: the session is terminated
    "25P03": ErrorKind.NETWORK,  # idle in transaction timeout: the session is terminated
    "58": ErrorKind.NETWORK,  # system error
    "F0": ErrorKind.NETWORK,  # configuration file error
    "42501": ErrorKind.PRIVILEGE,
    "42883": ErrorKind.PRIVILEGE,  # undefined function
    "0A": ErrorKind.PRIVILEGE,  # feature not supported
}

LOGIN_TEXTS = (
    "password authentication failed",
    "PAM authentication failed",
    "LDAP authentication failed",
    "no pg_hba.conf entry",
    "pg_hba.conf rejects",
    "fe_sendauth: no password supplied",
)
BUSY_TEXTS = ("too many clients", "too many connections", "remaining connection slots")
STARTING_TEXTS = ("the database system is",)  # starting up, shutting down, in recovery mode, not yet accepting connections
NETWORK_TEXTS = (
    "connection failed",
    "connection timeout expired",
    "connection is bad",
    "consuming input failed",
    "connection socket closed",
    "the connection is closed",
    "the connection is lost",
    "failed to resolve host",
    "flushing failed",
    "sending query failed",
    "server closed the connection unexpectedly",
    "could not receive data",
    "could not send data",
    "SSL connection has been closed",
    "SSL SYSCALL error",
    "no connection to the server",
)


def classify(error: BaseException) -> ErrorKind:
    """Return what `error` means, following `driver_error` and explicit causes to the first one that says something."""
    return first_meaning(error, _classify_one)


def classify_sqlstate(sqlstate: str) -> ErrorKind:
    """Return what a SQLSTATE means: the longest prefix that is listed decides."""
    return by_prefix(SQLSTATES, sqlstate)


class PsycopgExceptionHandler(DriverExceptionHandler):
    """The tables above as an `ExceptionHandler`, to derive one from that knows more."""

    _classify = staticmethod(classify)
    _classify_sqlstate = staticmethod(classify_sqlstate)


def _classify_one(error: BaseException) -> ErrorKind:
    if isinstance(error, (AwsConnectError, QueryTimeoutError)):
        return ErrorKind.NETWORK
    sqlstate = getattr(error, "sqlstate", None)
    if sqlstate:
        return classify_sqlstate(sqlstate)
    names = {parent.__name__ for parent in type(error).__mro__}
    if "ConnectionTimeout" in names:
        return ErrorKind.NETWORK
    if "OperationalError" not in names:
        return ErrorKind.OTHER
    text = str(error)
    for texts, kind in (
        (LOGIN_TEXTS + TLS_TEXTS, ErrorKind.LOGIN),
        (BUSY_TEXTS, ErrorKind.BUSY),
        (STARTING_TEXTS, ErrorKind.STARTING),
        (NETWORK_TEXTS, ErrorKind.NETWORK),
    ):
        if any(part in text for part in texts):
            return kind
    return ErrorKind.OTHER
