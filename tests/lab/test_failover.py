"""Moving the writer: in what order, what the old one believes, and that no acknowledged commit is lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psycopg
import pytest

from wrapper.resolver import parse_hosts
from wrapper.testing import LabError, LocalAurora

from .helpers import eventually, login, one, state_of, writer_by


def test_failover_of_a_running_writer(aurora: LocalAurora) -> None:
    old, target = aurora.writer, aurora.readers[1]
    with login(aurora, target.id) as on_target, login(aurora, old.id) as on_old:
        report = aurora.failover(target.id)
        assert (report.old_writer, report.new_writer) == (old.id, target.id)
        for connection in (on_old, on_target):  # Aurora restarts both
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
    for instance in aurora.instances:
        with login(aurora, instance.id) as connection:
            assert writer_by(connection) == target.id
            assert one(connection, "SELECT pg_is_in_recovery()") is (instance != target)
    assert parse_hosts(Path(aurora.hosts_file).read_text())[aurora.writer_endpoint] == target.address


def test_sessions_of_the_promoted_instance_can_be_kept(aurora: LocalAurora) -> None:
    target = aurora.readers[0]
    with login(aurora, target.id) as connection:
        aurora.failover(target.id, drop_sessions=False)
        assert one(connection, "SELECT pg_is_in_recovery()") is False


def test_a_killed_writer_stays_down_without_rejoin(aurora: LocalAurora) -> None:
    old = aurora.writer.id
    aurora.kill(old)
    aurora.failover(rejoin=False)
    assert state_of(aurora, old)["state"] == "down"
    aurora.start(old)
    with login(aurora, old) as connection:
        assert one(connection, "SELECT pg_is_in_recovery()")
        assert writer_by(connection) == aurora.writer.id


def test_what_only_the_old_writer_had_is_gone_when_it_rejoins(aurora: LocalAurora) -> None:
    old = aurora.writer.id
    for reader in aurora.readers:
        aurora.kill(reader.id)
    with login(aurora, old) as connection:
        connection.execute("CREATE TABLE never_replicated (x int)")
    aurora.kill(old)
    for reader in aurora.readers:
        aurora.start(reader.id)
    aurora.failover()
    with login(aurora, old) as connection:
        assert one(connection, "SELECT to_regclass('never_replicated') IS NULL")


def test_a_reader_that_received_more_than_the_new_writer_rejoins(aurora: LocalAurora) -> None:
    old, ahead, behind = aurora.writer.id, *(reader.id for reader in aurora.readers)
    aurora.kill(behind)
    with login(aurora, old) as connection:
        connection.execute("CREATE TABLE only_ahead (x int)")
    with login(aurora, ahead) as connection:
        eventually(lambda: one(connection, "SELECT to_regclass('only_ahead') IS NOT NULL"), "the table at the reader")
    aurora.kill(ahead)
    aurora.kill(old)
    aurora.start(behind)
    aurora.failover(behind)
    aurora.start(ahead)
    with login(aurora, ahead) as connection:
        assert one(connection, "SELECT pg_is_in_recovery()")
        assert not one(connection, "SELECT to_regclass('only_ahead') IS NOT NULL")


def test_a_resumed_old_writer_honestly_claims_to_be_the_writer(aurora: LocalAurora) -> None:
    old = aurora.writer.id
    aurora.hang(old)
    new = aurora.failover().new_writer
    assert state_of(aurora, old)["state"] == "hung"
    aurora.resume(old)
    assert state_of(aurora, old)["stale"]
    newest = "SELECT last_update_timestamp FROM aurora_replica_status() WHERE session_id = 'MASTER_SESSION_ID'"
    with login(aurora, old) as stale, login(aurora, new) as proper:
        assert one(stale, "SELECT pg_is_in_recovery()") is False
        assert writer_by(stale) == old
        assert writer_by(proper) == new
        claimed = one(stale, newest)
        before = one(proper, newest)
        eventually(lambda: one(proper, newest) > before, "the new writer's row to be refreshed")
        assert one(stale, newest) == claimed < before, "the newest row must win"
    aurora.rejoin(old)
    with login(aurora, old) as connection:
        assert one(connection, "SELECT pg_is_in_recovery()")
        assert writer_by(connection) == new


def test_a_promotion_can_be_scheduled(aurora: LocalAurora) -> None:
    old = aurora.writer.id
    began = time.monotonic()
    aurora.kill(old)
    aurora.promote_later(0.5)
    writer = aurora.status()["writer"]
    assert writer == old or time.monotonic() - began >= 0.5
    report = aurora.wait_for_promotion()
    assert report.old_writer == old
    assert aurora.writer.id == report.new_writer


def test_a_reset_cancels_a_scheduled_promotion(aurora: LocalAurora) -> None:
    writer = aurora.writer
    aurora.promote_later(1.0)
    aurora.reset()
    with pytest.raises(LabError, match="no promotion"):
        aurora.wait_for_promotion(1.2)
    assert aurora.writer == writer


def test_a_new_writer_may_die_before_the_others_follow_it(aurora: LocalAurora) -> None:
    """They are told a while after the promotion; that this finds nobody must not end the controller."""
    aurora.kill("writer")
    aurora.promote_later(0.0)
    dead = aurora.wait_for_promotion().new_writer
    aurora.kill(dead)
    aurora.promote_later(1.0)  # behind it in the same queue
    eventually(lambda: aurora.writer.id != dead, "the next promotion")


def test_the_delay_leaves_the_cluster_without_a_writer(aurora: LocalAurora) -> None:
    old = aurora.writer.id
    thread = threading.Thread(target=aurora.failover, kwargs={"promote_delay": 1.0})
    began = time.monotonic()
    thread.start()
    eventually(lambda: state_of(aurora, old)["state"] == "down", "the old writer to end")
    for reader in aurora.readers:
        if time.monotonic() - began < 0.3:
            with login(aurora, reader.id) as connection:
                is_reader = one(connection, "SELECT pg_is_in_recovery()")
            assert is_reader or time.monotonic() - began >= 1.0
    thread.join()
    assert aurora.writer.id != old
    assert time.monotonic() - began >= 1.0


def test_the_endpoint_follows_late() -> None:
    with LocalAurora(instances=2, dns_delay=0.4) as lab:
        report = lab.failover()

        def leads_to() -> str:
            return parse_hosts(Path(lab.hosts_file).read_text())[lab.writer_endpoint]

        found = leads_to()
        assert found == lab.instance(report.old_writer).address or time.monotonic() >= report.at + 0.4
        eventually(lambda: leads_to() == lab.instance(report.new_writer).address, "the endpoint to follow")


def test_a_failover_that_cannot_be_is_refused_before_it_begins(aurora: LocalAurora) -> None:
    writer = aurora.writer
    with login(aurora, writer.id) as connection:
        with pytest.raises(LabError, match=f"{writer.id} is the writer already"):
            aurora.failover(writer.id)
        for reader in aurora.readers:
            aurora.kill(reader.id)
        with pytest.raises(LabError, match="no reader"):
            aurora.failover()
        with pytest.raises(LabError, match="does not run as a reader"):
            aurora.failover(aurora.readers[0].id)
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
                        connection.execute("INSERT INTO numbers VALUES (%s)", (number,))
                        self.acknowledged.append(number)
            except psycopg.Error:
                continue  # what was in flight may be lost; what was acknowledged may not


@pytest.mark.slow
def test_synchronous_failovers_lose_no_acknowledged_commit() -> None:
    with LocalAurora(synchronous=True) as lab:
        with login(lab) as connection:
            connection.execute("CREATE TABLE numbers (n int PRIMARY KEY)")
        inserters = [Inserter(lab)]
        for inserter in inserters:
            inserter.start()
        try:
            for fault in (lab.kill, lab.hang, lambda _: None, lab.kill, lab.kill):
                seen = len(inserters[0].acknowledged)
                eventually(lambda: len(inserters[0].acknowledged) > seen + 20, "commits to be acknowledged")  # noqa: B023
                fault(lab.writer.id)
                lab.failover()
                lab.reset()
        finally:
            for inserter in inserters:
                inserter.stopping.set()
        for inserter in inserters:
            inserter.join(30)
            assert not inserter.is_alive(), "the inserter hangs"
        with login(lab) as connection:
            stored = {row[0] for row in connection.execute("SELECT n FROM numbers")}
        lost = set(inserters[0].acknowledged) - stored
        assert not lost
