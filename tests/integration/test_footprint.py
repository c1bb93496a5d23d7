"""What connections share, what they cost their process, and what is left of them."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import client, eventually
from tests.integration.test_failover import instance_of, is_superseded
from wrapper import AwsWrapperConnection
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
NAME = "under-test"


def open_through(lab: LocalAurora, **parameters: Any) -> AwsWrapperConnection:
    """A connection that nothing but the caller holds."""
    parameters = {"autocommit": True, "cluster_instance_host_pattern": lab.instance_host_pattern, **parameters}
    return AwsWrapperConnection.connect(psycopg.Connection.connect, **lab.parameters(), **parameters)


def test_no_connection_is_kept_for_the_cluster_it_made_known(watched: Connect, aurora: LocalAurora) -> None:
    """The one through which the process learned of the cluster goes, and the others lose nothing by it."""
    first = open_through(aurora)
    service = weakref.ref(first.plugin_service)
    second = watched()
    first.close()
    del first
    gc.collect()
    assert service() is None
    aurora.failover()
    eventually(lambda: is_superseded(second), "the new writer to be known")


def test_a_closed_connection_is_watched_over_no_longer(watched: Connect, aurora: LocalAurora) -> None:
    """Nor is anything kept of it, though the tracker and the guard have known it."""
    kept = watched(plugins="aurora_connection_tracker,host_monitoring_v2")
    before = list(client().handles())
    for _ in range(3):
        connection = open_through(aurora, plugins="aurora_connection_tracker,host_monitoring_v2")
        assert len(list(client().handles())) == len(before) + 1
        connection.close()
        assert list(client().handles()) == before
    assert instance_of(kept) == aurora.writer.id


def test_who_waits_for_a_refresh_holds_up_nobody(watched: Connect, aurora: LocalAurora) -> None:
    """While one thread waits for hosts that do not answer, others read what is known, ask for a refresh of their own, give up."""
    patient, hasty = watched(plugins="failover_v2").plugin_service, watched(plugins="failover_v2").plugin_service
    for instance in aurora.instances:
        aurora.hang(instance.id)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(patient.force_monitoring_refresh_host_list, True, 20.0)
        try:
            assert hasty.force_monitoring_refresh_host_list(True, 0.3) is False
            assert len(hasty.all_hosts) == len(aurora.instances)
            assert not waiting.done()
        finally:
            for instance in aurora.instances:
                aurora.resume(instance.id)
        assert waiting.result(20.0) is True


@pytest.mark.slow
@pytest.mark.parametrize("failover", ["failover", "failover_v2"])
def test_a_failover_needs_no_threads_and_leaves_one_session(watched: Connect, aurora: LocalAurora, failover: str) -> None:
    connections = [watched(plugins=f"{failover},host_monitoring_v2", application_name=NAME) for _ in range(5)]
    threads = set(threading.enumerate())
    aurora.kill("writer")
    aurora.promote_later(0.2, rejoin=False)
    for connection in connections:
        with pytest.raises(wrapper.FailoverSuccessError):
            connection.execute("SELECT 1")
    assert set(threading.enumerate()) <= threads
    eventually(lambda: sessions(aurora) == [(aurora.writer.id, len(connections))], "one session each, on the writer alone")


def sessions(lab: LocalAurora) -> list[tuple[str, int]]:
    """The running instances that the connections under test have sessions on, and how many."""
    found = [(one, [session["application_name"] for session in lab.sessions(one)].count(NAME)) for one in lab.monitoring_sessions()]
    return [(instance, count) for instance, count in found if count]


def test_nothing_is_kept_of_a_connection_that_was_lost(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched()
    lost = weakref.ref(connection.target_connection)
    aurora.drop_sessions(aurora.writer.id)
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        while True:
            connection.execute("SELECT 1")
    del caught
    gc.collect()
    assert lost() is None
