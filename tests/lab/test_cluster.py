"""What a healthy lab looks like to a client: an Aurora cluster, or plain PostgreSQL, with names of its own."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import psycopg
import pytest

from wrapper.resolver import parse_hosts
from wrapper.testing import LabError, LocalAurora

from .helpers import eventually, login, one, writer_by

EXTENSIONS = "SELECT setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'rds.extensions'"
# As the reference wrapper asks it (spec of Aurora PostgreSQL).
TOPOLOGY = """\
SELECT SERVER_ID, CASE WHEN SESSION_ID OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID' THEN TRUE ELSE FALSE END,
       CPU, COALESCE(REPLICA_LAG_IN_MSEC, 0), LAST_UPDATE_TIMESTAMP
  FROM pg_catalog.aurora_replica_status()
 WHERE EXTRACT(EPOCH FROM(pg_catalog.NOW() OPERATOR(pg_catalog.-) LAST_UPDATE_TIMESTAMP)) OPERATOR(pg_catalog.<=) 300
    OR SESSION_ID OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID' OR LAST_UPDATE_TIMESTAMP IS NULL"""


def test_every_instance_is_recognised_as_aurora(aurora: LocalAurora) -> None:
    for instance in aurora.instances:
        with login(aurora, instance.id) as connection:
            assert "aurora_stat_utils" in one(connection, EXTENSIONS)
            assert one(connection, "SELECT pg_catalog.aurora_db_instance_identifier()") == instance.id
            assert one(connection, "SELECT pg_catalog.pg_is_in_recovery()") is (instance != aurora.writer)
            rows = connection.execute(TOPOLOGY).fetchall()
            assert {row[0] for row in rows} == {other.id for other in aurora.instances}
            assert [row[0] for row in rows if row[1]] == [aurora.writer.id]
            for row in rows:
                assert abs((datetime.now(timezone.utc) - row[4]).total_seconds()) < 60


def test_databases_made_later_are_recognised_too(aurora: LocalAurora) -> None:
    with psycopg.connect(aurora.admin_dsn(aurora.writer.id), autocommit=True) as admin:
        admin.execute("CREATE DATABASE made_later")
        try:
            with login(aurora, dbname="made_later") as connection:
                assert writer_by(connection) == aurora.writer.id
        finally:
            admin.execute("DROP DATABASE made_later")


def test_rows_are_refreshed_while_an_instance_lives_and_age_when_it_hangs(aurora: LocalAurora) -> None:
    reader, other = aurora.readers
    query = f"SELECT last_update_timestamp FROM aurora_replica_status() WHERE server_id = '{reader.id}'"
    with login(aurora, other.id) as connection:
        before = one(connection, query)
        last = eventually(lambda: (now := one(connection, query)) > before and now, "the reader's row to be refreshed")
        aurora.hang(reader.id)
        hung_at = one(connection, query)
        assert hung_at >= last
        writers = f"SELECT last_update_timestamp FROM aurora_replica_status() WHERE server_id = '{aurora.writer.id}'"
        now = one(connection, writers)
        eventually(lambda: one(connection, writers) > now, "the writer's row to be refreshed")
        assert one(connection, query) == hung_at


def test_applications_can_neither_choose_the_file_nor_log_in_as_superuser(aurora: LocalAurora) -> None:
    with login(aurora) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT pg_read_file('/etc/hostname')")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(aurora.dsn(by_address=True, user="postgres", password="guess")).close()


def test_readers_follow_the_writer(aurora: LocalAurora) -> None:
    with login(aurora) as connection:
        connection.execute("CREATE TABLE followed AS SELECT 7 AS x")
        try:
            for reader in aurora.readers:
                with login(aurora, reader.id) as session:
                    eventually(lambda: one(session, "SELECT to_regclass('followed') IS NOT NULL"), f"{reader.id} to have the table")
                    assert one(session, "SELECT x FROM followed") == 7
        finally:
            connection.execute("DROP TABLE followed")


def test_names_lead_to_addresses(aurora: LocalAurora) -> None:
    names = parse_hosts(Path(aurora.hosts_file).read_text())
    for instance in aurora.instances:
        assert instance.endpoint == aurora.instance_host_pattern.replace("?", instance.id)
        assert names[instance.endpoint] == instance.address
        assert instance.port == aurora.port
    assert names[aurora.writer_endpoint] == aurora.writer.address
    assert names[aurora.reader_endpoint] in {reader.address for reader in aurora.readers}


def test_the_reader_endpoint_leads_to_the_writer_when_no_reader_is_left(aurora: LocalAurora) -> None:
    for reader in aurora.readers:
        aurora.kill(reader.id)

    def leads_to() -> str:
        return parse_hosts(Path(aurora.hosts_file).read_text())[aurora.reader_endpoint]

    eventually(lambda: leads_to() == aurora.writer.address, "the reader endpoint to lead to the writer")


def test_connection_text_quotes_what_is_added(aurora: LocalAurora) -> None:
    with psycopg.connect(aurora.dsn(by_address=True, application_name="it's a \\ name", options="-c geqo=off")) as connection:
        assert one(connection, "SHOW application_name") == "it's a \\ name"
        assert one(connection, "SHOW geqo") == "off"


def test_plain_postgresql_with_addresses_for_names() -> None:
    with LocalAurora(instances=2, flavor="pg", address_names=True) as lab:
        writer, reader = lab.instances
        assert (writer.id, reader.id) == ("1", "2")
        assert lab.instance_host_pattern.replace("?", reader.id) == reader.address == reader.endpoint
        with psycopg.connect(lab.dsn()) as connection:
            assert one(connection, "SELECT inet_server_addr()::text").removesuffix("/32") == writer.address
            assert connection.execute(EXTENSIONS).fetchall() == []
            assert one(connection, "SELECT to_regproc('aurora_replica_status') IS NULL")


def test_labs_run_side_by_side(aurora: LocalAurora) -> None:
    with LocalAurora(instances=1) as other:
        with login(other) as connection:
            assert writer_by(connection) == "instance-1"
        assert other.writer.address not in {instance.address for instance in aurora.instances}
        assert other.instance_host_pattern != aurora.instance_host_pattern


def test_bad_arguments_are_named(aurora: LocalAurora, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="instances=0"):
        LocalAurora(instances=0)
    with pytest.raises(LabError, match=r"flavor='oracle'.*aurora-pg"):
        LocalAurora(flavor="oracle")
    with pytest.raises(LabError, match="too long"):
        LocalAurora(directory=tmp_path / ("x" * 100))
    (tmp_path / "mine").mkdir()
    with pytest.raises(LabError, match="exists"):
        LocalAurora(directory=tmp_path / "mine")
    with pytest.raises(LabError, match=r"nobody.*instance-1"):
        aurora.kill("nobody")


def test_a_reset_of_a_whole_cluster_changes_nothing(aurora: LocalAurora) -> None:
    with login(aurora) as connection, login(aurora, aurora.readers[0].id) as other:
        sessions = one(connection, "SELECT pg_backend_pid()"), one(other, "SELECT pg_backend_pid()")
        aurora.reset()
        assert (one(connection, "SELECT pg_backend_pid()"), one(other, "SELECT pg_backend_pid()")) == sessions
