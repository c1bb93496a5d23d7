"""The monitor's bell in real workers: the next call knows, though the client thread does not get to run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.drivers import PSYCOPG
from tests.integration.test_fork import PRELUDE
from wrapper.testing import LocalAurora

SCRIPT = """
import signal
from monitor_service.bell import Bell
from monitor_service.election import holder
from wrapper.monitor.bell import position
from wrapper.monitor.generation import BELL

def state():
    return current_client().state

def hears():
    return state().confirmed and position(BELL)[0] == state().epoch

def knows():
    return any(health.is_failing for cluster in state().clusters.values() for health in cluster.health.values())

def is_settled():
    found = [health for cluster in state().clusters.values() for health in cluster.health.values()]
    return hears() and current_client().is_live and len(found) == 3 and all(health.proved_at for health in found) and not knows()

def never_rest(connection):
    "Compute, and make a call now and then that needs no network, until one of them knows."
    connection.cursor()  # which a forked child needs to have a client of its own
    wait(is_settled, "the monitor's bell and a proof of every host")
    connection.cursor()
    print("ready", flush=True)
    sys.setswitchinterval(1000.0)  # from here on no other thread runs
    deadline = time.monotonic() + 15
    while not knows():
        assert time.monotonic() < deadline, "no call knew"
        sum(range(10_000))
        connection.cursor()
    sys.setswitchinterval(0.005)

def monitor():
    return holder(current_client().paths)[0]

connection = connect()
"""


def worker(body: str, lab: LocalAurora) -> subprocess.Popen[str]:
    """A worker that has connected and goes on with `body`."""
    writer = {**lab.parameters(), "cluster_instance_host_pattern": lab.instance_host_pattern}
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + SCRIPT + textwrap.dedent(body), PSYCOPG.name, json.dumps(writer)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **lab.environment()},
    )


@pytest.mark.parametrize(
    "body",
    [
        "never_rest(connection)",
        """
        wait(is_settled, "the monitor")
        assert in_child(lambda: never_rest(connection)) == 0
        """,
        """
        wait(is_settled, "the monitor")
        last = state().epoch
        os.kill(monitor(), signal.SIGKILL)
        wait(lambda: state().epoch > last, "the next monitor")
        never_rest(connection)
        """,
    ],
    ids=["worker", "fork", "next monitor"],
)
def test_a_call_knows_what_the_client_thread_had_no_time_to_read(monitor_directory: Path, aurora: LocalAurora, body: str) -> None:
    with worker(body, aurora) as process:
        assert process.stdout is not None
        try:
            ready = process.stdout.readline()
            if ready:
                aurora.kill(aurora.readers[0].id)
            _, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert (ready, process.returncode) == ("ready\n", 0), errors


def test_a_bell_without_news_holds_nobody_up(monitor_directory: Path, aurora: LocalAurora) -> None:
    body = """
        wait(is_settled, "the monitor")
        connection.cursor()
        known = state()
        with open(current_client().paths.bell, "r+b") as page:
            bell = Bell(page.fileno(), known.epoch)
            bell._rings = position(BELL)[1]
            sys.setswitchinterval(1000.0)
            for message in (b"garbage", b"", b"x" * 10_000):
                last = position(BELL)
                bell.ring(message)
                connection.cursor()
                assert current_client()._heard == position(BELL) != last
            sys.setswitchinterval(0.005)
        assert one(connection, "1") == 1
        """
    with worker(body, aurora) as process:
        try:
            _, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 0, errors
