"""A step of the wall clock moves nothing: no process can be given another one without root and a machine of its own, so this shows
who reads it at all, and that what they do with it decides nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor_service import evidence
from monitor_service.checks import machine
from wrapper.monitor.state import ANSWERED, REFUSED, SILENT, HostHealth

ROOT = Path(__file__).parents[2]
# Module, and what it takes the time of day for.
READERS = {
    "monitor_service/checks/machine.py": "doctor compares the clocks of the machine",
    "monitor_service/cluster.py": "the text of evidence says when the last answer came",
    "monitor_service/election.py": "a floor for the epoch, should the file be lost; never below the last one plus one",
    "monitor_service/logins.py": "login values say by the wall clock when they expire",
    "monitor_service/logs.py": "lines of the log are dated",
    "monitor_service/publisher.py": "lines of the journal are dated",
    "monitor_service/status.py": "a status document is dated",
}


def uses(tree: ast.AST) -> Iterator[str]:
    """Yield what in a module reads the wall clock."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (alias.name for alias in node.names if alias.name in ("time", "time_ns", "gmtime", "localtime"))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            if name in (
                "time.time",
                "time.time_ns",
                "time.localtime",
                "time.gmtime",
                "datetime.now",
                "datetime.utcnow",
                "date.today",
            ):
                yield name
        elif isinstance(node, ast.Attribute) and node.attr == "CLOCK_REALTIME":
            yield node.attr


def test_who_reads_the_wall_clock() -> None:
    found = set()
    for package in ("wrapper", "monitor_service"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith("wrapper/testing/") and any(uses(ast.parse(path.read_text(encoding="utf-8")))):
                found.add(name)
    assert found == set(READERS)


def test_who_is_interrupted_between_two_clocks_reads_both_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monotonic, wall = iter([10.0, 10.2, 10.2, 10.2]), iter([1000.2, 1000.2])
    monkeypatch.setattr(machine, "time", SimpleNamespace(monotonic=lambda: next(monotonic), time=lambda: next(wall)))
    assert machine.read_clocks() == (10.2, 1000.2)


kinds = st.sampled_from([ANSWERED, REFUSED, SILENT])


@given(st.lists(kinds, min_size=2, max_size=6), st.lists(st.floats(0, 2**33), min_size=6, max_size=6))
def test_a_jump_changes_no_event(history: list[str], walls: list[float]) -> None:
    """The same probes make the same evidence and the same events, whatever the time of day is at each."""

    def play(walls: list[float]) -> list[tuple[HostHealth, str | None]]:
        health, played = HostHealth("a:1"), []
        for number, (kind, wall) in enumerate(zip(history, walls, strict=False)):
            before, health = health, evidence.judge(health, evidence.Probe(float(number), number + 0.5, kind), 1.0)
            step = evidence.transition(before, health, wall, number + 0.5)
            played.append((health, None if step is None else step[0]))
        return played

    assert play(walls) == play([0.0] * 6)
