"""`wrapper.psycopg` in place of `psycopg`."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg
import pytest

import wrapper
import wrapper.psycopg as module
from wrapper import AwsWrapperConnection
from wrapper.testing import LocalAurora

PEP_249 = {
    *("apilevel", "threadsafety", "paramstyle", "connect"),
    *("Warning", "Error", "InterfaceError", "DatabaseError", "DataError", "OperationalError", "IntegrityError", "InternalError"),
    *("ProgrammingError", "NotSupportedError"),
    *("Date", "Time", "Timestamp", "DateFromTicks", "TimeFromTicks", "TimestampFromTicks", "Binary"),
    *("STRING", "BINARY", "NUMBER", "DATETIME", "ROWID"),
}


@pytest.fixture
def arguments(aurora: LocalAurora, monitor_directory: object) -> dict[str, Any]:
    return {"conninfo": aurora.dsn(), "cluster_instance_host_pattern": aurora.instance_host_pattern}


def test_it_has_the_names_of_pep_249_and_they_are_psycopgs() -> None:
    assert set(module.__all__) == PEP_249 | {"Connection"}
    own = {"connect", "threadsafety"}
    assert all(getattr(module, name) is getattr(psycopg, name) for name in PEP_249 - own)


def test_two_threads_may_not_share_a_connection() -> None:
    assert module.threadsafety == wrapper.threadsafety == 1


def test_every_other_name_is_psycopgs() -> None:
    others = {*psycopg.__all__, "errors", "pq", "rows", "sql", "types"} - set(module.__all__)
    assert all(getattr(module, name) is getattr(psycopg, name) for name in others)
    assert module.__version__ == psycopg.__version__
    assert others <= set(dir(module))
    with pytest.raises(AttributeError, match=r"module 'wrapper\.psycopg' has no attribute 'no_such_thing'"):
        _ = module.no_such_thing


def test_connect_makes_a_wrapper_connection(arguments: dict[str, Any]) -> None:
    connection: Any = module.connect(**arguments)
    with connection:
        assert all(isinstance(connection, kind) for kind in (AwsWrapperConnection, module.Connection, psycopg.Connection))
        with pytest.raises(module.IntegrityError):
            connection.execute("DO $$ BEGIN RAISE unique_violation; END $$")


def test_a_subclass_makes_connections_of_its_own_class_before_and_after_a_failover(
    aurora: LocalAurora, arguments: dict[str, Any]
) -> None:
    class Ours(module.Connection[Any]):
        pass

    with closing(Ours.connect(**arguments, autocommit=True)) as connection:
        assert isinstance(connection, Ours)
        cursor = connection.execute("SELECT 1")
        aurora.failover()
        with pytest.raises(module.OperationalError) as caught:
            connection.execute("CREATE TEMP TABLE writes (x int)")
        assert isinstance(caught.value, wrapper.FailoverSuccessError)
        assert isinstance(connection, Ours)
        with pytest.raises(module.InterfaceError, match="make a new cursor") as refused:
            cursor.fetchone()
        assert isinstance(refused.value, wrapper.AwsWrapperError)


@pytest.mark.parametrize("parameters", [{"no_such_parameter": 1}, {"failure_detection_count": 0}, {"plugins": "no_such_plugin"}])
def test_a_wrong_parameter_is_an_error_of_both(parameters: dict[str, Any]) -> None:
    with pytest.raises(module.ProgrammingError) as caught:
        module.connect(**parameters)
    assert isinstance(caught.value, wrapper.AwsWrapperError)
    assert next(iter(parameters)) in str(caught.value)
    assert caught.value.diag.sqlstate is None
