"""What errors of mysql-connector-python mean: the cases of `tests/spec/mysql_errors.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mysql.connector.errors
import pytest

from wrapper.drivers import mysql_errors
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import AwsConnectError, FailoverFailedError, QueryTimeoutError

Case = dict[str, Any]
CASES: list[Case] = json.loads((Path(__file__).parents[1] / "spec" / "mysql_errors.json").read_text())["cases"]


class MySQLInterfaceError(Exception):
    """As the C extension's, which is no `mysql.connector.Error`."""

    def __init__(self, msg: str, errno: int | None, sqlstate: str | None) -> None:
        super().__init__(msg)
        self.msg, self.errno, self.sqlstate = msg, errno, sqlstate


def error_of(case: Case) -> Exception:
    kind = MySQLInterfaceError if case["class"] == "MySQLInterfaceError" else getattr(mysql.connector.errors, case["class"])
    error: Exception = kind(msg=case.get("text", "text"), errno=case.get("errno"), sqlstate=case.get("sqlstate"))
    return error


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: "-".join(str(case[key]) for key in ("class", "errno", "text") if key in case)
)
def test_meaning(case: Case) -> None:
    error = error_of(case)
    assert mysql_errors.classify(error) is ErrorKind(case["kind"])
    assert mysql_errors.means_lost(error) is case.get("lost", False)


def test_the_first_cause_that_says_something_decides() -> None:
    lost = mysql.connector.errors.OperationalError("gone", errno=2006)
    outer = RuntimeError("in a library")
    outer.__cause__ = lost
    assert mysql_errors.classify(outer) is ErrorKind.NETWORK
    assert mysql_errors.classify(FailoverFailedError("no host", driver_error=lost)) is ErrorKind.NETWORK


@pytest.mark.parametrize("error", [AwsConnectError("x"), QueryTimeoutError("x")], ids=lambda error: type(error).__name__)
def test_errors_of_the_wrappers_own(error: Exception) -> None:
    assert mysql_errors.classify(error) is ErrorKind.NETWORK


def test_a_number_of_the_operating_systems_is_no_number_of_the_servers() -> None:
    assert mysql_errors.classify(OSError(1045, "not MySQL's 1045")) is ErrorKind.OTHER


@pytest.mark.parametrize(("sqlstate", "kind"), [("08S01", "network"), ("08004", "busy"), ("28000", "login"), ("HY000", "other")])
def test_sqlstates(sqlstate: str, kind: str) -> None:
    assert mysql_errors.classify_sqlstate(sqlstate) is ErrorKind(kind)


def test_the_handler_to_derive_from() -> None:
    handler = mysql_errors.MySqlExceptionHandler()
    assert handler.is_network_exception(mysql.connector.errors.InterfaceError(errno=2013))
    assert handler.is_login_exception(sql_state="28000")
    assert handler.is_read_only_connection_exception(mysql.connector.errors.DatabaseError("x", errno=1836))
    assert not handler.is_network_exception(ValueError("x"))
