"""The writer dies under many connections of several processes: all of them have the new one, and none is turned away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.drivers import Driver
from tests.integration.conftest import drivers, eventually
from tests.integration.test_monitor_faults import ROOT, monitor_status
from wrapper.testing import LocalAurora

# Opens connections, says so, waits for the word, and has a thread use each until it has failed over.
WORKER = """
import json, sys, threading, wrapper
from tests.drivers import DRIVERS, ask, one
driver = DRIVERS[sys.argv[1]]
connections = [wrapper.connect(driver.connect, **json.loads(sys.argv[2])) for _ in range(int(sys.argv[3]))]
print("open", flush=True)
sys.stdin.readline()
WRITABLE = {"postgresql": "NOT pg_is_in_recovery()", "mysql": "NOT @@innodb_read_only"}
outcomes = []
def use(connection):
    try:
        while True:
            one(connection, driver.engine.sleep.format(0.2))
    except wrapper.FailoverSuccessError:
        outcomes.append(ask(connection, f"SELECT {driver.engine.instance}, {WRITABLE[driver.engine.name]}")[0])
    except Exception as error:
        outcomes.append(repr(error))
threads = [threading.Thread(target=use, args=(connection,)) for connection in connections]
for thread in threads: thread.start()
print("busy", flush=True)
for thread in threads: thread.join()
print(json.dumps(outcomes), flush=True)
for connection in connections: connection.close()
"""


class Storm(NamedTuple):
    """How many processes have how many connections each."""

    processes: int
    each: int


@pytest.fixture
def large(driver: Driver, storm: Storm, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAurora]:
    # As many places as connections, and a few for the monitor and the lab: one attempt too many at a time would be turned away.
    with LocalAurora(3, engine=driver.engine.name, max_connections=storm.processes * storm.each + 30) as lab:
        for name, value in lab.environment().items():
            monkeypatch.setenv(name, value)
        yield lab


@pytest.mark.slow
@pytest.mark.timeout(600)
@drivers("psycopg", "mysql-extension")
@pytest.mark.parametrize("storm", [Storm(4, 50), Storm(8, 125)], ids=["200", "1000"])
def test_many_connections_fail_over_at_once(driver: Driver, storm: Storm, large: LocalAurora, monitor_directory: Path) -> None:
    parameters = {
        **large.parameters(),
        **driver.options,
        "autocommit": True,
        "cluster_instance_host_pattern": large.instance_host_pattern,
    }
    command = [sys.executable, "-c", WORKER, driver.name, json.dumps(parameters), str(storm.each)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(storm.processes)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "open\n"
        eventually(lambda: len(monitor_status().get("leases", ())) == storm.processes, "all of them to be known", timeout=60)
        for worker in workers:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "busy\n"
        large.kill("writer")
        large.promote_later(0.5, rejoin=False)
        outcomes = [outcome for worker in workers for outcome in json.loads(worker.communicate(timeout=300)[0])]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert outcomes == [[large.writer.id, True]] * storm.processes * storm.each
    eventually(lambda: sum(large.monitoring_sessions().values()) <= 3, "no more sessions of the monitor's than usual", timeout=60)
