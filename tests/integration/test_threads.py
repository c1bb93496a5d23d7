"""Where threads are not what they are elsewhere: none to be had, standing still between calls, or greenlets in their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_fork import run
from wrapper.testing import LocalAurora


@pytest.fixture(autouse=True)
def _own_monitor(monitor_directory: Path) -> None:
    """Every test here has a monitor of its own."""


LOGGED = """
import logging
logged = []
class Keep(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())
logging.getLogger("wrapper").addHandler(Keep(logging.WARNING))
"""

HELD = (
    LOGGED
    + """
import ctypes
from wrapper.testing import LabClient

def keep_the_interpreter(seconds):             # as uwsgi 2.0.21 does while it waits for requests
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))

def client_loop():
    return current_client()._loop
"""
)


def test_a_process_whose_threads_stand_still_reads_the_news_before_each_call(aurora: LocalAurora) -> None:
    """The writer hangs and is replaced while the process does nothing: nothing is sent to it any more."""
    result = run(
        HELD
        + f"""
lab = LabClient({str(aurora.directory)!r})
connection = connect()
wait(lambda: current_client().is_live and current_client().state.confirmed, "the connection to be watched")
# Again and again, as between requests: on a busy machine the kernel wakes the thread up too seldom to tell by one time.
wait(lambda: keep_the_interpreter(1.0) or client_loop().is_held, "the client to find out that its thread stood still")
lab.hang("writer")
lab.promote_later(0.3, rejoin=False)
lab_writer = lab.wait_for_promotion().new_writer
before = client_loop().turns
keep_the_interpreter(1.2)
try:
    connection.execute("SELECT 1")
    outcome = "no error"
except wrapper.FailoverSuccessError as error:
    outcome = error.outcome
print(json.dumps([outcome, connection.plugin_service.current_host_info.host_id == lab_writer, len(logged), logged[0]]))
connection.close()
""",
        aurora,
    )
    outcome, on_the_new_writer, times, text = result
    assert outcome == "not_sent"
    assert on_the_new_writer
    assert times == 1, "it is said once"
    assert "enable-threads" in text


@pytest.mark.slow
def test_a_stopped_process_is_not_taken_for_one_whose_threads_stand_still(aurora: LocalAurora) -> None:
    result = run(
        HELD
        + """
import signal, subprocess
connection = connect()
wait(lambda: current_client().is_live and current_client().state.confirmed, "the connection to be watched")
stopper = f"import os, time; os.kill({os.getpid()}, 19); time.sleep(1.2); os.kill({os.getpid()}, 18)"
subprocess.run([sys.executable, "-c", stopper], check=True)
turns = client_loop().turns
wait(lambda: client_loop().turns > turns + 2, "the client's thread to run again")
print(json.dumps([client_loop().is_held, logged]))
connection.close()
""",
        aurora,
    )
    assert result == [False, []]


def test_a_process_that_gets_no_thread_works_without_the_monitor(aurora: LocalAurora) -> None:
    """It says so once, and fails over by asking the hosts itself."""
    result = run(
        LOGGED
        + f"""
import threading
from wrapper.testing import LabClient
lab = LabClient({str(aurora.directory)!r})
threading.stack_size(1 << 46)                  # more than there is
connection = connect()
other = connect()
first = connection.execute("SELECT 1").fetchone()
lab.kill("writer")
lab.promote_later(0.3, rejoin=False)
try:
    connection.execute("SELECT 1")
    error = None
except wrapper.FailoverSuccessError as failure:
    error = failure.outcome
lab_writer = lab.wait_for_promotion().new_writer
print(json.dumps([list(first), error, connection.plugin_service.current_host_info.host_id == lab_writer, logged]))
connection.close()
other.close()
""",
        aurora,
    )
    first, error, on_the_new_writer, logged = result
    assert first == [1]
    assert error == "unknown"
    assert on_the_new_writer
    assert len(logged) == 1
    assert "gets no thread" in logged[0]


GREENLETS = """
import gevent.monkey
gevent.monkey.patch_all()
import gc
import gevent, gevent.hub

def hubs():
    return sum(isinstance(thing, gevent.hub.Hub) for thing in gc.get_objects())

turns = 0
def tick():
    global turns
    while True:
        turns += 1
        gevent.sleep(0.005)
gevent.spawn(tick)

def turns_during(function):
    before = turns
    result = function()
    return turns - before, result
"""


@pytest.mark.parametrize("late", [False, True], ids=["patched first", "psycopg first"])
def test_gunicorns_hook_warns_of_a_driver_that_stops_all_greenlets(aurora: LocalAurora, late: bool) -> None:
    ask = """
from wrapper.integrations.gunicorn import post_worker_init
post_worker_init(None)
print(json.dumps(logged))
"""
    result = run(LOGGED + GREENLETS + ask, aurora) if late else run(LOGGED + ask, aurora, first=GREENLETS)
    assert ["top of gunicorn's configuration file" in text for text in result] == [True] * late


def test_greenlets_go_on_while_one_waits_for_the_database(aurora: LocalAurora) -> None:
    """psycopg waits by gevent's means; nothing of ours keeps the hub, and the client's thread has no hub of its own."""
    result = run(
        f"""
        from wrapper.testing import LabClient
        lab = LabClient({str(aurora.directory)!r})
        connection = connect()
        wait(lambda: current_client().is_live and current_client().state.confirmed, "the connection to be watched")
        asleep, _ = turns_during(lambda: connection.execute("SELECT pg_sleep(0.5)").fetchone())

        def lose():
            lab.hang("writer")
            lab.promote_later(0.5, rejoin=False)
        gevent.spawn_later(0.2, lose)

        def slow():
            try:
                connection.execute("SELECT pg_sleep(60)")
            except wrapper.FailoverSuccessError as error:
                return error.outcome
        failing, outcome = turns_during(slow)
        print(json.dumps([asleep, failing, outcome, connection.execute("SELECT 1").fetchone()[0], hubs()]))
        connection.close()
        """,
        aurora,
        first=GREENLETS,
    )
    asleep, failing, outcome, answer, hubs = result
    assert asleep > 10, "a slow query held up the other greenlets"
    assert failing > 10, "the failover held up the other greenlets"
    assert (outcome, answer) == ("unknown", 1)
    assert hubs == 1, "a thread of ours waits by gevent's means"
