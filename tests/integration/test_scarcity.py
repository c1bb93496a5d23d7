"""The machine has nothing left for the monitor: the workers go on, and are watched again once it has."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import client, drivers, eventually
from tests.integration.test_monitor_faults import ROOT, Load, monitor_pid
from tests.monitor.test_limits import Crowd
from wrapper.monitor.paths import MonitorPaths
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]

# Connects and asks; then waits until a monitor watches.
WORKER = """
import json, logging, sys, time, wrapper
from tests.drivers import DRIVERS, ask
from wrapper.monitor.process import current_client
logging.basicConfig(level="WARNING")
connection = wrapper.connect(DRIVERS[sys.argv[1]].connect, **json.loads(sys.argv[2]))
print(ask(connection, "SELECT 1"), flush=True)
while sys.argv[3] == "watched" and not (current_client().is_live and current_client().state.confirmed):
    time.sleep(0.01)
print("done", flush=True)
connection.close()
"""


def another_worker(lab: LocalAurora, until: str, **how: Any) -> subprocess.Popen[str]:
    parameters = {**lab.parameters(), "autocommit": True, "cluster_instance_host_pattern": lab.instance_host_pattern}
    command = [sys.executable, "-c", WORKER, "psycopg", json.dumps(parameters), until]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **how)


@pytest.mark.parametrize(("what", "to"), [(resource.RLIMIT_NOFILE, 8), (resource.RLIMIT_AS, 4096)], ids=["descriptors", "memory"])
def test_a_starving_monitor_costs_no_query(watched: Connect, aurora: LocalAurora, what: int, to: int) -> None:
    connection = watched()
    watch = connection.plugin_service.watch
    host = connection.plugin_service.current_host_info.key
    pid = monitor_pid()
    before = resource.prlimit(pid, what)
    with Load(connection) as load:
        resource.prlimit(pid, what, (to, before[1]))
        # It asks the monitor for what that has not got: a connection, memory. ZeroMQ ends its process over the one, Python over the
        # other if it comes to that; then it is replaced, like one that was killed.
        newcomer = another_worker(aurora, "watched")
        try:
            assert newcomer.stdout is not None
            assert newcomer.stdout.readline() == "[(1,)]\n"
            done = load.done
            eventually(lambda: load.done > done + 100, "the load to go on")
            try:
                resource.prlimit(pid, what, before)
            except ProcessLookupError:
                pass  # it has ended
            at = time.monotonic()

            def is_watched() -> bool:
                client().report(watch, host, "refresh")
                cluster = client().state.by_watch(watch.key)
                return (
                    client().is_live
                    and cluster is not None
                    and cluster.topic in client().state.confirmed
                    and (cluster.writer_proved_at or 0.0) > at
                )

            eventually(is_watched, "a monitor that watches")
            newcomer.wait(60)
            # Not by communicate(), which does not see what came together with the first line.
            assert newcomer.stdout.read() == "done\n"
        finally:
            newcomer.kill()
            newcomer.communicate()
    assert load.errors == []
    assert connection.plugin_service.physical(connection.target_connection).handle.aborted_by is None


@pytest.mark.slow
def test_a_worker_that_is_one_too_many_is_watched_when_there_is_room(aurora: LocalAurora, monitor_directory: Path) -> None:
    command = [sys.executable, "-m", "monitor_service", "run"]
    with (monitor_directory / "log").open("wb") as log:
        monitor = subprocess.Popen(["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *command], stdout=log, stderr=log)
    paths = MonitorPaths(monitor_directory)
    crowd = Crowd(paths)
    newcomer = None
    try:
        eventually(paths.control.exists, "the monitor")
        # One refusal may be due to descriptors that the monitor needs while it imports, and no longer.
        refused = 0
        while refused < 5:
            refused = 0 if crowd.is_let_in() else refused + 1
        newcomer = another_worker(aurora, "watched")
        assert newcomer.stdout is not None
        assert newcomer.stdout.readline() == "[(1,)]\n"
        assert newcomer.stderr is not None
        assert "admits no connection of this process" in newcomer.stderr.readline()
        crowd.leave()
        assert newcomer.communicate(timeout=60)[0] == "done\n"
        assert monitor.poll() is None
    finally:
        crowd.leave()
        if newcomer is not None:
            newcomer.kill()
            newcomer.communicate()
        monitor.terminate()
        monitor.wait(20)


def no_file_may_grow() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@drivers("psycopg")
def test_a_worker_on_a_full_disk_works_without_a_monitor(lab: LocalAurora, monitor_directory: Path) -> None:
    worker = another_worker(lab, "asked", preexec_fn=no_file_may_grow)
    said, log = worker.communicate(timeout=60)
    assert said == "[(1,)]\ndone\n", log
    assert "Traceback" not in log
