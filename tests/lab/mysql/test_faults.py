"""Each fault by its effect on real MySQL sessions, and that it can be mended."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, closing

import mysql.connector
import pytest

from wrapper.testing import LabError, LocalAurora

from ..helpers import eventually, state_of
from .helpers import WRITER, ask, both_clients, login, one

GONE = (2006, 2013, 2055)
REFUSED = 2003


def failure(lab: LocalAurora, instance: str, **parameters: object) -> int:
    """Return the error number of a login that must fail."""
    with pytest.raises(mysql.connector.Error) as caught, login(lab, instance, **parameters):
        pass
    assert caught.value.errno is not None
    return caught.value.errno


@both_clients
def test_kill_resets_sessions_and_refuses_connects(aurora_mysql: LocalAurora, use_pure: bool) -> None:
    reader = aurora_mysql.readers[0]
    with login(aurora_mysql, reader.id, use_pure=use_pure) as connection, closing(connection.cursor()) as cursor:
        aurora_mysql.kill(reader.id)
        with pytest.raises(mysql.connector.Error) as caught:
            cursor.execute("SELECT 1")
        assert caught.value.errno in GONE
    assert failure(aurora_mysql, reader.id, use_pure=use_pure) == REFUSED
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((reader.address, reader.port), timeout=5)
    assert state_of(aurora_mysql, reader.id)["state"] == "down"
    aurora_mysql.start(reader.id)
    with login(aurora_mysql, reader.id) as connection:
        assert one(connection, "SELECT @@innodb_read_only") == 1


def test_kill_interrupts_a_query_under_way(aurora_mysql: LocalAurora) -> None:
    reader = aurora_mysql.readers[0]
    errors: list[int | None] = []
    with login(aurora_mysql, reader.id) as connection:

        def wait() -> None:
            try:
                ask(connection, "SELECT sleep(60)")
            except mysql.connector.Error as error:
                errors.append(error.errno)

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: any("sleep" in entry["query"] for entry in aurora_mysql.sessions(reader.id)), "the query to run")
        aurora_mysql.kill(reader.id)
        thread.join(20)
        assert not thread.is_alive(), "the query still waits"
    assert errors
    assert errors[0] in GONE


def test_stop_ends_sessions_and_refuses_connects(aurora_mysql: LocalAurora) -> None:
    reader = aurora_mysql.readers[0]
    with login(aurora_mysql, reader.id) as connection:
        aurora_mysql.stop(reader.id)
        with pytest.raises(mysql.connector.Error):
            ask(connection, "SELECT 1")
    assert failure(aurora_mysql, reader.id) == REFUSED
    aurora_mysql.start(reader.id)
    with login(aurora_mysql, reader.id) as connection:
        assert one(connection, WRITER) == aurora_mysql.writer.id


def test_a_killed_writer_can_be_started_again_in_place(aurora_mysql: LocalAurora) -> None:
    writer, reader = aurora_mysql.writer, aurora_mysql.readers[0]
    with login(aurora_mysql) as connection:
        ask(connection, "CREATE OR REPLACE TABLE in_place AS SELECT 1 AS x")
    aurora_mysql.kill(writer.id)
    aurora_mysql.start(writer.id)
    assert aurora_mysql.writer == writer
    with login(aurora_mysql, writer.id) as connection:
        assert one(connection, "SELECT @@innodb_read_only") == 0
        ask(connection, "CREATE OR REPLACE TABLE in_place_again AS SELECT x FROM in_place")
    with login(aurora_mysql, reader.id) as connection:
        eventually(lambda: ask(connection, "SHOW TABLES LIKE 'in_place_again'"), f"{reader.id} to follow again")
        assert one(connection, "SELECT x FROM in_place_again") == 1


def test_hang_keeps_sockets_open_and_answers_nobody(aurora_mysql: LocalAurora) -> None:
    writer = aurora_mysql.writer
    with login(aurora_mysql, writer.id) as connection:
        aurora_mysql.hang(writer.id)
        answered = threading.Event()

        def wait() -> None:
            ask(connection, "SELECT 1")
            answered.set()

        thread = threading.Thread(target=wait)
        thread.start()
        socket.create_connection((writer.address, writer.port), timeout=5).close()  # the kernel accepts
        assert failure(aurora_mysql, writer.id, connection_timeout=1) not in (REFUSED, None)
        assert not answered.is_set()
        assert state_of(aurora_mysql, writer.id)["state"] == "hung"
        with pytest.raises(LabError, match="hung: resume it first"):
            aurora_mysql.drop_sessions(writer.id)
        aurora_mysql.resume(writer.id)
        assert answered.wait(20), "the query was not answered after resume"
        thread.join()


def test_half_a_hang_is_not_to_be_had(aurora_mysql: LocalAurora) -> None:
    reader = aurora_mysql.readers[0]
    with pytest.raises(LabError, match="one process"):
        aurora_mysql.hang(reader.id, postmaster_only=True)
    assert state_of(aurora_mysql, reader.id)["state"] == "running"


@both_clients
def test_refused_logins_spare_sessions_and_other_instances(aurora_mysql: LocalAurora, use_pure: bool) -> None:
    reader, other = aurora_mysql.readers
    with login(aurora_mysql, reader.id) as connection:
        aurora_mysql.refuse_logins(reader.id)
        assert failure(aurora_mysql, reader.id, use_pure=use_pure) == 1045
        assert one(connection, "SELECT 1") == 1
        with login(aurora_mysql, other.id), login(aurora_mysql):
            pass
        aurora_mysql.kill(reader.id)
        aurora_mysql.start(reader.id)
        assert failure(aurora_mysql, reader.id, use_pure=use_pure) == 1045
        aurora_mysql.refuse_logins(reader.id, False)
    with login(aurora_mysql, reader.id):
        pass


@both_clients
def test_a_full_server_stays_full_when_sessions_end(aurora_mysql: LocalAurora, use_pure: bool) -> None:
    reader, other = aurora_mysql.readers
    with ExitStack() as sessions:
        first, *_ = [sessions.enter_context(login(aurora_mysql, reader.id)) for _ in range(5)]
        aurora_mysql.too_many_connections(reader.id)
        assert one(first, "SELECT 1") == 1
        eventually(lambda: len(aurora_mysql.sessions(reader.id)) == 5, "what fills the server not to look like sessions")
    eventually(lambda: not aurora_mysql.sessions(reader.id), "the sessions to end")
    assert failure(aurora_mysql, reader.id, use_pure=use_pure) == 1040
    with login(aurora_mysql, other.id):
        pass
    aurora_mysql.too_many_connections(reader.id, False)
    with login(aurora_mysql, reader.id):
        pass


def test_many_faults_at_once_are_mended_by_reset(aurora_mysql: LocalAurora) -> None:
    reader, other = aurora_mysql.readers
    aurora_mysql.refuse_logins(reader.id)
    aurora_mysql.too_many_connections(reader.id)
    aurora_mysql.hang(other.id)
    aurora_mysql.refuse_logins("writer")
    aurora_mysql.kill("writer")
    aurora_mysql.reset()
    assert {entry["state"] for entry in aurora_mysql.status()["instances"]} == {"running"}
    with login(aurora_mysql) as connection:
        ask(connection, "CREATE OR REPLACE TABLE mended AS SELECT 1 AS x")
    for instance in aurora_mysql.instances:
        with login(aurora_mysql, instance.id) as connection:
            eventually(lambda: ask(connection, "SHOW TABLES LIKE 'mended'"), f"{instance.id} to have the table")


def test_a_reset_of_a_whole_cluster_changes_nothing(aurora_mysql: LocalAurora) -> None:
    with login(aurora_mysql) as connection, login(aurora_mysql, aurora_mysql.readers[0].id) as other:
        sessions = one(connection, "SELECT connection_id()"), one(other, "SELECT connection_id()")
        aurora_mysql.reset()
        assert (one(connection, "SELECT connection_id()"), one(other, "SELECT connection_id()")) == sessions


@both_clients
def test_dropped_sessions_are_gone_on_return(aurora_mysql: LocalAurora, use_pure: bool) -> None:
    with login(aurora_mysql, use_pure=use_pure, conn_attrs={"program_name": "dropped"}) as connection:
        assert [session["application_name"] for session in aurora_mysql.sessions(aurora_mysql.writer.id)].count("dropped") == 1
        assert aurora_mysql.drop_sessions(aurora_mysql.writer.id) >= 1
        assert not aurora_mysql.sessions(aurora_mysql.writer.id)
        with pytest.raises(mysql.connector.Error):
            ask(connection, "SELECT 1")


def test_monitoring_sessions_are_counted_by_name(aurora_mysql: LocalAurora) -> None:
    reader = aurora_mysql.readers[0]
    with login(aurora_mysql, reader.id, conn_attrs={"program_name": "a monitor"}):
        counts = aurora_mysql.monitoring_sessions("a monitor")
    assert counts == {instance.id: int(instance == reader) for instance in aurora_mysql.instances}
