"""Fixtures of the tests with real servers: each test has a monitor directory of its own, and leaves no process behind."""

from __future__ import annotations

import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import monitor_service.cli
import wrapper
from tests.drivers import DRIVERS, PSYCOPG, Driver
from wrapper import AwsWrapperConnection
from wrapper.monitor.client import MonitorClient
from wrapper.monitor.process import current_client
from wrapper.testing import LocalAurora

PATIENCE = 20.0


def eventually(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Return the first true value of `condition`; fail with `what` was waited for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout:g} s in vain for {what}")


@contextmanager
def own_monitor(environment: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for a monitor of the block's own, started on demand by the first connection; stopped afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="asm-"))
    environment.setenv("AWS_WRAPPER_MONITOR_DIR", str(directory))
    wrapper.release_resources()
    forget_client()
    try:
        yield directory
    finally:
        wrapper.release_resources()
        forget_client()
        eventually(lambda: is_removed(directory), f"the end of the monitor in {directory}")


def is_removed(directory: Path) -> bool:
    """Stop the monitor in a directory and remove it; return whether that is done. A monitor that is just starting makes files
    meanwhile, or misses its directory and ends."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        # In this process: starting another one takes longer than most tests.
        monitor_service.cli.main(["stop", "--directory", str(directory)])
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


@pytest.fixture
def monitor_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for a monitor of the test's own."""
    with own_monitor(monkeypatch) as directory:
        yield directory


def forget_client() -> None:
    """Make the next connection start a client with the directory that the environment names then."""
    from wrapper.monitor import process
    from wrapper.monitor.generation import advance

    searches = [search for client in process._clients.values() for search in client.searches.values()]
    for search in searches:
        search.wanted_until = 0.0
    # Their threads would make a client for whichever directory the environment names by then.
    eventually(lambda: not any(search._asked for search in searches), "the end of direct searches")
    process.close_client()  # a client that lived on would keep its monitor, or start another one
    process._clients.clear()
    advance()  # what was seen through it is not to be believed any more


Connect = Callable[..., Any]


def drivers(*names: str, slow: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Have a test run with each of these drivers; with those of `slow` only where slow tests run."""
    cases = [pytest.param(DRIVERS[name], marks=[pytest.mark.slow] if name in slow else []) for name in (*names, *slow)]
    return pytest.mark.parametrize("driver", cases, ids=str, indirect=True)


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Driver:
    """The driver that a test is about: psycopg, unless `drivers` says something else."""
    chosen = getattr(request, "param", PSYCOPG)
    assert isinstance(chosen, Driver)
    return chosen


@pytest.fixture
def lab(driver: Driver, request: pytest.FixtureRequest) -> LocalAurora:
    """The local Aurora cluster of the driver's engine."""
    cluster = request.getfixturevalue("aurora" if driver is PSYCOPG else "aurora_mysql")
    assert isinstance(cluster, LocalAurora)
    return cluster


@pytest.fixture
def connect(driver: Driver, lab: LocalAurora, monitor_directory: Path) -> Iterator[Connect]:
    """Connects to the lab's writer endpoint through the wrapper; closes everything at the end."""
    opened: list[Any] = []

    def connect(instance: str | None = None, **parameters: Any) -> Any:
        parameters = {"autocommit": True, "cluster_instance_host_pattern": lab.instance_host_pattern, **parameters}
        parameters = {**lab.parameters(instance), **driver.options, **parameters}
        connection = AwsWrapperConnection.connect(driver.connect, **parameters)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def watched(connect: Connect) -> Callable[..., Any]:
    """Connects, and returns once the monitor has published what it knows of all hosts of the cluster."""

    def watched(*args: Any, **parameters: Any) -> Any:
        connection = connect(*args, **parameters)
        service = connection.plugin_service

        def is_known() -> bool:
            found = client().state.by_watch(service.watch.key)
            return (
                client().is_live
                and found is not None
                and found.topology.writer is not None
                and all(health.proved_at is not None for health in found.health.values())
                and len(found.health) >= 3
            )

        eventually(is_known, "the monitor to publish a writer and the roles of three hosts")
        return connection

    return watched


def client() -> MonitorClient:
    """This process's client of the monitor."""
    return current_client()
