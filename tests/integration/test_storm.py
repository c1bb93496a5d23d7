"""The writer dies under many connections of several processes: all of them have the new one, and none is turned away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import eventually
from tests.integration.test_monitor_faults import ROOT, monitor_status
from wrapper.testing import LocalAurora

PROCESSES = 4
EACH = 50

# Opens connections, says so, waits for the word, and has a thread use each until it has failed over.
WORKER = """
import json, sys, threading, wrapper, psycopg
connections = [wrapper.connect(psycopg.Connection.connect, **json.loads(sys.argv[1])) for _ in range(int(sys.argv[2]))]
print("open", flush=True)
sys.stdin.readline()
outcomes = []
def use(connection):
    try:
        while True:
            connection.execute("SELECT pg_sleep(0.2)")
    except wrapper.FailoverSuccessError:
        outcomes.append(connection.execute("SELECT aurora_db_instance_identifier(), pg_is_in_recovery()").fetchone())
    except Exception as error:
        outcomes.append(repr(error))
threads = [threading.Thread(target=use, args=(connection,)) for connection in connections]
for thread in threads: thread.start()
print("busy", flush=True)
for thread in threads: thread.join()
print(json.dumps(outcomes), flush=True)
for connection in connections: connection.close()
"""


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalAurora]:
    # As many places as connections, and a few for the monitor and the lab: one attempt too many at a time would be turned away.
    with LocalAurora(3, max_connections=PROCESSES * EACH + 30) as lab:
        for name, value in lab.environment().items():
            monkeypatch.setenv(name, value)
        yield lab


@pytest.mark.slow
def test_many_connections_fail_over_at_once(large: LocalAurora, monitor_directory: Path) -> None:
    parameters = {**large.parameters(), "autocommit": True, "cluster_instance_host_pattern": large.instance_host_pattern}
    command = [sys.executable, "-c", WORKER, json.dumps(parameters), str(EACH)]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(PROCESSES)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "open\n"
        eventually(lambda: len(monitor_status().get("leases", ())) == PROCESSES, "all of them to be known", timeout=60)
        for worker in workers:
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
            assert worker.stdout.readline() == "busy\n"
        large.kill("writer")
        large.promote_later(0.5, rejoin=False)
        outcomes = [outcome for worker in workers for outcome in json.loads(worker.communicate(timeout=120)[0])]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert outcomes == [[large.writer.id, False]] * PROCESSES * EACH
    eventually(lambda: sum(large.monitoring_sessions().values()) <= 3, "no more sessions of the monitor's than usual", timeout=60)
