"""A writer is killed under connections of mysql-connector-python: what the application sees, and where it is afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import mysql.connector
import mysql.connector.connection_cext
import pytest

from wrapper import errors
from wrapper.testing import LocalAurora

from .conftest import Connect, one, stands_for, wait_for_readers


def replace_writer(lab: LocalAurora) -> str:
    """Kill the writer and have another instance promoted a moment later; return its name."""
    (target, *_) = lab.readers
    wait_for_readers(lab)
    lab.kill(lab.writer.id)
    lab.promote_later(target=target.id, delay=0.1)
    return target.id


# What the C extension's own functions raise is no `mysql.connector.Error`.
LIBRARY_ERROR: type[Exception] = vars(mysql.connector.connection_cext)["MySQLInterfaceError"]

KINDS: dict[str, dict[str, bool]] = {
    "default": {},
    "buffered": {"buffered": True},
    "dictionary": {"dictionary": True},
    "raw": {"raw": True},
    "prepared": {"prepared": True},
}


@pytest.mark.parametrize("how", KINDS.values(), ids=KINDS)
def test_a_statement_that_meets_a_dead_writer(aurora_mysql: LocalAurora, connect: Connect, how: dict[str, bool]) -> None:
    connection = connect()
    cursor = connection.cursor(**how)
    cursor.execute("SELECT 1")
    cursor.fetchall()
    new = replace_writer(aurora_mysql)
    with pytest.raises(errors.FailoverSuccessError) as caught:
        cursor.execute("SELECT 2")
    assert caught.value.outcome == "unknown"
    assert stands_for(caught.value, mysql.connector.OperationalError)
    assert one(connection, "SELECT @@aurora_server_id") == new
    assert connection.plugin_service.current_host_info.host_id == new


@pytest.mark.parametrize("how", KINDS.values(), ids=KINDS)
def test_cursors_from_before_are_refused(aurora_mysql: LocalAurora, connect: Connect, how: dict[str, bool]) -> None:
    connection = connect()
    cursor = connection.cursor(**how)
    cursor.execute("SELECT 1 UNION SELECT 2 UNION SELECT 3")
    rows = iter(cursor)
    next(rows)
    cursor.fetchall()
    replace_writer(aurora_mysql)
    with pytest.raises(errors.FailoverSuccessError):
        connection.commit()
    for call in (cursor.fetchone, cursor.fetchall, cursor.nextset, lambda: next(rows), lambda: next(cursor), lambda: iter(cursor)):
        with pytest.raises(errors.AwsWrapperError, match="make a new cursor"):
            call()
    with pytest.raises(errors.AwsWrapperError, match="make a new cursor"):
        cursor.execute("SELECT 1")
    cursor.close()


CALLS: dict[str, Callable[[Any], Any]] = {
    "commit": lambda connection: connection.commit(),
    "rollback": lambda connection: connection.rollback(),
    "cursor": lambda connection: connection.cursor(),
    "start_transaction": lambda connection: connection.start_transaction(),
    "ping": lambda connection: connection.ping(),
    "autocommit": lambda connection: setattr(connection, "autocommit", False),
    "reset_session": lambda connection: connection.reset_session(),
    "sql_mode": lambda connection: setattr(connection, "sql_mode", ""),
    "time_zone": lambda connection: setattr(connection, "time_zone", "+01:00"),
    "database": lambda connection: setattr(connection, "database", "app"),
    "cmd_init_db": lambda connection: connection.cmd_init_db("app"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_another_call_that_meets_a_dead_writer(aurora_mysql: LocalAurora, connect: Connect, call: Callable[[Any], Any]) -> None:
    connection = connect()
    new = replace_writer(aurora_mysql)
    with pytest.raises(errors.FailoverSuccessError):
        call(connection)
    assert one(connection, "SELECT @@aurora_server_id") == new


LEFT_TO_THE_GUARD: dict[str, Callable[[Any], Any]] = {
    "cmd_query": lambda connection: connection.cmd_query("SELECT 1"),
    "cmd_statistics": lambda connection: connection.cmd_statistics(),
    "cmd_stmt_prepare": lambda connection: connection.cmd_stmt_prepare(b"SELECT ?"),
    "info_query": lambda connection: connection.info_query("SELECT 1"),
    "set_charset_collation": lambda connection: connection.set_charset_collation("utf8mb4", "utf8mb4_bin"),
    "time_zone": lambda connection: connection.time_zone,
}


@pytest.mark.parametrize("call", LEFT_TO_THE_GUARD.values(), ids=LEFT_TO_THE_GUARD)
def test_what_the_guard_alone_sees_is_made_good_by_the_next_call(
    aurora_mysql: LocalAurora, connect: Connect, call: Callable[[Any], Any]
) -> None:
    connection = connect()
    aurora_mysql.kill(aurora_mysql.writer.id)
    with pytest.raises((mysql.connector.Error, LIBRARY_ERROR)) as first:
        call(connection)
    assert not stands_for(first.value, errors.FailoverError)
    (target, *_) = aurora_mysql.readers
    aurora_mysql.promote_later(target=target.id, delay=0.0)
    with pytest.raises(errors.FailoverSuccessError) as caught:
        connection.cursor().execute("SELECT 2")
    assert caught.value.outcome == "not_sent"
    assert one(connection, "SELECT @@aurora_server_id") == target.id


def test_several_statements_in_one_call(aurora_mysql: LocalAurora, connect: Connect, table: str) -> None:
    connection = connect()
    cursor = connection.cursor()
    cursor.executemany(f"INSERT INTO {table} VALUES (%s)", [(1,), (2,)])
    replace_writer(aurora_mysql)
    with pytest.raises(errors.FailoverSuccessError) as caught:
        cursor.executemany(f"INSERT INTO {table} VALUES (%s)", [(3,), (4,)])
    assert caught.value.outcome == "unknown"


def test_a_procedure(aurora_mysql: LocalAurora, connect: Connect) -> None:
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("CREATE OR REPLACE PROCEDURE double_it(INOUT x INT) SET x = 2 * x")
    assert tuple(map(int, cursor.callproc("double_it", (21,)))) == (42,)
    replace_writer(aurora_mysql)
    with pytest.raises(errors.FailoverSuccessError):
        cursor.callproc("double_it", (21,))


@pytest.mark.parametrize("fetch", ["fetchone", "fetchmany", "fetchall"])
def test_rows_that_are_still_on_their_way(aurora_mysql: LocalAurora, connect: Connect, fetch: str) -> None:
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("SELECT REPEAT('x', 1000) FROM seq_1_to_100000")
    cursor.fetchone()
    new = replace_writer(aurora_mysql)
    with pytest.raises(errors.FailoverSuccessError) as caught:
        while getattr(cursor, fetch)():
            pass
    assert caught.value.outcome == "unknown"
    assert one(connection, "SELECT @@aurora_server_id") == new


def test_an_open_transaction_is_not_lost_in_silence(aurora_mysql: LocalAurora, connect: Connect, table: str) -> None:
    connection = connect(autocommit=False)
    cursor = connection.cursor()
    cursor.execute(f"INSERT INTO {table} VALUES (1)")
    replace_writer(aurora_mysql)
    # The driver asks for a sign of life here: it is this call that meets the dead writer.
    with pytest.raises(errors.TransactionResolutionUnknownError):
        connection.cursor()
    assert not connection.in_transaction
    assert one(connection, f"SELECT count(*) FROM {table}") == 0


def test_a_failed_commit_is_a_transaction_of_unknown_fate(aurora_mysql: LocalAurora, connect: Connect, table: str) -> None:
    connection = connect()
    connection.start_transaction()
    connection.cursor().execute(f"INSERT INTO {table} VALUES (1)")
    replace_writer(aurora_mysql)
    with pytest.raises(errors.TransactionResolutionUnknownError) as caught:
        connection.commit()
    assert caught.value.outcome == "unknown"


def test_what_was_set_through_the_driver_goes_along(aurora_mysql: LocalAurora, connect: Connect) -> None:
    connection = connect()
    connection.autocommit = False
    connection.time_zone = "+05:00"
    connection.sql_mode = "ANSI_QUOTES"
    connection.set_charset_collation("latin1", "latin1_german1_ci")
    connection.database = "information_schema"
    connection.get_warnings = True
    replace_writer(aurora_mysql)
    with pytest.raises(errors.FailoverSuccessError):
        connection.ping()
    assert one(connection, "SELECT @@autocommit") == 0
    assert one(connection, "SELECT @@time_zone") == "+05:00"
    assert one(connection, "SELECT @@sql_mode") == "ANSI_QUOTES"
    assert one(connection, "SELECT @@collation_connection") == "latin1_german1_ci"
    assert one(connection, "SELECT DATABASE()") == "information_schema"
    assert connection.get_warnings


def test_a_writer_that_no_longer_takes_writes(aurora_mysql: LocalAurora, connect: Connect, raw: Connect, table: str) -> None:
    """It keeps our session: what tells the connection to leave is the refused write, and the host's own word."""
    connection = connect()
    cursor = connection.cursor()
    old = aurora_mysql.writer.id
    with mysql.connector.connect(**aurora_mysql.admin_parameters(old), use_pure=True) as admin:
        admin.cursor().execute("SET GLOBAL read_only = ON")
        aurora_mysql.promote_later(target=aurora_mysql.readers[0].id, delay=0.1, drop_sessions=False, rejoin=False)
        with pytest.raises(errors.FailoverSuccessError):
            cursor.execute(f"INSERT INTO {table} VALUES (1)")
    assert one(connection, "SELECT @@aurora_server_id") != old


def test_a_read_only_transaction_of_the_applications_own_is_its_own_business(connect: Connect, table: str) -> None:
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("START TRANSACTION READ ONLY")
    with pytest.raises(mysql.connector.Error) as caught:
        cursor.execute(f"INSERT INTO {table} VALUES (1)")
    assert caught.value.errno == 1792
    assert not stands_for(caught.value, errors.FailoverError)


def test_ping_with_reconnect_leaves_a_working_connection(aurora_mysql: LocalAurora, connect: Connect) -> None:
    connection = connect()
    new = replace_writer(aurora_mysql)
    connection.ping(reconnect=True)
    assert one(connection, "SELECT @@aurora_server_id") == new


def test_reconnect_makes_a_new_session_with_the_same_settings(connect: Connect) -> None:
    connection = connect()
    connection.time_zone = "+03:00"
    before = connection.connection_id
    cursor = connection.cursor()
    connection.reconnect()
    assert connection.connection_id != before
    assert one(connection, "SELECT @@time_zone") == "+03:00"
    with pytest.raises(errors.AwsWrapperError, match="has been replaced"):
        cursor.execute("SELECT 1")


def test_connect_with_failover(aurora_mysql: LocalAurora, connect: Connect) -> None:
    first = connect()
    new = replace_writer(aurora_mysql)
    second = connect(enable_connect_failover=True)
    assert one(second, "SELECT @@aurora_server_id") == new
    with pytest.raises(errors.FailoverSuccessError):
        one(first, "SELECT 1")


def test_a_buffered_cursor_that_loses_its_writer_while_it_reads_the_rows(aurora_mysql: LocalAurora, connect: Connect) -> None:
    connection = connect()
    cursor = connection.cursor(buffered=True)
    replaced = threading.Timer(0.3, replace_writer, (aurora_mysql,))
    replaced.start()
    with pytest.raises(errors.FailoverSuccessError):
        # The first rows come at once, the others bit by bit.
        cursor.execute("SELECT REPEAT('x', 100000), IF(seq < 100, 0, SLEEP(0.05)) FROM seq_1_to_1000")
    replaced.join()
