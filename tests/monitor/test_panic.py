"""The search for a lost writer, with real servers of both engines: whom it asks, what it survives, and that it ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from wrapper.monitor.state import Topology, TopologyHost, TopologyUpdate
from wrapper.testing import LocalAurora

from .harness import Worker
from .servers import eventually, readers_of, servers_of, writer_of
from .test_failover import DIALECTS, sessions, until_proved, watched

# First of all fixtures: the monitor must inherit an environment in which the lab's names resolve.
pytestmark = pytest.mark.usefixtures("aurora")


@pytest.fixture(params=["aurora", "aurora_mysql"], ids=["postgresql", "mysql"])
def aurora(request: pytest.FixtureRequest) -> LocalAurora:
    lab: LocalAurora = request.getfixturevalue(request.param)
    return lab


def test_a_lost_writer_has_every_host_asked_at_once(worker: Worker, aurora: LocalAurora) -> None:
    """Nobody reports it, and nobody is due for half a minute."""
    topic = watched(worker, aurora, interval=30.0)
    killed_at = time.monotonic()
    writer_of(aurora).kill()
    for reader in readers_of(aurora):
        until_proved(worker, topic, reader, after=killed_at)


def test_sessions_that_every_host_drops_during_the_search_are_opened_again(worker: Worker, aurora: LocalAurora) -> None:
    """Aurora restarts all instances in a failover: the sessions of the search are from before."""
    topic = watched(worker, aurora, interval=30.0)
    old, (new, other) = writer_of(aurora), readers_of(aurora)
    old.kill()
    worker.until(lambda: worker.health(topic, old).kind == "refused", "the refusal")
    for _ in range(2):
        dropped_at = time.monotonic()
        for reader in (new, other):
            reader.drop_sessions()
        for reader in (new, other):
            until_proved(worker, topic, reader, after=dropped_at)
    other.kill()
    aurora.failover(new.id, rejoin=False)
    worker.until_writer(topic, new)
    other.start()
    worker.until(lambda: worker.health(topic, other).role == "reader", "the restarted reader")
    eventually(lambda: sessions([new, other]) == 3, "two hosts and the membership")


def test_logins_that_are_refused_during_the_search_do_not_trap_it(worker: Worker, aurora: LocalAurora) -> None:
    topic = watched(worker, aurora, interval=30.0)
    old, readers = writer_of(aurora), readers_of(aurora)
    for reader in readers:
        aurora.refuse_logins(reader.id)
    old.kill()
    for reader in readers:
        reader.drop_sessions()
    worker.until(lambda: not any(worker.health(topic, one).accepting for one in readers), "every login to be refused")
    aurora.failover(readers[0].id, rejoin=False)
    # More often than with back-offs that double.
    worker.until(lambda: len(worker.events_named("LOGIN REFUSED")) >= 12, "the logins to be tried again and again")
    for reader in readers:
        aurora.refuse_logins(reader.id, False)
    worker.until(lambda: worker.writer(topic) == readers[0].key, "the new writer")


@pytest.fixture
def mute_hosts() -> Iterator[tuple[TopologyHost, ...]]:
    """Forty hosts that take connections and never say a word."""
    with ExitStack() as stack:
        hosts = []
        for _ in range(40):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            hosts.append(TopologyHost("127.0.0.1", listener.getsockname()[1]))
        yield tuple(hosts)


def test_any_number_of_mute_hosts_keeps_none_from_being_asked(
    worker: Worker, aurora: LocalAurora, mute_hosts: tuple[TopologyHost, ...]
) -> None:
    real = tuple(TopologyHost(one.endpoint, one.port) for one in servers_of(aurora))
    topic = worker.watch(
        writer_of(aurora),
        dialect=DIALECTS[aurora.engine],
        template=aurora.instance_host_pattern,
        seed=Topology(hosts=(*mute_hosts, *real)),
    )
    worker.until_writer(topic, writer_of(aurora))
    worker.until(lambda: len(worker.cluster(topic).health) == 3, "the table to drop the others")


def test_the_membership_is_read_fast_after_the_search_and_then_calmly(worker: Worker, aurora: LocalAurora) -> None:
    topic = watched(worker, aurora, interval=1.0)
    old, new = writer_of(aurora), readers_of(aurora)[0]
    old.kill()
    aurora.failover(new.id, rejoin=False)
    worker.until_writer(topic, new)

    def cluster() -> dict[str, object]:
        found: dict[str, object] = worker.status()["clusters"][0]
        return found

    def listed() -> dict[str, str]:
        return {host.key: host.role for host in worker.cluster(topic).topology.hosts}

    eventually(lambda: cluster()["searching_for"] is None, "the end of the search")
    worker.until(lambda: (listed()[new.key], listed()[old.key]) == ("writer", "reader"), "the table to be read after the promotion")
    # Read again and again, though nobody is due for half a minute; and not a word of it, as nothing has changed.
    seen = len(worker.updates)
    ages = []
    for _ in range(3):
        worker.follow(0.3)
        ages.append(cluster()["membership_age"])
    assert all(isinstance(age, float) and age < 5 for age in ages)
    assert not any(isinstance(update, TopologyUpdate) for _, update in worker.updates[seen:])
