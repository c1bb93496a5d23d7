"""The monitor's bell in real workers: the next call knows, however little the client thread gets to run."""

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
import signal, struct
from monitor_service.election import holder
from wrapper.monitor import client as module
from wrapper.monitor.bell import EPOCH_AT, rings, slot_at, word
from wrapper.monitor.generation import BELL_PAGE

def state():
    return current_client().state

def hears():
    return state().confirmed and word(BELL_PAGE, EPOCH_AT) == state().epoch

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
    module._HEAR = 15.0             # the machine may have other things to do
    print("ready", flush=True)
    sys.setswitchinterval(1000.0)   # from here on nobody runs who is not given way
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


def test_a_bell_that_is_followed_by_nothing_holds_up_one_call(monitor_directory: Path, aurora: LocalAurora) -> None:
    body = """
        wait(is_settled, "the monitor")
        connection.cursor()
        looks = 0
        is_behind = module.is_behind

        def counted(*arguments):
            global looks
            looks += 1
            return is_behind(*arguments)

        module.is_behind = counted
        stopped = monitor()
        os.kill(stopped, signal.SIGSTOP)
        try:
            with open(current_client().paths.bell, "r+b", buffering=0) as page:
                for topic in state().confirmed:
                    os.pwrite(page.fileno(), struct.pack("Q", 1 << 40), slot_at(topic))
                os.pwrite(page.fileno(), struct.pack("H", rings(BELL_PAGE) + 1), 0)
            assert one(connection, "1") == 1
            assert 0 < looks <= module._HEAR / module._LOOK_AGAIN + 1, looks
            before = looks
            assert one(connection, "2") == 2
            connect().close()
            assert looks == before, "nobody waits twice for the same"
        finally:
            os.kill(stopped, signal.SIGCONT)
        print("done")
        """
    with worker(body, aurora) as process:
        try:
            output, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert (output, process.returncode) == ("done\n", 0), errors
