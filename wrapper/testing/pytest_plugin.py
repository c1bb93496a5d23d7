"""Pytest fixtures around the lab. Loaded by every pytest run where this package is installed, so it imports nothing heavy.

`aurora_lab`: one `LocalAurora` for the whole run, started by the first test that asks. `aurora`: the same, with every earlier fault
undone and the environment set, so that the lab's names resolve for the wrapper and for child processes. `aurora_mysql_lab` and
`aurora_mysql` are the same for Aurora MySQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from wrapper.testing import LocalAurora


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("aurora lab")
    group.addoption("--lab-instances", type=int, default=3, help="instances of the local Aurora cluster (default: 3)")


@pytest.fixture(scope="session")
def aurora_lab(request: pytest.FixtureRequest) -> Iterator[LocalAurora]:
    """A local Aurora cluster for the whole run."""
    from wrapper.testing import LocalAurora

    with LocalAurora(instances=request.config.getoption("--lab-instances")) as lab:
        yield lab


@pytest.fixture
def aurora(aurora_lab: LocalAurora, monkeypatch: pytest.MonkeyPatch) -> LocalAurora:
    """The local Aurora cluster with one writer, all instances up, no faults; its names resolve."""
    return _mended(aurora_lab, monkeypatch)


@pytest.fixture(scope="session")
def aurora_mysql_lab(request: pytest.FixtureRequest) -> Iterator[LocalAurora]:
    """A local Aurora MySQL cluster for the whole run."""
    from wrapper.testing import LocalAurora

    with LocalAurora(instances=request.config.getoption("--lab-instances"), engine="mysql") as lab:
        yield lab


@pytest.fixture
def aurora_mysql(aurora_mysql_lab: LocalAurora, monkeypatch: pytest.MonkeyPatch) -> LocalAurora:
    """The local Aurora MySQL cluster with one writer, all instances up, no faults; its names resolve."""
    return _mended(aurora_mysql_lab, monkeypatch)


def _mended(lab: LocalAurora, monkeypatch: pytest.MonkeyPatch) -> LocalAurora:
    lab.reset()
    for name, value in lab.environment().items():
        monkeypatch.setenv(name, value)
    return lab
