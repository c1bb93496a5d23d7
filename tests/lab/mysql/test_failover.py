"""Moving the writer of a MySQL lab: what the old one believes, and that no acknowledged commit is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import mysql.connector
import pytest

from wrapper.resolver import parse_hosts
from wrapper.testing import LabError, LocalAurora

from ..helpers import eventually, state_of
from .helpers import WRITER, ask, login, one

IS_READER = "SELECT @@innodb_read_only"


def test_failover_of_a_running_writer(aurora_mysql: LocalAurora) -> None:
    old, target = aurora_mysql.writer, aurora_mysql.readers[1]
    with login(aurora_mysql, target.id) as on_target, login(aurora_mysql, old.id) as on_old:
        ask(on_old, "CREATE OR REPLACE TABLE kept AS SELECT 1 AS x")
        report = aurora_mysql.failover(target.id)
        assert (report.old_writer, report.new_writer) == (old.id, target.id)
        for connection in (on_old, on_target):  # Aurora restarts both
            with pytest.raises(mysql.connector.Error):
                ask(connection, "SELECT 1")
    for instance in aurora_mysql.instances:
        with login(aurora_mysql, instance.id) as connection:
            assert one(connection, WRITER) == target.id
            assert one(connection, IS_READER) == int(instance != target)
            eventually(lambda: ask(connection, "SHOW TABLES LIKE 'kept'"), f"{instance.id} to have the table")
    assert parse_hosts(Path(aurora_mysql.hosts_file).read_text())[aurora_mysql.writer_endpoint] == target.address


def test_sessions_of_the_promoted_instance_can_be_kept(aurora_mysql: LocalAurora) -> None:
    target = aurora_mysql.readers[0]
    with login(aurora_mysql, target.id) as connection:
        aurora_mysql.failover(target.id, drop_sessions=False)
        assert one(connection, IS_READER) == 0


def test_a_killed_writer_stays_down_without_rejoin(aurora_mysql: LocalAurora) -> None:
    old = aurora_mysql.writer.id
    aurora_mysql.kill(old)
    aurora_mysql.failover(rejoin=False)
    assert state_of(aurora_mysql, old)["state"] == "down"
    aurora_mysql.start(old)
    with login(aurora_mysql, old) as connection:
        assert one(connection, IS_READER) == 1
        assert one(connection, WRITER) == aurora_mysql.writer.id


@pytest.mark.parametrize("new_writer_has_moved_on", [False, True])
def test_what_only_the_old_writer_had_is_gone_when_it_rejoins(aurora_mysql: LocalAurora, new_writer_has_moved_on: bool) -> None:
    old = aurora_mysql.writer.id
    with login(aurora_mysql, old) as connection:
        ask(connection, "CREATE OR REPLACE TABLE replicated AS SELECT 1 AS x")
    for reader in aurora_mysql.readers:
        with login(aurora_mysql, reader.id) as connection:
            eventually(lambda: ask(connection, "SHOW TABLES LIKE 'replicated'"), f"{reader.id} to have the table")
        aurora_mysql.kill(reader.id)
    with login(aurora_mysql, old) as connection:
        ask(connection, "CREATE TABLE never_replicated (x INT)")
        ask(connection, "INSERT INTO replicated VALUES (2)")
    aurora_mysql.kill(old)
    for reader in aurora_mysql.readers:
        aurora_mysql.start(reader.id)
    aurora_mysql.failover(rejoin=not new_writer_has_moved_on)
    if new_writer_has_moved_on:
        with login(aurora_mysql) as connection:
            for number in range(3, 8):
                ask(connection, "INSERT INTO replicated VALUES (%s)", number)
        aurora_mysql.rejoin(old)
    with login(aurora_mysql, old) as connection:
        assert ask(connection, "SHOW TABLES LIKE 'never_replicated'") == []
        expected = [(1,), *((number,) for number in range(3, 8))] if new_writer_has_moved_on else [(1,)]
        assert ask(connection, "SELECT x FROM replicated ORDER BY x") == expected


def test_a_resumed_old_writer_honestly_claims_to_be_the_writer(aurora_mysql: LocalAurora) -> None:
    old = aurora_mysql.writer.id
    aurora_mysql.hang(old)
    new = aurora_mysql.failover().new_writer
    assert state_of(aurora_mysql, old)["state"] == "hung"
    aurora_mysql.resume(old)
    assert state_of(aurora_mysql, old)["stale"]
    newest = "SELECT last_update_timestamp FROM information_schema.replica_host_status WHERE session_id = 'MASTER_SESSION_ID'"
    with login(aurora_mysql, old) as stale, login(aurora_mysql, new) as proper:
        assert one(stale, IS_READER) == 0
        assert one(stale, WRITER) == old
        assert one(proper, WRITER) == new
        claimed = one(stale, newest)
        before = one(proper, newest)
        eventually(lambda: one(proper, newest) > before, "the new writer's row to be refreshed")
        assert one(stale, newest) == claimed < before, "the newest row must win"
    aurora_mysql.rejoin(old)
    with login(aurora_mysql, old) as connection:
        assert one(connection, IS_READER) == 1
        assert one(connection, WRITER) == new


def test_a_reader_that_hung_during_a_failover_follows_the_new_writer(aurora_mysql: LocalAurora) -> None:
    hung, target = aurora_mysql.readers
    aurora_mysql.hang(hung.id)
    aurora_mysql.failover(target.id)
    aurora_mysql.resume(hung.id)
    with login(aurora_mysql) as connection:
        ask(connection, "CREATE OR REPLACE TABLE heard AS SELECT 1 AS x")
    with login(aurora_mysql, hung.id) as connection:
        eventually(lambda: ask(connection, "SHOW TABLES LIKE 'heard'"), f"{hung.id} to have the table")
        assert one(connection, WRITER) == target.id


def test_a_promotion_can_be_scheduled(aurora_mysql: LocalAurora) -> None:
    old = aurora_mysql.writer.id
    began = time.monotonic()
    aurora_mysql.kill(old)
    aurora_mysql.promote_later(0.5)
    writer = aurora_mysql.status()["writer"]
    assert writer == old or time.monotonic() - began >= 0.5
    report = aurora_mysql.wait_for_promotion()
    assert report.old_writer == old
    assert aurora_mysql.writer.id == report.new_writer


def test_a_failover_that_cannot_be_is_refused_before_it_begins(aurora_mysql: LocalAurora) -> None:
    writer = aurora_mysql.writer
    with login(aurora_mysql, writer.id) as connection:
        for reader in aurora_mysql.readers:
            aurora_mysql.kill(reader.id)
        with pytest.raises(LabError, match="no reader"):
            aurora_mysql.failover()
        assert one(connection, "SELECT 1") == 1


class Inserter(threading.Thread):
    """Writes numbers through one session after the other and remembers which commits were acknowledged."""

    def __init__(self, lab: LocalAurora) -> None:
        super().__init__()
        self.lab = lab
        self.acknowledged: list[int] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            try:
                with login(self.lab) as connection:
                    while not self.stopping.is_set():
                        number += 1
                        ask(connection, "INSERT INTO numbers VALUES (%s)", number)
                        self.acknowledged.append(number)
            except mysql.connector.Error:
                continue  # what was in flight may be lost; what was acknowledged may not


@pytest.mark.slow
def test_synchronous_failovers_lose_no_acknowledged_commit() -> None:
    with LocalAurora(engine="mysql", synchronous=True) as lab:
        with login(lab) as connection:
            ask(connection, "CREATE TABLE numbers (n INT PRIMARY KEY)")
        inserter = Inserter(lab)
        inserter.start()
        try:
            for fault in (lab.kill, lab.hang, lambda _: None, lab.kill, lab.kill):
                seen = len(inserter.acknowledged)
                eventually(lambda: len(inserter.acknowledged) > seen + 20, "commits to be acknowledged")  # noqa: B023
                fault(lab.writer.id)
                lab.failover()
                lab.reset()
        finally:
            inserter.stopping.set()
            inserter.join(30)
        assert not inserter.is_alive(), "the inserter hangs"
        for instance in lab.instances:
            with login(lab, instance.id) as connection:
                lost = eventually_nothing_lost(connection, set(inserter.acknowledged))
                assert not lost, instance.id


def eventually_nothing_lost(connection: mysql.connector.abstracts.MySQLConnectionAbstract, wanted: set[int]) -> set[int]:
    """Return what is missing on an instance once it has had the time to follow."""

    def missing() -> set[int]:
        return wanted - {row[0] for row in ask(connection, "SELECT n FROM numbers")}

    try:
        eventually(lambda: not missing(), "the rows to arrive")
    except AssertionError:
        return missing()
    return set()
