"""Forked workers: preloaded applications, inherited connections, and what the parent must not lose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.drivers import PSYCOPG, Driver
from tests.integration.conftest import drivers
from wrapper.testing import LocalAurora

PRELUDE = """
import json, os, sys, time
import wrapper
from tests.drivers import DRIVERS, ask, one, transaction
from wrapper.monitor.process import current_client

driver = DRIVERS[sys.argv[1]]
driver.module
writer = json.loads(sys.argv[2])

def connect(**more):
    quick = {"failure_detection_interval_ms": 100, "failure_detection_count": 6}
    return wrapper.connect(driver.connect, **{**writer, **driver.options, "autocommit": True, **quick, **more})

def wait(condition, what):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)

def in_child(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
            status = 0
        except BaseException:
            import traceback; traceback.print_exc()
            status = 1
        os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)

def pid_of(connection):
    return one(connection, driver.engine.session)
"""

everywhere = drivers("psycopg", "mysql-extension", slow=("mysql-pure",))


def run(script: str, lab: LocalAurora, driver: Driver = PSYCOPG, first: str = "") -> Any:
    """Run a script in a fresh process, after `first` and what all scripts need; it prints one JSON document."""
    writer = {**lab.parameters(), "cluster_instance_host_pattern": lab.instance_host_pattern}
    script = first + PRELUDE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script, driver.name, json.dumps(writer)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **lab.environment()},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def _own_monitor(monitor_directory: Path) -> None:
    """Every test here has a monitor of its own."""


@everywhere
def test_a_child_gets_a_session_and_a_watch_of_its_own(lab: LocalAurora, driver: Driver) -> None:
    result = run(
        """
        connection = connect()
        before = pid_of(connection)
        wait(lambda: current_client().state.confirmed, "the parent to be watched")
        read, write = os.pipe()
        def child():
            mine = pid_of(connection)              # the inherited connection object, used in the child
            wait(lambda: current_client().is_live and current_client().state.confirmed, "the child to be watched")
            handles = [handle.key for handle in current_client().handles()]
            os.write(write, json.dumps([mine, handles, current_client().pid == os.getpid()]).encode())
        status = in_child(child)
        inside = json.loads(os.read(read, 10000))
        print(json.dumps({"status": status, "before": before, "after": pid_of(connection), "child": inside}))
        connection.close()
        """,
        lab,
        driver,
    )
    assert result["status"] == 0
    assert result["before"] == result["after"], "the parent lost its session to the child"
    session, handles, own = result["child"]
    assert session != result["before"]
    assert len(handles) == 1
    assert own


@everywhere
def test_an_open_transaction_of_the_parents_stays_the_parents(lab: LocalAurora, driver: Driver) -> None:
    result = run(
        """
        connection = connect()
        with transaction(connection):
            ask(connection, "CREATE TEMPORARY TABLE mine (x int)")
            def child():
                try:
                    ask(connection, "INSERT INTO mine VALUES (1)")
                except wrapper.TransactionResolutionUnknownError as error:
                    assert error.outcome == "not_sent"
                else:
                    raise AssertionError("no error")
            status = in_child(child)
            ask(connection, "INSERT INTO mine VALUES (2)")
        print(json.dumps([status, ask(connection, "SELECT x FROM mine")]))
        connection.close()
        """,
        lab,
        driver,
    )
    assert result == [0, [[2]]]


@everywhere
def test_a_child_may_close_what_it_inherited(lab: LocalAurora, driver: Driver) -> None:
    """Servers close all connections in a fresh worker; the parent's session goes on, transaction and all."""
    result = run(
        """
        connection = connect()
        with transaction(connection):
            ask(connection, "CREATE TEMPORARY TABLE mine AS SELECT 1 AS x")
            def child():
                connection.close()
                assert connection.is_closed
            status = in_child(child)
            rows = ask(connection, "SELECT x FROM mine")
        print(json.dumps([status, rows]))
        connection.close()
        """,
        lab,
        driver,
    )
    assert result == [0, [[1]]]


@everywhere
def test_the_parents_connection_survives_the_childs_verdicts_and_exit(lab: LocalAurora, driver: Driver) -> None:
    """The child opens its own connection, which is given up on evidence; the parent's to another host is untouched throughout."""
    reader = lab.readers[0]
    result = run(
        f"""
        parent = connect(host={reader.endpoint!r}, failover_mode="strict_reader")
        before = pid_of(parent)
        from wrapper.testing import LabClient
        lab = LabClient({str(lab.directory)!r})
        def child():
            mine = connect(failover_timeout_sec=2)
            wait(lambda: current_client().is_live and current_client().state.confirmed, "the child to be watched")
            handle = mine.plugin_service.physical(mine.target_connection).handle
            lab.hang("writer")
            try:
                wait(lambda: handle.aborted_by is not None, "the child's connection to be given up")
            finally:
                lab.resume("writer")
        status = in_child(child)
        print(json.dumps([status, before == pid_of(parent)]))
        parent.close()
        """,
        lab,
        driver,
    )
    assert result == [0, True]


@everywhere
def test_a_fork_that_runs_no_hook_is_noticed_at_the_first_call(lab: LocalAurora, driver: Driver) -> None:
    """Some servers fork without running Python's hooks: the page that the kernel wipes tells the child what it is."""
    result = run(
        """
        import wrapper.monitor.process
        wrapper.monitor.process._hooked = True      # so that none is registered
        connection = connect()
        before = pid_of(connection)
        read, write = os.pipe()
        def child():
            os.write(write, json.dumps([pid_of(connection), current_client().pid == os.getpid()]).encode())
        status = in_child(child)
        print(json.dumps([status, before, json.loads(os.read(read, 1000)), pid_of(connection)]))
        connection.close()
        """,
        lab,
        driver,
    )
    status, before, (child, own), after = result
    assert status == 0
    assert own
    assert child != before == after


@pytest.mark.skipif(sys.version_info < (3, 12), reason="forking with threads warns from Python 3.12 on")
def test_a_fork_does_not_warn_of_our_threads(lab: LocalAurora, driver: Driver) -> None:
    result = run(
        """
        import warnings
        warnings.simplefilter("error")
        connection = connect()
        wait(lambda: current_client().state.confirmed, "the parent to be watched")
        statuses = [in_child(lambda: None) for _ in range(5)]
        wait(lambda: current_client().is_live, "the parent's client to go on")
        print(json.dumps([statuses, pid_of(connection) > 0]))
        connection.close()
        """,
        lab,
        driver,
    )
    assert result == [[0] * 5, True]


def test_importing_starts_nothing(lab: LocalAurora, driver: Driver) -> None:
    result = run(
        """
        import threading
        print(json.dumps([threading.active_count(), len(os.listdir("/proc/self/task")), "zmq" in sys.modules]))
        """,
        lab,
        driver,
    )
    assert result == [1, 1, False]
