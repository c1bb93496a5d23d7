"""Each fault by its effect on real sessions, and that it can be mended."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from wrapper.testing import LabError, LocalAurora

from .helpers import eventually, login, one, state_of


def test_kill_resets_sessions_and_refuses_connects(aurora: LocalAurora) -> None:
    reader = aurora.readers[0]
    with login(aurora, reader.id) as connection:
        aurora.kill(reader.id)
        with pytest.raises(psycopg.OperationalError, match="server closed the connection unexpectedly") as caught:
            connection.execute("SELECT 1")
        assert caught.value.sqlstate is None  # nobody said goodbye
        with pytest.raises(psycopg.OperationalError, match="refused"):
            login(aurora, reader.id)
    assert state_of(aurora, reader.id)["state"] == "down"
    aurora.start(reader.id)
    with login(aurora, reader.id) as connection:
        assert one(connection, "SELECT pg_is_in_recovery()")


def test_stop_says_goodbye(aurora: LocalAurora) -> None:
    reader = aurora.readers[0]
    with login(aurora, reader.id) as connection:
        aurora.stop(reader.id)
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")
    aurora.start(reader.id)
    login(aurora, reader.id).close()


def test_a_killed_writer_can_be_started_again_in_place(aurora: LocalAurora) -> None:
    writer = aurora.writer
    aurora.kill(writer.id)
    aurora.start(writer.id)
    assert aurora.writer == writer
    with login(aurora, writer.id) as connection:
        assert one(connection, "SELECT pg_is_in_recovery()") is False


def test_hang_keeps_sockets_open_and_answers_nobody(aurora: LocalAurora) -> None:
    writer = aurora.writer
    with login(aurora, writer.id) as connection:
        aurora.hang(writer.id)
        answered = threading.Event()

        def ask() -> None:
            connection.execute("SELECT 1")
            answered.set()

        thread = threading.Thread(target=ask)
        thread.start()
        with pytest.raises(psycopg.OperationalError, match="timeout"):  # the kernel accepted, so it is not refused
            psycopg.connect(aurora.dsn(writer.id, by_address=True, connect_timeout=2))
        assert not answered.is_set()
        assert state_of(aurora, writer.id)["state"] == "hung"
        with pytest.raises(LabError, match="hung: resume it first"):
            aurora.drop_sessions(writer.id)
        aurora.resume(writer.id)
        assert answered.wait(20), "the query was not answered after resume"
        thread.join()


def test_hang_of_the_postmaster_spares_sessions(aurora: LocalAurora) -> None:
    reader = aurora.readers[0]
    with login(aurora, reader.id) as connection:
        aurora.hang(reader.id, postmaster_only=True)
        assert one(connection, "SELECT 1") == 1
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(aurora.dsn(reader.id, by_address=True, connect_timeout=2))
        aurora.resume(reader.id)
    login(aurora, reader.id).close()


def test_refused_logins_spare_sessions_and_the_superuser(aurora: LocalAurora) -> None:
    reader, other = aurora.readers
    with login(aurora, reader.id) as connection:
        aurora.refuse_logins(reader.id)
        with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects"):
            login(aurora, reader.id)
        assert one(connection, "SELECT 1") == 1
        login(aurora, other.id).close()
        psycopg.connect(aurora.admin_dsn(reader.id)).close()
        aurora.refuse_logins(reader.id, False)
    login(aurora, reader.id).close()


def test_a_full_server_stays_full_when_sessions_end(aurora: LocalAurora) -> None:
    reader, other = aurora.readers
    early = [login(aurora, reader.id) for _ in range(5)]
    aurora.too_many_connections(reader.id)
    assert one(early[0], "SELECT 1") == 1
    eventually(lambda: len(aurora.sessions(reader.id)) == 5, "what fills the server not to look like sessions")
    for connection in early:
        connection.close()
    eventually(lambda: not aurora.sessions(reader.id), "the sessions to end")
    with pytest.raises(psycopg.OperationalError, match="connection slots"):
        login(aurora, reader.id)
    login(aurora, other.id).close()
    aurora.too_many_connections(reader.id, False)
    login(aurora, reader.id).close()


def test_two_faults_at_once_are_mended_by_reset(aurora: LocalAurora) -> None:
    reader, other = aurora.readers
    aurora.refuse_logins(reader.id)
    aurora.too_many_connections(reader.id)
    aurora.hang(other.id)
    aurora.kill(aurora.writer.id)
    aurora.reset()
    assert {entry["state"] for entry in aurora.status()["instances"]} == {"running"}
    for instance in aurora.instances:
        login(aurora, instance.id).close()
    with psycopg.connect(aurora.admin_dsn(aurora.writer.id)) as admin:
        assert one(admin, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 2


def test_dropped_sessions_are_gone_on_return(aurora: LocalAurora) -> None:
    with login(aurora, application_name="dropped") as connection:
        assert [session["application_name"] for session in aurora.sessions(aurora.writer.id)].count("dropped") == 1
        assert aurora.drop_sessions(aurora.writer.id) >= 1
        assert not aurora.sessions(aurora.writer.id)
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")


def test_monitoring_sessions_are_counted_by_name(aurora: LocalAurora) -> None:
    with login(aurora, aurora.readers[0].id, application_name="a monitor"):
        counts = aurora.monitoring_sessions("a monitor")
    assert counts == {instance.id: int(instance == aurora.readers[0]) for instance in aurora.instances}


def test_a_reader_is_removed_and_appears_again(aurora: LocalAurora) -> None:
    kept, gone = aurora.readers
    listed = "SELECT count(*) FROM aurora_replica_status()"
    with login(aurora) as writer, login(aurora, gone.id) as reader:
        aurora.remove(gone.id)
        with pytest.raises(psycopg.errors.AdminShutdown):
            reader.execute("SELECT 1")
        assert one(writer, listed) == 2
        assert gone.endpoint not in Path(aurora.hosts_file).read_text()
        assert state_of(aurora, gone.id)["state"] == "removed"
        for command in (aurora.start, aurora.rejoin, aurora.remove):
            with pytest.raises(LabError, match=f"{gone.id} was removed: add it first"):
                command(gone.id)
        with pytest.raises(LabError, match="is the writer"):
            aurora.remove("writer")
        with pytest.raises(LabError, match=f"{kept.id} is part of the cluster already"):
            aurora.add(kept.id)
        # Nobody makes it the writer, or starts it by the way.
        aurora.failover(kept.id)
        aurora.failover()
    with login(aurora) as writer:
        assert one(writer, listed) == 2
        aurora.add(gone.id)
        assert one(writer, listed) == 3
    assert gone.endpoint in Path(aurora.hosts_file).read_text()
    with login(aurora, gone.id) as reader:
        assert one(reader, "SELECT pg_is_in_recovery()")
