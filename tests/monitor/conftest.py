from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wrapper.testing import LocalAurora

from .harness import MonitorProcess, Worker
from .servers import Server, writer_of


@pytest.fixture
def directory() -> Iterator[Path]:
    # Short: a socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mon-") as name:
        yield Path(name)


@pytest.fixture
def start_monitor(directory: Path) -> Iterator[Callable[..., MonitorProcess]]:
    started: list[MonitorProcess] = []

    def start(*arguments: str, wait: bool = True, environment: dict[str, str] | None = None) -> MonitorProcess:
        started.append(MonitorProcess(directory, *arguments, wait=wait, environment=environment))
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
def plain_lab() -> Iterator[LocalAurora]:
    with LocalAurora(instances=1, flavor="pg", address_names=True) as lab:
        yield lab


@pytest.fixture(scope="session")
def plain_mysql_lab() -> Iterator[LocalAurora]:
    with LocalAurora(instances=1, flavor="mysql", address_names=True) as lab:
        yield lab


@pytest.fixture
def server(plain_lab: LocalAurora) -> Server:
    """A lone plain PostgreSQL server that runs and answers, whatever the last test did to it."""
    plain_lab.reset()
    return writer_of(plain_lab)


@pytest.fixture
def mysql_server(plain_mysql_lab: LocalAurora) -> Server:
    """The same of MySQL."""
    plain_mysql_lab.reset()
    return writer_of(plain_mysql_lab)
