"""The wrapper connection behaves as the driver's own does."""

from __future__ import annotations

import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import wrapper
from wrapper import AwsWrapperConnection, AwsWrapperCursor
from wrapper.errors import AwsWrapperError
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]


def test_it_is_an_instance_of_both(connect: Connect) -> None:
    connection = connect()
    assert all(isinstance(connection, kind) for kind in (psycopg.Connection, AwsWrapperConnection))
    cursor = connection.cursor()
    assert all(isinstance(cursor, kind) for kind in (psycopg.Cursor, AwsWrapperCursor))
    assert cursor.connection is connection
    assert connection.connection is connection


def test_reading_memory_is_the_drivers_own_function(connect: Connect) -> None:
    """A fetch from a client-side cursor costs what the driver's costs, because it is the driver's."""
    cursor = connect().cursor()
    for name in ("fetchone", "fetchmany", "fetchall", "__iter__", "__next__", "scroll", "nextset"):
        if hasattr(psycopg.Cursor, name):
            assert inspect.getattr_static(type(cursor), name) is inspect.getattr_static(psycopg.Cursor, name)


def test_execute_returns_the_wrapped_cursor(connect: Connect) -> None:
    connection = connect()
    cursor = connection.cursor()
    assert cursor.execute("SELECT 1") is cursor
    assert cursor.fetchone() == (1,)
    assert isinstance(connection.execute("SELECT %s", ("x",)), AwsWrapperCursor)
    assert list(cursor.execute("SELECT generate_series(1, 3)")) == [(1,), (2,), (3,)]


def test_attributes_read_and_write_through(connect: Connect) -> None:
    connection = connect()
    connection.row_factory = dict_row
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    assert connection.target_connection.isolation_level is psycopg.IsolationLevel.SERIALIZABLE
    assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = connection.no_such_thing


def test_with_commits_and_rolls_back_as_the_driver_does(connect: Connect) -> None:
    connect().execute("CREATE TABLE IF NOT EXISTS with_block (x int); TRUNCATE with_block")
    with connect(autocommit=False) as connection:
        connection.execute("INSERT INTO with_block VALUES (1)")
    assert connection.closed
    with pytest.raises(ZeroDivisionError), connect(autocommit=False) as connection:
        connection.execute("INSERT INTO with_block VALUES (2)")
        raise ZeroDivisionError
    assert connection.closed
    assert connect().execute("SELECT x FROM with_block").fetchall() == [(1,)]


def undo_in_a_savepoint(connection: Any) -> None:
    with connection.transaction() as inner:
        connection.execute("INSERT INTO blocks VALUES (2)")
        raise psycopg.Rollback(inner)


def test_blocks_of_the_driver(connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TEMP TABLE blocks (x int)")
    with connection.transaction() as outer:
        assert isinstance(outer, psycopg.Transaction)
        assert outer.connection is connection
        connection.execute("INSERT INTO blocks VALUES (1)")
        undo_in_a_savepoint(connection)
    with connection.cursor().copy("COPY blocks FROM STDIN") as copy:
        copy.write_row((3,))
    with connection.pipeline():
        connection.execute("INSERT INTO blocks VALUES (4)")
        cursor = connection.execute("SELECT count(*) FROM blocks")
    assert cursor.fetchone() == (3,)
    assert sorted(row[0] for row in connection.cursor().stream("SELECT x FROM blocks")) == [1, 3, 4]
    connection.cursor().executemany("INSERT INTO blocks VALUES (%s)", [(5,), (6,)])
    with connection.transaction(), connection.cursor("named") as server_cursor:
        server_cursor.execute("SELECT x FROM blocks ORDER BY x")
        assert server_cursor.fetchone() == (1,)
        assert server_cursor.fetchmany(2) == [(3,), (4,)]
        assert [row[0] for row in server_cursor] == [5, 6]


def test_driver_errors_are_the_drivers(connect: Connect) -> None:
    connection = connect()
    connection.execute("CREATE TEMP TABLE errors (x int PRIMARY KEY)")
    connection.execute("INSERT INTO errors VALUES (1)")
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        connection.execute("INSERT INTO errors VALUES (1)")
    assert type(caught.value).__name__ == "UniqueViolation"
    with pytest.raises(psycopg.errors.SyntaxError):
        connection.cursor().executemany("SELEKT %s", [(1,)])


def test_two_phase_commit(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(autocommit=False)
    with psycopg.connect(aurora.admin_dsn(aurora.writer.id)) as admin:
        prepared = admin.execute("SHOW max_prepared_transactions").fetchone()
    if prepared == ("0",):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            connection.tpc_begin(connection.xid(1, "gtrid", "bqual"))
            connection.tpc_prepare()
        connection.rollback()
        return
    connection.tpc_begin(connection.xid(1, "gtrid", "bqual"))
    connection.tpc_prepare()
    connection.tpc_rollback()


def test_a_dropped_connection_is_collected_at_once(connect: Connect, aurora: LocalAurora) -> None:
    connection = AwsWrapperConnection.connect(
        psycopg.Connection.connect, aurora.dsn(), cluster_instance_host_pattern=aurora.instance_host_pattern
    )
    target = weakref.ref(connection.target_connection)
    gc.disable()
    try:
        with pytest.warns(ResourceWarning):
            del connection
        assert target() is None
    finally:
        gc.enable()


def test_a_closed_connection_says_so_and_does_not_fail_over(connect: Connect) -> None:
    connection = connect()
    cursor = connection.cursor()
    connection.close()
    assert connection.closed
    with pytest.raises(psycopg.OperationalError, match="closed") as caught:
        cursor.execute("SELECT 1")
    assert not isinstance(caught.value, wrapper.FailoverError)


def test_no_plugins_is_the_driver_alone(connect: Connect) -> None:
    connection = connect(plugins="")
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert connection.plugin_service.all_hosts[0].role is wrapper.HostRole.WRITER


def test_a_wrong_password_is_the_drivers_error_at_once(aurora: LocalAurora, monitor_directory: object) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed") as caught:
        AwsWrapperConnection.connect(
            psycopg.Connection.connect,
            aurora.dsn(),
            password="wrong",
            enable_connect_failover=True,
            cluster_instance_host_pattern=aurora.instance_host_pattern,
        )
    assert not isinstance(caught.value, wrapper.FailoverError)


def test_parameters_of_ours_stand_in_the_text_too(aurora: LocalAurora, monitor_directory: object) -> None:
    text = f"{aurora.dsn()} plugins='host_monitoring_v2' failure_detection_count=5"
    with AwsWrapperConnection.connect(psycopg.connect, text) as connection:
        assert [type(plugin).__name__ for plugin in connection.plugin_service.manager.plugins] == ["HostMonitoringV2Plugin"]


def test_a_bad_parameter_is_refused_before_anything_is_opened(aurora: LocalAurora) -> None:
    with pytest.raises(AwsWrapperError, match="failure_detection_count='0'"):
        AwsWrapperConnection.connect(psycopg.connect, "host=192.0.2.1 failure_detection_count=0")
