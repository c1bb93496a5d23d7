"""A few cells of the table of moves (`python -m tests.benchmarks.moves`): what connections see, whatever the time that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.moves.events import ENGINES, EVENTS, FLAVOURS, Event
from tests.benchmarks.moves.scene import play, stage
from tests.benchmarks.moves.verdicts import as_text
from wrapper.testing import LocalAurora

# A machine that is busy with other things makes healthy hosts look silent to the fast settings.
SETTINGS = {"topology_refresh_ms": 100}
EVENT = {event.name: event for event in EVENTS}


def assert_right(event: Event, lab: LocalAurora, flavour: str) -> None:
    cells = play(event, lab, flavour, SETTINGS)
    assert not any(cell.errors for cell in cells), "\n" + as_text(cells)


@pytest.mark.parametrize("event", ["writer killed", "planned switchover"])
@pytest.mark.parametrize("lab", ["aurora", "aurora_mysql"])
def test_a_few(event: str, lab: str, request: pytest.FixtureRequest, monitor_directory: Path) -> None:
    assert_right(EVENT[event], request.getfixturevalue(lab), "aurora")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("engine", ENGINES)
def test_all(flavour: str, engine: str) -> None:
    with stage(flavour, engine) as lab:
        for event in EVENTS:
            if flavour in event.flavours:
                assert_right(event, lab, flavour)
