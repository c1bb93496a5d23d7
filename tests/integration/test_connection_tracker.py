"""`aurora_connection_tracker`: connections to a writer that was replaced end, also when nobody uses them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import eventually
from tests.integration.test_failover import Blocked, instance_of, is_active, is_superseded
from tests.integration.test_fork import run
from wrapper.monitor.handles import Handle
from wrapper.providers import SqlAlchemyPooledConnectionProvider
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
ALONE = {"plugins": "aurora_connection_tracker"}


def handle_of(connection: Any) -> Handle:
    handle = connection.plugin_service.physical(connection.target_connection).handle
    assert isinstance(handle, Handle)
    return handle


def is_running(lab: LocalAurora, statement: str) -> bool:
    """Whether the writer is executing a statement with this in it."""
    return any(
        statement in (session["query"] or "") and session["state"] in ("active", "Query") for session in lab.sessions(lab.writer.id)
    )


def replace_writer(lab: LocalAurora) -> None:
    """Have another host become the writer while the old one goes on believing that it is, and goes on serving its sessions."""
    old = lab.writer.id
    lab.hang(old)
    lab.failover(rejoin=False)
    lab.resume(old)


def test_an_idle_connection_ends_without_being_used(watched: Connect, aurora: LocalAurora) -> None:
    tracked, other = watched(**ALONE), watched(plugins="host_monitoring_v2", failure_detection_interval_ms=30000)
    old = aurora.writer.id
    replace_writer(aurora)
    eventually(handle_of(tracked).is_severed, "the tracked connection to end")
    # By its socket: the driver's object is its owner's alone.
    assert not tracked.target_connection.closed
    with pytest.raises(psycopg.OperationalError) as caught:
        tracked.execute("CREATE TABLE lost (x int)")
    assert not isinstance(caught.value, wrapper.FailoverError)
    assert instance_of(other) == old
    assert other.execute("SELECT to_regclass('lost')").fetchone() == (None,)


@pytest.mark.parametrize("failover", ["failover", "failover_v2"])
def test_its_next_use_fails_over_before_anything_is_sent(watched: Connect, aurora: LocalAurora, failover: str) -> None:
    connection = watched(plugins=f"aurora_connection_tracker,{failover}")
    replace_writer(aurora)
    eventually(lambda: is_superseded(connection), "the new writer to be known")
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        connection.execute("SELECT 1")
    assert caught.value.outcome == "not_sent"
    assert instance_of(connection) == aurora.writer.id


def test_a_busy_connection_is_left_to_finish(watched: Connect, aurora: LocalAurora) -> None:
    busy, idle = watched(plugins="aurora_connection_tracker,failover"), watched(**ALONE)
    with psycopg.connect(aurora.admin_dsn(aurora.writer.id), autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(1)")
        with ThreadPoolExecutor(1) as thread:
            statement = thread.submit(busy.execute, "SELECT 'done' FROM pg_advisory_lock(1)")
            eventually(lambda: is_running(aurora, "'done'"), "the statement to run")
            replace_writer(aurora)
            eventually(handle_of(idle).is_severed, "the idle connection to end")
            assert handle_of(busy).in_use()
            holder.execute("SELECT pg_advisory_unlock(1)")
            assert statement.result(20).fetchone() == ("done",)
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        busy.execute("CREATE TABLE lost (x int)")
    assert caught.value.outcome == "not_sent"
    assert instance_of(busy) == aurora.writer.id


def test_a_statement_on_a_replaced_writer_that_hangs_ends_on_its_own_thread(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(plugins="aurora_connection_tracker,failover")
    blocked = Blocked(connection)
    old = aurora.writer.id
    eventually(lambda: is_active(aurora, old), "the statement to run")
    aurora.hang(old)
    aurora.failover(rejoin=False)
    error = blocked.wait()
    assert isinstance(error, wrapper.FailoverSuccessError)
    assert error.outcome == "unknown"


def test_a_connection_that_waits_in_a_pool_ends_too(watched: Connect, aurora: LocalAurora) -> None:
    pool = SqlAlchemyPooledConnectionProvider()
    watched()
    old = aurora.writer.id
    settings = {"plugins": "aurora_connection_tracker,failover", "connection_provider": pool}
    connection = watched(old, **settings)
    pooled, handle = connection.target_connection, handle_of(connection)
    connection.close()
    assert not pooled.closed
    replace_writer(aurora)
    eventually(handle.is_severed, "the pooled connection to end")
    again = watched(old, **settings)
    assert again.target_connection is not pooled
    assert instance_of(again) == old
    again.close()
    pool.release_resources()


def test_connections_to_others_are_left_alone(watched: Connect, aurora: LocalAurora) -> None:
    """A reader keeps its connections, also when it is promoted; the new writer's are younger than the change."""
    promoted, reader = (instance.id for instance in aurora.readers)
    old = watched(**ALONE)
    kept = [watched(reader, **ALONE), watched(promoted, **ALONE)]
    hung = aurora.writer.id
    aurora.hang(hung)
    aurora.failover(promoted, rejoin=False, drop_sessions=False)
    aurora.resume(hung)
    eventually(handle_of(old).is_severed, "the connection to the old writer to end")
    new = watched(promoted, **ALONE)
    assert [instance_of(connection) for connection in (*kept, new)] == [reader, promoted, promoted]


def test_the_old_writer_can_be_the_writer_again(watched: Connect, aurora: LocalAurora) -> None:
    first = aurora.writer.id
    for target in (aurora.readers[0].id, first):
        connection = watched(**ALONE)
        assert instance_of(connection) == aurora.writer.id
        aurora.failover(target)
        eventually(lambda: is_superseded(connection), "the new writer to be known")  # noqa: B023
        eventually(handle_of(connection).is_severed, "the connection to end")
    assert instance_of(watched(**ALONE)) == first


def test_without_a_monitor_one_failover_ends_the_other_connections(connect: Connect, aurora: LocalAurora) -> None:
    connections = [connect(plugins="aurora_connection_tracker,failover", monitor_mode="off") for _ in range(3)]
    idle = [handle_of(connection) for connection in connections[1:]]
    eventually(lambda: all(handle.is_idle() for handle in idle), "the connections to be idle for a moment")
    replace_writer(aurora)
    # This one, by the endpoint's name, is all that the process has to learn it from.
    connect(plugins="failover_v2", monitor_mode="off")
    with pytest.raises(wrapper.FailoverSuccessError):
        connections[0].execute("SELECT 1")
    assert all(handle.is_severed() for handle in idle)


def test_a_child_ends_no_connection_of_its_parent(aurora: LocalAurora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB", os.fspath(aurora.directory))
    result = run(
        """
        from wrapper.testing.client import LabClient

        lab = LabClient(os.environ["LAB"])
        settings = {"plugins": "aurora_connection_tracker,failover", "monitor_mode": "off"}
        idle, used = connect(**settings), connect(**settings)
        before = pid_of(idle)
        def child():
            pid_of(used)                           # the inherited object, on a session of the child's own
            mine = connect(**settings)
            handle = mine.plugin_service.physical(mine.target_connection).handle
            wait(handle.is_idle, "the connection to be idle for a moment")
            old = lab.writer.id
            lab.hang(old); lab.failover(rejoin=False); lab.resume(old)
            connect(plugins="failover_v2", monitor_mode="off")  # by name: asks the new writer who it is
            try:
                used.execute("SELECT 1")
            except wrapper.FailoverSuccessError:
                pass
            else:
                raise AssertionError("no failover")
            assert handle.is_severed()
        status = in_child(child)
        print(json.dumps({"status": status, "same": pid_of(idle) == before}))
        """,
        aurora,
    )
    assert result == {"status": 0, "same": True}
