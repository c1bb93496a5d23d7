"""What is known of ten thousand hosts is more than one message may hold, and is told all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from wrapper.monitor.messages import (
    MAX_MESSAGE_BYTES,
    Garbage,
    Offer,
    Settings,
    Status,
    Watch,
    Watched,
    WatchRequest,
    decode_body,
    encode,
)
from wrapper.monitor.parts import Joiner, split
from wrapper.monitor.state import FROM_DIRECT, Topology, TopologyHost

from .harness import MonitorProcess, Worker, run, worker
from .servers import eventually

CLUSTERS, HOSTS = 500, 20


def test_an_answer_of_any_size_arrives() -> None:
    joiner = Joiner()
    for size in (10, MAX_MESSAGE_BYTES - 100, MAX_MESSAGE_BYTES + 1, 3 * MAX_MESSAGE_BYTES):
        whole = encode(Status({"text": "x" * size}), epoch=3, seq=7)
        *first, last = split(whole, epoch=3, seq=7)
        assert all(len(data) <= MAX_MESSAGE_BYTES for data in (*first, last))
        assert [joiner.envelope(data) for data in first] == [None] * len(first)
        envelope = joiner.envelope(last)
        assert envelope is not None
        assert decode_body(envelope) == Status({"text": "x" * size})


def test_a_lost_part_costs_its_answer_alone() -> None:
    joiner = Joiner()
    parts = split(encode(Status({"text": "x" * 3 * MAX_MESSAGE_BYTES})), epoch=1, seq=1)
    assert joiner.envelope(parts[0]) is None
    with pytest.raises(Garbage, match="part 2 of 7 after 1 parts"):
        joiner.envelope(parts[2])
    *first, last = parts
    assert [joiner.envelope(data) for data in first] == [None] * len(first)
    assert joiner.envelope(last) is not None


def watch(one: Worker, number: int) -> None:
    # No TCP goes to a multicast address: what is found out of these is that they cannot be asked from here, and only once.
    hosts = tuple(TopologyHost(f"224.1.{number // 10}.{number % 10 * HOSTS + host}", 9) for host in range(1, HOSTS + 1))
    request = WatchRequest(
        client=one.client,
        watch=Watch("postgresql", hosts[0].host, 9),
        dialect="pg",
        driver="psycopg",
        settings=Settings(interval=3600.0),
        seed=Topology(hosts=hosts, source=FROM_DIRECT),
        offer=Offer({"user": "nobody"}),
    )
    assert isinstance(one.ask(request), Watched)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_ten_thousand_hosts_are_told(start_monitor: Callable[..., MonitorProcess], directory: Path) -> None:
    monitor = start_monitor("--max-watches", str(CLUSTERS))

    def answer(*arguments: str) -> str | None:
        """What a command prints; None while the monitor is too busy with so many new hosts to answer it."""
        done = run(directory, *arguments)
        return done.stdout if done.returncode == 0 else None

    with worker(monitor.paths) as one:
        for number in range(CLUSTERS):
            watch(one, number)
        page = eventually(lambda: answer("status", "--json"), "the status", timeout=120)
        hosts = [host["key"] for cluster in json.loads(page)["clusters"] for host in cluster["hosts"]]
        assert len(hosts) == len(set(hosts)) == CLUSTERS * HOSTS
        assert eventually(lambda: answer("status"), "the page", timeout=120).count("224.1.") > CLUSTERS * HOSTS
        findings = json.loads(run(directory, "doctor", "--json").stdout)["findings"]
        assert any(finding["facts"].get("pid") == monitor.pid for finding in findings)
    monitor.kill()  # to close ten thousand sessions takes longer than a monitor is waited for
