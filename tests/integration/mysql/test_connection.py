"""A wrapper connection stands in for mysql-connector-python's own, and can be ended from outside."""

from __future__ import annotations

import os
import socket
import threading
import time
import warnings
from typing import Any

import mysql.connector
import pytest
from mysql.connector.abstracts import MySQLConnectionAbstract, MySQLCursorAbstract
from mysql.connector.connection import MySQLConnection

from tests.integration.conftest import eventually
from wrapper import AwsWrapperConnection, AwsWrapperCursor, errors
from wrapper.drivers import mysql_guard, mysql_socket
from wrapper.hosts import HostRole
from wrapper.testing import LocalAurora

from .conftest import Connect, one, stands_for


def number_of(connection: Any) -> int:
    number = mysql_guard.number_of(connection.target_connection)
    assert number is not None
    return number


def test_the_cluster_is_recognised(aurora_mysql: LocalAurora, connect: Connect) -> None:
    connection = connect()
    service = connection.plugin_service
    assert service.database_dialect.code == "aurora-mysql"
    assert service.driver_dialect.code == "mysql-connector-python"
    assert {host.host_id for host in service.all_hosts} == {instance.id for instance in aurora_mysql.instances}
    assert service.current_host_info.host_id == aurora_mysql.writer.id


def test_a_server_that_is_not_aurora(aurora_mysql: LocalAurora, use_pure: bool) -> None:
    """Without the lab's layer, it is a MariaDB of which nobody knows the cluster."""
    for instance, role in ((aurora_mysql.writer, HostRole.WRITER), (aurora_mysql.readers[0], HostRole.READER)):
        parameters = {**aurora_mysql.admin_parameters(instance.id), "use_pure": use_pure, "monitor_mode": "off"}
        with AwsWrapperConnection.connect(mysql.connector.connect, **parameters) as connection:
            service = connection.plugin_service
            assert service.database_dialect is not None
            assert service.database_dialect.code == "mariadb"
            assert service.get_host_role() is role
            assert len(service.all_hosts) == 1


def questions(connection: Any) -> int:
    """How many statements the server has had in this session, this one included."""
    cursor = connection.cursor()
    cursor.execute("SHOW SESSION STATUS LIKE 'Questions'")
    ((_, number),) = cursor.fetchall()
    return int(number)


# An Aurora that has a Global Database's tables is asked how many regions it has.
@pytest.mark.parametrize(("is_aurora", "round_trips"), [(True, 3), (False, 2)], ids=["aurora", "mariadb"])
def test_the_first_connect_of_a_process_costs_two_round_trips(
    aurora_mysql: LocalAurora, connect: Connect, raw: Connect, is_aurora: bool, round_trips: int
) -> None:
    host = {} if is_aurora else {"host": aurora_mysql.writer.direct_address}
    alone = questions(raw(**host))
    assert questions(connect(aurora_mysql.writer.id, **host)) == alone + round_trips
    assert questions(connect(aurora_mysql.writer.id, **host)) == alone


def test_it_is_the_drivers_connection_to_whoever_asks(connect: Connect, use_pure: bool) -> None:
    connection = connect()
    kind = MySQLConnection if use_pure else mysql.connector.CMySQLConnection
    assert all(stands_for(connection, each) for each in (kind, MySQLConnectionAbstract, AwsWrapperConnection))
    assert connection.__class__.__name__ == kind.__name__
    assert not hasattr(connection, "pipeline")  # psycopg's
    assert connection.user == "app"
    connection.get_warnings = True
    assert connection.target_connection.get_warnings


def test_leaving_the_block_closes_and_does_no_more(connect: Connect, table: str) -> None:
    with connect(autocommit=False) as connection:
        connection.cursor().execute(f"INSERT INTO {table} VALUES (1)")
    assert connection.is_closed
    assert one(connect(), f"SELECT count(*) FROM {table}") == 0


@pytest.mark.parametrize("close", ["close", "disconnect", "shutdown", "cmd_quit"])
def test_closed_is_closed(connect: Connect, use_pure: bool, close: str) -> None:
    connection = connect()
    getattr(connection, close)()
    assert connection.is_closed
    with pytest.raises(mysql.connector.Error) as caught:
        connection.cursor()
    assert not stands_for(caught.value, errors.FailoverError)


def test_cursors_are_the_drivers(connect: Connect) -> None:
    connection = connect()
    kinds = [(), ("buffered",), ("dictionary",), ("raw",), ("prepared",), ("buffered", "dictionary"), ("buffered", "raw")]
    for how in (dict.fromkeys(kind, True) for kind in kinds):
        cursor = connection.cursor(**how)
        driver_class = type(connection.target_connection.cursor(**how))
        assert isinstance(cursor, driver_class)
        assert isinstance(cursor, MySQLCursorAbstract)
        assert isinstance(cursor, AwsWrapperCursor)
        assert cursor.connection is connection
        assert ("fetchone" in vars(type(cursor))) is not how.get("buffered", False)
        for name in ("fetchone", "fetchmany", "fetchall"):
            if how.get("buffered"):
                assert getattr(type(cursor), name) is getattr(driver_class, name)


def test_rows_come_as_the_cursor_promises(connect: Connect) -> None:
    connection = connect()
    query = "SELECT 1 AS a UNION SELECT 2 ORDER BY 1"
    expected: list[tuple[dict[str, bool], list[Any]]] = [
        ({}, [(1,), (2,)]),
        ({"buffered": True}, [(1,), (2,)]),
        ({"dictionary": True}, [{"a": 1}, {"a": 2}]),
        ({"prepared": True}, [(1,), (2,)]),
        ({"raw": True}, [(bytearray(b"1"),), (bytearray(b"2"),)]),
    ]
    for how, rows in expected:
        cursor = connection.cursor(**how)
        cursor.execute(query)
        assert list(cursor) == rows
        cursor.execute(query)
        assert [cursor.fetchone(), cursor.fetchone(), cursor.fetchone()] == [*rows, None]
        cursor.execute(query)
        assert next(cursor) == rows[0]
        assert cursor.fetchall() == rows[1:]


def test_unread_rows_are_in_the_way_as_with_the_driver(connect: Connect) -> None:
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("SELECT 1 UNION SELECT 2")
    with pytest.raises(mysql.connector.InternalError, match="Unread result found"):
        connection.commit()
    cursor.fetchall()
    connection.commit()
    relaxed = connect(consume_results=True)
    relaxed.cursor().execute("SELECT 1 UNION SELECT 2")
    assert one(relaxed, "SELECT 3") == 3


def test_several_results(connect: Connect) -> None:
    cursor = connect().cursor()
    cursor.execute("SELECT 1; SELECT 2")
    assert cursor.fetchall() == [(1,)]
    assert cursor.nextset()
    assert cursor.fetchall() == [(2,)]
    assert not cursor.nextset()


def test_warnings_and_reset_session(connect: Connect) -> None:
    connection = connect(get_warnings=True)
    cursor = connection.cursor()
    cursor.execute("SELECT 1 / 0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cursor.fetchall()
    assert [warning[1] for warning in cursor.warnings] == [1365]
    cursor.execute("SET @x = 7")
    connection.reset_session(user_variables={"y": 8})
    assert one(connection, "SELECT @x") is None
    assert one(connection, "SELECT @y") == 8


# -- from outside --------------------------------------------------------------------------------------------------------------


def test_a_blocked_call_ends_when_the_connection_is_shut_from_outside(connect: Connect) -> None:
    connection = connect(plugins="host_monitoring_v2")
    handle = connection.plugin_service.physical(connection.target_connection).handle
    cursor = connection.cursor()
    threading.Timer(0.2, handle.shut_down).start()
    started = time.monotonic()
    with pytest.raises(mysql.connector.Error) as caught:
        cursor.execute("SELECT SLEEP(60)")
        cursor.fetchall()
    assert time.monotonic() - started < 30
    assert connection.plugin_service.is_network_exception(caught.value)
    assert connection.is_closed


def test_the_socket_is_the_sessions_own(aurora_mysql: LocalAurora, connect: Connect) -> None:
    """The server knows from which port the session came. It is asked without the lab's layer in between."""
    connection = connect()
    direct = aurora_mysql.admin_parameters(aurora_mysql.writer.id)
    session = AwsWrapperConnection.connect(
        mysql.connector.connect, **{**direct, "use_pure": isinstance(connection, MySQLConnection), "plugins": ""}
    )
    client = one(session, "SELECT host FROM information_schema.processlist WHERE id = CONNECTION_ID()")
    with socket.socket(fileno=os.dup(number_of(session))) as sock:
        assert client.rpartition(":")[2] == str(sock.getsockname()[1])
    session.close()


def test_keepalive_is_on(connect: Connect) -> None:
    with socket.socket(fileno=os.dup(number_of(connect(tcp_keepalive_time=7)))) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
    with socket.socket(fileno=os.dup(number_of(connect(tcp_keepalive=False)))) as sock:
        assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_descriptor_that_belongs_to_something_else_now_is_left_alone(connect: Connect) -> None:
    """The driver closes its descriptor inside a failing call; the next socket of the process has its number."""
    connection = connect(plugins="host_monitoring_v2")
    target = connection.target_connection
    handle = connection.plugin_service.physical(target).handle
    number = number_of(connection)
    cursor = connection.cursor()
    handle.shut_down()
    with pytest.raises(mysql.connector.Error):
        cursor.execute("SELECT 1")
    # As the driver would have left it, if it has not.
    left, right = socket.socketpair()
    os.dup2(left.fileno(), number)
    left.detach()
    assert mysql_guard.number_of(target) is None
    handle.shut_down()
    mysql_guard.disown(target)
    right.sendall(b"x")
    with socket.socket(fileno=number) as stranger:
        stranger.settimeout(10)
        assert stranger.recv(1) == b"x"
    right.close()


def test_a_socket_that_was_there_before_is_never_believed(raw: Connect, use_pure: bool) -> None:
    if use_pure:
        pytest.skip("the pure Python implementation has a socket object")
    connection = raw()
    assert mysql_socket.find(connection, {}) is not None
    assert mysql_socket.find(connection, mysql_socket.open_sockets()) is None
    connection._port += 1
    assert mysql_socket.find(connection, {}) is None


def test_a_childs_end_is_not_its_parents(connect: Connect) -> None:
    connection = connect()
    before = one(connection, "SELECT CONNECTION_ID()")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            own = one(connection, "SELECT CONNECTION_ID()")
            connection.close()
            status = 0 if own != before else 2
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert one(connection, "SELECT CONNECTION_ID()") == before


def test_a_child_that_drops_everything_is_no_trouble_either(connect: Connect) -> None:
    """What runs at the end of the driver's objects reaches no server."""
    connection = connect()
    before = one(connection, "SELECT CONNECTION_ID()")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            connection.target_connection.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert one(connection, "SELECT CONNECTION_ID()") == before


def test_a_server_that_hangs_is_given_up_after_socket_timeout(aurora_mysql: LocalAurora, connect: Connect) -> None:
    connection = connect(socket_timeout=1, plugins="host_monitoring_v2")
    cursor = connection.cursor()
    aurora_mysql.hang(aurora_mysql.writer.id)
    with pytest.raises(mysql.connector.Error) as caught:
        cursor.execute("SELECT 1")
    aurora_mysql.resume(aurora_mysql.writer.id)
    assert connection.plugin_service.is_network_exception(caught.value)
    # The late answer would be that of the next query.
    assert connection.is_closed


def test_queries_of_the_wrappers_own_have_a_limit(aurora_mysql: LocalAurora, connect: Connect) -> None:
    connection = connect(auxiliary_query_timeout_sec=0.3)
    aurora_mysql.hang(aurora_mysql.writer.id)
    with pytest.raises(errors.QueryTimeoutError):
        connection.plugin_service.ask_role(connection.target_connection)
    aurora_mysql.resume(aurora_mysql.writer.id)


def test_sessions_end_with_the_connection(aurora_mysql: LocalAurora, connect: Connect, raw: Connect) -> None:
    connection = connect()
    session = connection.connection_id
    witness = raw(connect_timeout=5)
    connection.close()
    query = f"SELECT count(*) FROM information_schema.processlist WHERE id = {session}"
    eventually(lambda: one(witness, query) == 0, "the session to end")
