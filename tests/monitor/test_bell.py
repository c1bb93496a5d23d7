"""The monitor's end of its bell."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from monitor_service.client import MonitorConnection
from wrapper.monitor.bell import heard, messages, position
from wrapper.monitor.generation import BELL_BYTES
from wrapper.monitor.messages import Status, StatusRequest

from .harness import MonitorProcess, Worker
from .servers import Server


def epoch_of(monitor: MonitorProcess) -> int:
    with MonitorConnection(monitor.paths) as connection:
        answer = connection.ask(StatusRequest())
    assert isinstance(answer, Status)
    return int(answer.document["epoch"])


def test_a_worker_that_only_hears_the_bell_knows_as_much(monitor: MonitorProcess, worker: Worker, server: Server) -> None:
    topic = worker.watch(server)
    worker.until(lambda: worker.writer(topic), "the first proof")
    before = worker.state
    _, rung = position(monitor.paths.bell.read_bytes())
    server.kill()
    worker.until(lambda: worker.health(topic, server).is_failing, "the host to fail")
    page = monitor.paths.bell.read_bytes()
    assert position(page)[0] == epoch_of(monitor)
    state = heard(before, messages(page, rung))
    assert state.clusters[topic].health[server.key].is_failing
    assert state.seqs[topic] >= worker.state.seqs[topic], "it rings first"


def test_the_next_monitor_has_a_bell_of_its_own(start_monitor: Callable[..., MonitorProcess], directory: Path) -> None:
    first = start_monitor()
    mode = first.paths.bell.stat().st_mode & 0o7777
    with first.paths.bell.open("rb") as last:
        epoch = epoch_of(first)
        first.kill()
        second = start_monitor()
        assert os.fstat(last.fileno()).st_size == BELL_BYTES, "workers have it mapped"
        assert position(last.read())[0] == epoch
    assert position(second.paths.bell.read_bytes())[0] == epoch_of(second) > epoch
    assert mode == 0o600
    second.stop()
    assert not second.paths.bell.exists()
