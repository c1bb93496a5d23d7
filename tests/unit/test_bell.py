"""The monitor's bell: what a worker maps, what it refuses, and what a ring tells it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from monitor_service.bell import Bell, hang_up
from wrapper.monitor.bell import CELL_BYTES, CELLS, attach, cell, cell_at, header, heard, messages, position
from wrapper.monitor.client import MonitorClient
from wrapper.monitor.generation import BELL, BELL_BYTES, GENERATION, advance
from wrapper.monitor.messages import Heartbeat, encode
from wrapper.monitor.paths import MonitorPaths
from wrapper.monitor.state import ClusterState, HealthUpdate, HostHealth, SharedState, Topology

# No other test of this process has mapped a bell of one of these.
EPOCHS = count(time.time_ns())


def bell_in(directory: Path, epoch: int) -> Bell:
    bell = hang_up(MonitorPaths(directory).bell, epoch, None)
    assert bell is not None
    return bell


def mapped() -> int:
    return position(BELL)[0]


def test_a_ring_is_a_new_generation(tmp_path: Path) -> None:
    epoch = next(EPOCHS)
    bell = bell_in(tmp_path, epoch)
    attach(MonitorPaths(tmp_path), epoch)
    assert position(BELL) == (epoch, 0)
    seen = advance()
    bell.ring(b"news")
    rung = GENERATION[0]
    assert rung != seen
    assert position(BELL) == (epoch, 1)
    assert list(messages(BELL, 0)) == [b"news"]
    assert advance() not in (seen, rung)
    assert position(BELL) == (epoch, 1), "a process's own bytes are no others"


def test_the_next_monitors_bell_leaves_the_last_ones_as_it_was(tmp_path: Path) -> None:
    paths, first, second = MonitorPaths(tmp_path), next(EPOCHS), next(EPOCHS)
    bell_in(tmp_path, first).ring(b"last words")
    attach(paths, first)
    bell_in(tmp_path, second).ring(b"first words")
    attach(paths, first)
    assert (mapped(), *messages(BELL, 0)) == (first, b"last words")
    attach(paths, second)
    assert (mapped(), *messages(BELL, 0)) == (second, b"first words")


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
        lambda path: os.truncate(path, BELL_BYTES - 1),
        lambda path: os.truncate(path, BELL_BYTES + 1),
        lambda path: rewrite(path, os.urandom(BELL_BYTES)),
        lambda path: rewrite(path, bytes(BELL_BYTES)),
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


def page(*news: bytes, epoch: int = 5) -> bytearray:
    """What a monitor has rung for so far."""
    made = bytearray(BELL_BYTES)
    for number, message in enumerate(news, 1):
        written = cell(number, message)
        made[cell_at(number) : cell_at(number) + len(written)] = written
    made[: len(header(0, 0))] = header(epoch, len(news))
    return made


def test_the_latest_messages_are_kept() -> None:
    news = [b"%d" % number for number in range(1, 3 * CELLS)]
    assert list(messages(page(*news), 0)) == news[-CELLS:]
    assert list(messages(page(*news), len(news) - 2)) == news[-2:]
    assert list(messages(page(*news), len(news))) == []
    assert list(messages(bytes(BELL_BYTES), 0)) == []


def test_what_is_not_whole_is_left_out() -> None:
    assert list(messages(page(b"one", b"x" * CELL_BYTES, b"three"), 0)) == [b"one", b"three"]
    torn, late = page(b"one", b"two", b"three"), page(b"one", b"two", b"three")
    torn[cell_at(2) + 16] ^= 1
    late[cell_at(2) : cell_at(2) + 8] = late[cell_at(1) : cell_at(1) + 8]
    for found in (torn, late):
        assert list(messages(found, 0)) == [b"one", b"three"]
    cut = page(b"one")
    cut[cell_at(1) + 8 : cell_at(1) + 12] = b"\xff" * 4
    assert list(messages(cut, 0)) == []


KNOWN = SharedState(
    epoch=5,
    clusters={"mine": ClusterState("mine", "pg", topology=Topology(), health={"a:1": HostHealth("a:1")})},
    seqs={"mine": 7},
    confirmed=frozenset({"mine"}),
)


def told(failures: int, *, seq: int, topic: str = "mine", epoch: int = 5) -> bytes:
    return encode(HealthUpdate(HostHealth("a:1", failures=failures)), epoch=epoch, topic=topic, seq=seq)


@pytest.mark.parametrize(
    ("news", "failures", "seq"),
    [
        ([told(1, seq=8)], 1, 8),
        ([told(1, seq=8), told(2, seq=9)], 2, 9),
        ([told(3, seq=6), told(3, seq=7), told(1, seq=8)], 1, 8),
        ([told(1, seq=9)], 0, 7),
        ([told(1, seq=8, topic="theirs")], 0, 7),
        ([told(1, seq=8, epoch=4)], 0, 7),
        ([told(1, seq=1, epoch=6)], 0, 7),
        ([b"garbage", told(1, seq=8)], 1, 8),
        ([encode(Heartbeat(0.0, 1, {}), epoch=5, topic="mine", seq=8), told(1, seq=9)], 1, 9),
    ],
    ids=["next", "several", "known", "gap", "another's", "last monitor's", "next monitor's", "garbage", "no update"],
)
def test_what_follows_from_the_state_is_taken_in(news: list[bytes], failures: int, seq: int) -> None:
    state = heard(KNOWN, news)
    assert (state.clusters["mine"].health["a:1"].failures, state.seqs) == (failures, {"mine": seq})


def test_of_two_threads_that_take_news_in_none_undoes_the_others() -> None:
    client = MonitorClient(None)
    client.state = KNOWN
    tries = 0

    def overtaken(state: SharedState) -> SharedState:
        nonlocal tries
        tries += 1
        if tries == 1:
            client.change(lambda state: heard(state, [told(1, seq=8), told(2, seq=9)]))
        return heard(state, [told(1, seq=8)])

    seen = GENERATION[0]
    client.change(overtaken)
    assert tries == 2
    assert client.state.clusters["mine"].health["a:1"].failures == 2
    assert GENERATION[0] != seen
    client.abandon()
