"""The monitor's bell: what a worker maps, what it refuses, and what a ring tells it."""

from __future__ import annotations

import logging
import os
import struct
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from monitor_service.bell import Bell, hang_up
from wrapper.monitor.bell import EPOCH_AT, PAGE_BYTES, attach, is_behind, rings, slot_at, word
from wrapper.monitor.generation import BELL_PAGE, GENERATION, advance
from wrapper.monitor.paths import MonitorPaths
from wrapper.monitor.state import SharedState

# No other test of this process has mapped a bell of one of these.
EPOCHS = count(time.time_ns())
TOPIC = "cluster/one"


def bell_in(directory: Path, epoch: int) -> Bell:
    bell = hang_up(MonitorPaths(directory).bell, epoch, None)
    assert bell is not None
    return bell


def mapped() -> int:
    return word(BELL_PAGE, EPOCH_AT)


def test_a_ring_is_a_new_generation(tmp_path: Path) -> None:
    epoch = next(EPOCHS)
    bell = bell_in(tmp_path, epoch)
    attach(MonitorPaths(tmp_path), epoch)
    assert mapped() == epoch
    seen = advance()
    bell.ring(TOPIC, 7)
    assert GENERATION[0] != seen
    assert (rings(BELL_PAGE), word(BELL_PAGE, slot_at(TOPIC))) == (1, 7)
    rung = GENERATION[0]
    assert advance() not in (seen, rung)
    assert rings(BELL_PAGE) == 1, "a process's own bytes are no others"


def test_the_next_monitors_bell_leaves_the_last_ones_as_it_was(tmp_path: Path) -> None:
    paths, first, second = MonitorPaths(tmp_path), next(EPOCHS), next(EPOCHS)
    bell_in(tmp_path, first).ring(TOPIC, 7)
    attach(paths, first)
    bell = bell_in(tmp_path, second)
    bell.ring(TOPIC, 1)
    assert (mapped(), word(BELL_PAGE, slot_at(TOPIC))) == (first, 7)
    attach(paths, first)
    assert mapped() == first, "what is mapped needs no file any more"
    attach(paths, second)
    assert (mapped(), word(BELL_PAGE, slot_at(TOPIC))) == (second, 1)


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def behind_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        lambda path: os.truncate(path, 0),
        lambda path: os.truncate(path, PAGE_BYTES - 1),
        lambda path: os.truncate(path, PAGE_BYTES + 1),
        lambda path: rewrite(path, os.urandom(PAGE_BYTES)),
        lambda path: rewrite(path, bytes(PAGE_BYTES)),
        lambda path: path.chmod(0o620),
        lambda path: path.chmod(0o602),
        behind_a_link,
        as_a_pipe,
        as_a_directory,
    ],
    ids=["missing", "empty", "short", "long", "garbage", "zeros", "group", "others", "link", "pipe", "directory"],
)
def test_what_is_no_bell_is_not_mapped(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    epoch = next(EPOCHS)
    bell_in(tmp_path, epoch)
    spoil(MonitorPaths(tmp_path).bell)
    before, seen = mapped(), GENERATION[0]
    attach(MonitorPaths(tmp_path), epoch)
    assert (mapped(), GENERATION[0]) == (before, seen)


@pytest.mark.parametrize(
    "change", [{"owner": os.getuid() + 1}, {"url": "tcp://127.0.0.1:5490"}], ids=["another user's", "another machine's"]
)
def test_a_bell_is_that_of_the_monitor_that_is_spoken_to(tmp_path: Path, change: dict[str, int | str]) -> None:
    epoch = next(EPOCHS)
    bell_in(tmp_path, epoch)
    attach(MonitorPaths(tmp_path, **change), epoch)  # type: ignore[arg-type]
    assert mapped() != epoch
    attach(MonitorPaths(tmp_path), epoch + 1)
    assert mapped() != epoch, "its page is of another run"


def test_a_monitor_that_cannot_hang_up_a_bell_does_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert hang_up(tmp_path / "gone" / "bell", 1, None) is None
    assert "cannot be written: No such file or directory" in caplog.text


def page(epoch: int, **seqs: int) -> bytes:
    made = bytearray(PAGE_BYTES)
    struct.pack_into("Q", made, EPOCH_AT, epoch)
    for topic, seq in seqs.items():
        struct.pack_into("Q", made, slot_at(topic), seq)
    return bytes(made)


@pytest.mark.parametrize(
    ("rung", "expected"),
    [
        (page(5, mine=8), True),
        (page(5, mine=7), False),
        (page(5, mine=6), False),
        (page(5, lost=3), False),
        (page(5, theirs=3), False),
        (page(4, mine=8), False),
        (page(6, mine=8), False),
        (bytes(PAGE_BYTES), False),
    ],
    ids=["news", "known", "older", "unconfirmed", "another's", "last monitor's", "next monitor's", "no bell"],
)
def test_who_is_behind(rung: bytes, expected: bool) -> None:
    state = SharedState(epoch=5, seqs={"mine": 7, "lost": 2}, confirmed=frozenset({"mine"}))
    assert is_behind(rung, state) is expected
