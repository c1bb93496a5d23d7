"""Servers that accept and then make no sense, all at once: what each is taken for, and that nothing of them is left."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from wrapper.monitor.messages import Release, Settings
from wrapper.monitor.state import ANSWERED, REFUSED, SILENT

from .harness import MonitorProcess, worker
from .impostors import SCRIPTS, Impostor
from .servers import Server, eventually

# What each is taken for. Only silence ends existing connections; a refusal closes the host to new ones; an answer does neither.
KINDS = {
    "never answers": SILENT,
    "answers byte by byte": ANSWERED,
    "answers garbage": ANSWERED,
    "resets after the knock": REFUSED,
    "resets in the login": REFUSED,
    "resets in a row": REFUSED,
}
SETTINGS = Settings(interval=0.2, connect_timeout=0.5)


@pytest.fixture(params=["server", "mysql_server"], ids=["postgresql", "mysql"])
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.getfixturevalue(request.param)
    return chosen


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_each_impostor_is_taken_for_what_it_is(start_monitor: Callable[..., MonitorProcess], server: Server, times: int) -> None:
    # With leases that outlive the waiting, however long it takes: no worker renews its own here.
    monitor = start_monitor("--dumpable", "--warm", "0.2", "--lease", "600")

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{monitor.pid}/fd"))

    with worker(monitor.paths) as one, ExitStack() as stack:
        topic = one.watch(server, interval=10.0)
        one.until(lambda: one.writer(topic), "the first proof")
        before = descriptors()
        impostors = {fault: stack.enter_context(closing(Impostor(play))) for fault, play in SCRIPTS[server.engine].items()}
        with worker(monitor.paths) as other:
            places = {fault: replace(server, endpoint="127.0.0.1", port=one.port) for fault, one in impostors.items()}
            topics = {fault: other.watch(place, settings=SETTINGS, cluster_id=fault) for fault, place in places.items()}
            other.snapshot(*(other.cluster(topic).watches[0] for topic in topics.values()))
            for fault, place in places.items():
                kind = KINDS[fault]

                def is_taken_for_it(topic: str = topics[fault], place: Server = place, kind: str = kind) -> bool:
                    health = other.health(topic, place)
                    return health.kind == kind and health.is_failing == (kind != ANSWERED) and not health.accepting

                other.until(is_taken_for_it, f"{fault} to be {kind}; it is {other.health(topics[fault], place)}")
            for fault, impostor in impostors.items():
                other.until(lambda impostor=impostor: impostor.visits >= times, f"{times} visits to {fault}", timeout=300)  # type: ignore[misc]
            other.ask(Release(other.client))
        # Who is well has been left alone.
        one.until_proved_since_report(topic, server)
        assert not one.health(topic, server).is_failing
        eventually(lambda: one.renew() and descriptors() <= before, "no more descriptors than before")
