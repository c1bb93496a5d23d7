"""Choosing readers by what the shared monitor knows: connections of all processes, and the load that the cluster's table tells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.conftest import client, eventually
from tests.integration.test_failover import instance_of
from wrapper.hosts import HostRole
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
# Connects to the instances named by its arguments, says so, and waits.
HOLDER = """
import os, sys
import psycopg, wrapper
from wrapper.testing.client import LabClient
lab = LabClient(os.environ["LAB"])
held = [wrapper.connect(psycopg.connect, lab.dsn(name), cluster_instance_host_pattern=lab.instance_host_pattern)
        for name in sys.argv[1:]]
print("connected", flush=True)
sys.stdin.read()
"""


def chosen(connection: Any, strategy: str) -> str:
    host = connection.plugin_service.get_host_info_by_strategy(HostRole.READER, strategy)
    assert host is not None
    return str(host.host_id)


def published(connection: Any, instance: str) -> int:
    state = client().state.by_watch(connection.plugin_service.watch.key)
    assert state is not None
    (member,) = (host for host in state.topology.hosts if host.id == instance)
    return state.health[member.key].connections


def test_the_connections_of_all_processes_are_counted(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    def are_even(connection: Any) -> bool:
        # What this process has told is subtracted from what is published, which is not the same moment.
        return {chosen(connection, "least_connections") for _ in range(40)} == {first, second}

    writer = watched()
    first, second = (reader.id for reader in aurora.readers)
    mine = connect(first)
    # Known at once: nobody need tell this process of its own.
    assert chosen(writer, "least_connections") == second
    environment = {**os.environ, **aurora.environment(), "LAB": os.fspath(aurora.directory)}
    command = [sys.executable, "-c", HOLDER, second, second, second]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"connected\n"
            eventually(lambda: published(writer, second) == 3, "the other process's connections")
            assert chosen(writer, "least_connections") == first
            eventually(lambda: published(writer, first) == 1, "the monitor to know of ours")
            assert chosen(writer, "least_connections") == first, "ours must not count twice"
            more = [connect(first) for _ in range(2)]
            eventually(lambda: are_even(writer), "both to have three")
            more.append(connect(first))
            eventually(lambda: chosen(writer, "least_connections") == second, "one more to be counted")
        finally:
            assert other.stdin is not None
            other.stdin.close()
            other.wait(20)
    eventually(lambda: published(writer, second) == 0, "the end of the other process")
    for connection in (mine, *more):
        connection.close()
    eventually(lambda: are_even(writer), "both to have none")


@pytest.mark.parametrize(("strategy", "uneven"), [("least_connections", 4), ("round_robin", 0)])
def test_threads_that_connect_at_once_spread_over_the_readers(
    connect: Connect, aurora: LocalAurora, strategy: str, uneven: int
) -> None:
    """`least_connections` may err by what other threads have decided and not begun yet."""
    settings = {"plugins": "initial_connection", "initial_connection_host_selector_strategy": strategy}

    def open_one(_: int) -> Any:
        return connect(host=aurora.reader_endpoint, **settings)

    connect().close()  # the cluster is known from here on, under its other endpoint too
    with ThreadPoolExecutor(4) as pool:
        connections = list(pool.map(open_one, range(24)))
    counts = Counter(connection.plugin_service.current_host_info.host_id for connection in connections)
    assert set(counts) == {reader.id for reader in aurora.readers}
    assert max(counts.values()) - min(counts.values()) <= uneven


def test_readers_are_chosen_by_load(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    first, second = (reader.id for reader in aurora.readers)
    aurora.set_load(first, cpu=90, lag_ms=1)
    aurora.set_load(second, cpu=10, lag_ms=500)
    connection = watched(topology_refresh_ms=50)
    eventually(lambda: chosen(connection, "lowest_load_by_cpu") == second, "the load to be known")
    assert chosen(connection, "lowest_load_by_lag") == chosen(connection, "lowest_load") == first
    assert chosen(connection, "highest_load_by_cpu") == first
    assert chosen(connection, "highest_load") == second
    # The first connect by the reader endpoint, whose name leads to the first of them.
    strategy = {"initial_connection_host_selector_strategy": "lowestLoadByCpu"}
    assert instance_of(connect(host=aurora.reader_endpoint, **strategy)) == second
    aurora.set_load(first, cpu=5, lag_ms=1)
    eventually(lambda: chosen(connection, "lowest_load_by_cpu") == first, "the new load to be published")
