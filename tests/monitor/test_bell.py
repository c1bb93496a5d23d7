"""The monitor's end of its bell."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from monitor_service.client import MonitorConnection
from wrapper.monitor.bell import EPOCH_AT, PAGE_BYTES, rings, slot_at, word
from wrapper.monitor.messages import Status, StatusRequest

from .harness import MonitorProcess, Worker
from .servers import Server


def epoch_of(monitor: MonitorProcess) -> int:
    with MonitorConnection(monitor.paths) as connection:
        answer = connection.ask(StatusRequest())
    assert isinstance(answer, Status)
    return int(answer.document["epoch"])


def test_it_has_rung_for_what_is_published(monitor: MonitorProcess, worker: Worker, server: Server) -> None:
    topic = worker.watch(server)
    worker.until(lambda: worker.writer(topic), "the first proof")
    before = rings(monitor.paths.bell.read_bytes())
    server.kill()
    worker.until(lambda: worker.health(topic, server).is_failing, "the host to fail")
    page = monitor.paths.bell.read_bytes()
    assert word(page, EPOCH_AT) == epoch_of(monitor)
    assert rings(page) > before
    assert word(page, slot_at(topic)) >= worker.state.seqs[topic]


def test_the_next_monitor_has_a_bell_of_its_own(start_monitor: Callable[..., MonitorProcess], directory: Path) -> None:
    first = start_monitor()
    mode = first.paths.bell.stat().st_mode & 0o7777
    with first.paths.bell.open("rb") as last:
        epoch = epoch_of(first)
        first.kill()
        second = start_monitor()
        assert os.fstat(last.fileno()).st_size == PAGE_BYTES, "workers have it mapped"
        assert word(last.read(), EPOCH_AT) == epoch
    assert word(second.paths.bell.read_bytes(), EPOCH_AT) == epoch_of(second) > epoch
    assert mode == 0o600
    second.stop()
    assert not second.paths.bell.exists()
