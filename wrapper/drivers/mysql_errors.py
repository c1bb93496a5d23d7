"""What the errors of mysql-connector-python mean: by error number, else by SQLSTATE, else by the driver's texts. Data first; no
import of the driver.

Numbers: MySQL error reference (server: 1000-1999 and from 3000 on, client: 2000-2999), MariaDB error codes (1900-1999). The
errors of the C extension (`MySQLInterfaceError`, which is no `mysql.connector.Error`) have the same attributes.
"""

from __future__ import annotations

from wrapper.drivers.classify import TLS_TEXTS, DriverExceptionHandler, ErrorKind, by_prefix, causes, first_meaning
from wrapper.errors import AwsConnectError, QueryTimeoutError

# After one of these the physical connection is good for nothing: gone, lost during a query, out of step.
LOST = frozenset({2006, 2013, 2027, 2055})

ERRNOS: dict[int, ErrorKind] = {
    **dict.fromkeys(LOST, ErrorKind.NETWORK),
    2001: ErrorKind.NETWORK,  # no socket to be had
    2002: ErrorKind.NETWORK,  # cannot connect (Unix socket)
    2003: ErrorKind.NETWORK,  # cannot connect
    2004: ErrorKind.NETWORK,  # cannot create a TCP socket
    2005: ErrorKind.NETWORK,  # unknown host
    2012: ErrorKind.NETWORK,  # error in the server's greeting
    2026: ErrorKind.NETWORK,  # TLS error; the text may know better
    2048: ErrorKind.NETWORK,  # invalid connection handle
    1053: ErrorKind.NETWORK,  # server shutdown in progress
    1077: ErrorKind.NETWORK,  # normal shutdown
    1079: ErrorKind.NETWORK,  # shutdown complete
    1158: ErrorKind.NETWORK,  # reading packets, and so on: the server lost us
    1159: ErrorKind.NETWORK,
    1160: ErrorKind.NETWORK,
    1161: ErrorKind.NETWORK,
    1184: ErrorKind.NETWORK,  # aborted connection
    1927: ErrorKind.NETWORK,  # MariaDB: the connection was killed
    3169: ErrorKind.NETWORK,  # the session was killed
    4031: ErrorKind.NETWORK,  # the server ended an idle session
    1044: ErrorKind.LOGIN,  # access to the database denied
    1045: ErrorKind.LOGIN,  # access denied
    1130: ErrorKind.LOGIN,  # host not allowed
    1251: ErrorKind.LOGIN,  # authentication protocol not supported
    1524: ErrorKind.LOGIN,  # authentication plugin not loaded
    1698: ErrorKind.LOGIN,  # access denied, no password possible
    1820: ErrorKind.LOGIN,  # the password must be changed
    1862: ErrorKind.LOGIN,  # the password has expired
    2049: ErrorKind.LOGIN,  # old authentication refused
    2059: ErrorKind.LOGIN,  # authentication plugin cannot be loaded
    2061: ErrorKind.LOGIN,  # authentication plugin reported an error
    3118: ErrorKind.LOGIN,  # account locked
    3159: ErrorKind.LOGIN,  # TLS is required
    3955: ErrorKind.LOGIN,  # account blocked after failed logins
    4151: ErrorKind.LOGIN,  # MariaDB: account locked
    1040: ErrorKind.BUSY,  # too many connections
    1129: ErrorKind.BUSY,  # host blocked after too many aborted connections
    1203: ErrorKind.BUSY,  # too many connections of this user
    1226: ErrorKind.BUSY,  # a limit of this user's is reached
    1836: ErrorKind.READ_ONLY,  # running in read-only mode
    1874: ErrorKind.READ_ONLY,  # InnoDB is in read-only mode
    1142: ErrorKind.PRIVILEGE,
    1143: ErrorKind.PRIVILEGE,
    1227: ErrorKind.PRIVILEGE,
    1370: ErrorKind.PRIVILEGE,
    1109: ErrorKind.PRIVILEGE,  # unknown table in information_schema
    1193: ErrorKind.PRIVILEGE,  # unknown system variable
}
# The numbers that errors of TLS come with, among others: the C library's, the pure Python implementation's, none.
_OF_TLS = frozenset({2026, 2055, -1})
# Refused by an option of the server's, which the text names; others than these are no matter of the host's role.
_PREVENTED_BY_OPTION = 1290
_READ_ONLY_OPTIONS = ("--read-only", "--super-read-only", "--innodb-read-only")

SQLSTATES: dict[str, ErrorKind] = {
    "08": ErrorKind.NETWORK,
    "08004": ErrorKind.BUSY,  # the server refused the connection: too many
    "28": ErrorKind.LOGIN,
}

READ_ONLY_TEXTS = ("running with the --read-only option", "Running in read-only mode")
NETWORK_TEXTS = (
    "MySQL Connection not available",
    "Connection to MySQL is not available",
    "Connection not available.",
    "Can not reconnect to MySQL",
    "Lost connection to MySQL server",
    "MySQL server has gone away",
)
# Errors of the driver's own that say so by their class; the number that it gives them is also that of a server's error.
_TIMEOUTS = frozenset({"ConnectionTimeoutError", "ReadTimeoutError", "WriteTimeoutError"})


def classify(error: BaseException) -> ErrorKind:
    """Return what `error` means, following `driver_error` and explicit causes to the first one that says something."""
    return first_meaning(error, _classify_one)


def classify_sqlstate(sqlstate: str) -> ErrorKind:
    """Return what a SQLSTATE means: the longest prefix that is listed decides."""
    return by_prefix(SQLSTATES, sqlstate)


def means_lost(error: BaseException) -> bool:
    """Whether an error of the driver's says that its connection is good for nothing any more."""
    return any(_errno(cause) in LOST or is_timeout(cause) for cause in causes(error))


class MySqlExceptionHandler(DriverExceptionHandler):
    """The tables above as an `ExceptionHandler`, to derive one from that knows more."""

    _classify = staticmethod(classify)
    _classify_sqlstate = staticmethod(classify_sqlstate)


def _errno(error: BaseException) -> int:
    # An OSError has a number too, with another meaning, but no SQLSTATE.
    return (getattr(error, "errno", None) or -1) if hasattr(error, "sqlstate") else -1


def is_timeout(error: BaseException) -> bool:
    """Whether the driver's own limit for a call was reached."""
    return any(parent.__name__ in _TIMEOUTS for parent in type(error).__mro__)


def _classify_one(error: BaseException) -> ErrorKind:
    if isinstance(error, (AwsConnectError, QueryTimeoutError)) or is_timeout(error):
        return ErrorKind.NETWORK
    if not hasattr(error, "sqlstate"):
        return ErrorKind.OTHER
    errno, text = _errno(error), str(error)
    if errno == _PREVENTED_BY_OPTION:
        return ErrorKind.READ_ONLY if any(option in text for option in _READ_ONLY_OPTIONS) else ErrorKind.OTHER
    if errno in _OF_TLS and any(part in text for part in TLS_TEXTS):
        return ErrorKind.LOGIN
    if errno in ERRNOS:
        return ERRNOS[errno]
    kind = classify_sqlstate(error.sqlstate or "")
    if kind is not ErrorKind.OTHER or errno > 0:
        return kind
    for texts, kind in ((READ_ONLY_TEXTS, ErrorKind.READ_ONLY), (NETWORK_TEXTS, ErrorKind.NETWORK)):
        if any(part in text for part in texts):
            return kind
    return ErrorKind.OTHER
