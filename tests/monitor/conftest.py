from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .harness import MonitorProcess, Worker
from .servers import Aurora, Server, Template, find_binaries, free_port


@pytest.fixture
def directory() -> Iterator[Path]:
    # Short: a socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mon-") as name:
        yield Path(name)


@pytest.fixture
def start_monitor(directory: Path) -> Iterator[Callable[..., MonitorProcess]]:
    started: list[MonitorProcess] = []

    def start(*arguments: str, wait: bool = True) -> MonitorProcess:
        started.append(MonitorProcess(directory, *arguments, wait=wait))
        return started[-1]

    yield start
    for one in started:
        one.stop()
        assert "Traceback" not in one.log.read_text(), one.log.read_text()


@pytest.fixture
def monitor(start_monitor: Callable[..., MonitorProcess]) -> MonitorProcess:
    return start_monitor()


@pytest.fixture
def new_worker(monitor: MonitorProcess) -> Iterator[Callable[[], Worker]]:
    made: list[Worker] = []

    def make() -> Worker:
        made.append(Worker(monitor.paths))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def worker(new_worker: Callable[[], Worker]) -> Worker:
    return new_worker()


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server programs (initdb) found")
    made = Template(binaries)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def plain_server(template: Template) -> Iterator[Server]:
    address = "127.0.77.2"
    one = template.copy(address, free_port(address), "plain")
    one.start()
    yield one
    one.stop()


@pytest.fixture
def server(plain_server: Server) -> Iterator[Server]:
    """A plain server that runs and answers, whatever the last test did to it."""
    yield plain_server
    if plain_server.is_running:
        plain_server.resume()
    else:
        plain_server.start()


@pytest.fixture(scope="session")
def spare(template: Template) -> Iterator[list[Aurora]]:
    """The cluster of the last test, if that left it as it was."""
    kept: list[Aurora] = []
    yield kept
    for one in kept:
        one.stop()


@pytest.fixture
def aurora(template: Template, spare: list[Aurora]) -> Iterator[Aurora]:
    cluster = spare.pop() if spare else Aurora(template)
    yield cluster
    if cluster.is_as_new:
        spare.append(cluster)
    else:
        cluster.stop()
