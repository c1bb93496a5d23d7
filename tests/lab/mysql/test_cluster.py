"""What a healthy MySQL lab looks like to a client: an Aurora cluster, or plain MySQL."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime, timezone

import mysql.connector
import pytest
from mysql.connector.connection import MySQLConnection
from mysql.connector.connection_cext import CMySQLConnection

from wrapper.testing import LabError, LocalAurora

from ..helpers import eventually
from .helpers import TOPOLOGY, WRITER, ask, both_clients, connect, login, one


@both_clients
@pytest.mark.parametrize("how", [{}, {"prepared": True}], ids=["text", "prepared"])
def test_every_instance_is_recognised_as_aurora(aurora_mysql: LocalAurora, use_pure: bool, how: dict[str, bool]) -> None:
    for instance in aurora_mysql.instances:
        with login(aurora_mysql, instance.id, use_pure=use_pure) as connection:
            assert isinstance(connection, MySQLConnection if use_pure else CMySQLConnection)
            is_reader = int(instance != aurora_mysql.writer)
            assert ask(connection, "SHOW VARIABLES LIKE 'aurora_version'", **how) == [("aurora_version", "3.08.0")]
            assert ask(connection, "SELECT @@aurora_server_id, @@aurora_server_id", **how) == [(instance.id, instance.id)]
            assert ask(connection, "SELECT @@innodb_read_only", **how) == [(is_reader,)]
            assert ask(connection, f"{WRITER} AND SERVER_ID = @@aurora_server_id", **how) == [(instance.id,)] * (1 - is_reader)
            rows = ask(connection, TOPOLOGY, **how)
            assert {row[0] for row in rows} == {other.id for other in aurora_mysql.instances}
            assert [row[0] for row in rows if row[1]] == [aurora_mysql.writer.id]
            (now,) = ask(connection, "SELECT now()")
            assert all(abs((now[0] - row[4]).total_seconds()) < 60 for row in rows)


@both_clients
def test_prepared_statements_see_the_cluster_as_it_is_when_they_run(aurora_mysql: LocalAurora, use_pure: bool) -> None:
    reader, other = aurora_mysql.readers
    with login(aurora_mysql, other.id, use_pure=use_pure) as connection, closing(connection.cursor(prepared=True)) as cursor:
        cursor.execute(WRITER)
        assert cursor.fetchall() == [(aurora_mysql.writer.id,)]
        aurora_mysql.failover(reader.id)
        cursor.execute(WRITER)
        assert cursor.fetchall() == [(reader.id,)]


def test_columns_have_the_names_that_were_asked_for(aurora_mysql: LocalAurora) -> None:
    with login(aurora_mysql) as connection, closing(connection.cursor(dictionary=True)) as cursor:
        cursor.execute("SELECT @@aurora_server_id")
        assert cursor.fetchall() == [{"@@aurora_server_id": aurora_mysql.writer.id}]
        cursor.execute("SELECT * FROM information_schema.replica_host_status LIMIT 1")
        assert [column[0] for column in cursor.description or ()] == [
            "server_id", "session_id", "cpu", "replica_lag_in_milliseconds", "last_update_timestamp",
        ]  # fmt: skip
        cursor.fetchall()


def test_rows_are_refreshed_while_an_instance_lives_and_age_when_it_hangs(aurora_mysql: LocalAurora) -> None:
    reader, other = aurora_mysql.readers

    def refreshed(identity: str) -> datetime:
        query = f"SELECT last_update_timestamp FROM information_schema.replica_host_status WHERE server_id = '{identity}'"
        value = one(connection, query)
        assert isinstance(value, datetime)
        return value

    with login(aurora_mysql, other.id, time_zone="+00:00") as connection:
        before = refreshed(reader.id)
        last = eventually(lambda: (now := refreshed(reader.id)) > before and now, "the reader's row to be refreshed")
        assert abs((datetime.now(timezone.utc).replace(tzinfo=None) - last).total_seconds()) < 60
        aurora_mysql.hang(reader.id)
        hung_at = refreshed(reader.id)
        now = refreshed(aurora_mysql.writer.id)
        eventually(lambda: refreshed(aurora_mysql.writer.id) > now, "the writer's row to be refreshed")
        assert refreshed(reader.id) == hung_at


@both_clients
def test_user_sql_passes_untouched_in_both_directions(aurora_mysql: LocalAurora, use_pure: bool) -> None:
    text = "@@aurora_server_id from information_schema.replica_host_status ' \" \\ \N{GRINNING FACE}"
    blob = bytes(range(256)) * 80_000  # more than one packet of the protocol
    with login(aurora_mysql, use_pure=use_pure) as connection:
        for how in ({}, {"prepared": True}):
            ask(connection, "CREATE OR REPLACE TABLE passed (t TEXT, b LONGBLOB)")
            ask(connection, "INSERT INTO passed VALUES (%s, %s)", text, blob[:100_000] if how else blob[: 15 << 20], **how)
            ((stored, size, check),) = ask(connection, "SELECT t, length(b), md5(b) FROM passed", **how)
            ((expected,),) = ask(connection, "SELECT md5(%s)", blob[:100_000] if how else blob[: 15 << 20])
            assert (stored, check) == (text, expected)
            assert size == (100_000 if how else 15 << 20)
        assert one(connection, "SELECT sum(seq) FROM seq_1_to_100000") == 5000050000
        assert len(ask(connection, "SELECT seq FROM seq_1_to_100000")) == 100_000
        ask(connection, "DROP TABLE passed")


def test_a_client_that_insists_on_compression_is_refused(aurora_mysql: LocalAurora) -> None:
    with pytest.raises(mysql.connector.Error, match="compression") as caught:
        connect(**aurora_mysql.parameters(by_address=True, compress=True, read_timeout=10))
    assert caught.value.errno == 1235
    with login(aurora_mysql, compress=True, use_pure=False) as connection:  # it takes what is offered
        assert one(connection, "SELECT 1") == 1


def test_readers_follow_the_writer_and_refuse_writes(aurora_mysql: LocalAurora) -> None:
    with login(aurora_mysql) as connection:
        ask(connection, "CREATE TABLE followed AS SELECT 7 AS x")
        try:
            for reader in aurora_mysql.readers:
                with login(aurora_mysql, reader.id) as session:
                    eventually(lambda: ask(session, "SHOW TABLES LIKE 'followed'"), f"{reader.id} to have the table")
                    assert one(session, "SELECT x FROM followed") == 7
                    with pytest.raises(mysql.connector.Error) as caught:
                        ask(session, "INSERT INTO followed VALUES (8)")
                    assert caught.value.errno == 1290
        finally:
            ask(connection, "DROP TABLE followed")


def test_applications_can_neither_lift_the_read_only_state_nor_read_files_nor_become_superuser(aurora_mysql: LocalAurora) -> None:
    with login(aurora_mysql, aurora_mysql.readers[0].id) as connection:
        for forbidden in ("SET GLOBAL read_only = 0", "SET sql_log_bin = 0", "DROP VIEW mysql.replica_host_status"):
            with pytest.raises(mysql.connector.Error) as caught:
                ask(connection, forbidden)
            assert caught.value.errno in (1142, 1227, 1290), forbidden
        assert one(connection, "SELECT load_file('/etc/hostname')") is None
    for user in ("root", "lab"):
        with pytest.raises(mysql.connector.Error) as caught:
            connect(**aurora_mysql.parameters(by_address=True, user=user, password="guess"))
        assert caught.value.errno == 1045


def test_the_server_itself_can_be_reached_past_the_layer(aurora_mysql: LocalAurora) -> None:
    for instance in aurora_mysql.instances:
        assert instance.direct_address != instance.address
        with closing(connect(**aurora_mysql.parameters(instance.id, direct=True))) as connection:
            assert one(connection, "SELECT @@report_host") == instance.id
            assert one(connection, "SELECT @@port") == aurora_mysql.port
            with pytest.raises(mysql.connector.Error, match="aurora_server_id"):
                ask(connection, "SELECT @@aurora_server_id")
    directs = [entry["direct"] for entry in aurora_mysql.status()["instances"]]
    assert directs == [f"{instance.direct_address}:{aurora_mysql.port}" for instance in aurora_mysql.instances]


def test_plain_mysql_with_addresses_for_names() -> None:
    with LocalAurora(instances=2, flavor="mysql", address_names=True) as lab:
        writer, reader = lab.instances
        assert (writer.id, reader.id) == ("1", "2")
        assert lab.instance_host_pattern.replace("?", reader.id) == reader.address == reader.endpoint == reader.direct_address
        with closing(connect(**lab.parameters())) as connection:
            assert one(connection, "SELECT @@report_host") == "1"
            assert ask(connection, "SHOW VARIABLES LIKE 'aurora_version'") == []
        lab.failover()
        with login(lab) as connection:
            assert one(connection, "SELECT @@report_host") == "2"


def test_labs_run_side_by_side(aurora_mysql: LocalAurora) -> None:
    with LocalAurora(instances=1, engine="mysql") as other:
        with login(other) as connection:
            assert one(connection, WRITER) == "instance-1"
        assert other.writer.address not in {instance.address for instance in aurora_mysql.instances}


def test_arguments_that_contradict_each_other_are_named() -> None:
    with pytest.raises(LabError, match=r"flavor='pg'.*engine='mysql'.*aurora-mysql, multi-az-mysql, rds-mysql, mysql"):
        LocalAurora(engine="mysql", flavor="pg")
    with pytest.raises(LabError, match=r"engine='oracle'.*postgresql or mysql"):
        LocalAurora(engine="oracle")
