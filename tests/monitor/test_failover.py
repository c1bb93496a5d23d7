"""A cluster of three: who is the writer, proved by its own session, through everything that may happen to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from wrapper.monitor.state import Topology, TopologyHost
from wrapper.testing import LocalAurora

from .harness import Worker
from .servers import Server, eventually, readers_of, servers_of, writer_of

# First of all fixtures: the monitor must inherit an environment in which the lab's names resolve.
pytestmark = pytest.mark.usefixtures("aurora")


@pytest.fixture(params=["aurora", "aurora_mysql"], ids=["postgresql", "mysql"])
def aurora(request: pytest.FixtureRequest) -> LocalAurora:
    lab: LocalAurora = request.getfixturevalue(request.param)
    return lab


DIALECTS = {"postgresql": "aurora-pg", "mysql": "aurora-mysql"}
# What the role query needs, who has it, and what names it when it is missing.
RIGHTS = {
    "postgresql": ("EXECUTE ON FUNCTION pg_catalog.aurora_replica_status()", "PUBLIC", "grant EXECUTE on"),
    "mysql": ("SELECT ON mysql.replica_host_status", "app@'%'", "SELECT command denied"),
}


def watched(worker: Worker, lab: LocalAurora, **changes: object) -> str:
    servers = servers_of(lab)
    topic = worker.watch(*servers, dialect=DIALECTS[lab.engine], template=lab.instance_host_pattern, **changes)
    worker.until_writer(topic, writer_of(lab))
    worker.until(lambda: all(worker.health(topic, one).proved_at for one in servers), "proofs of all hosts")
    return topic


def sessions(servers: Iterable[Server]) -> int:
    return sum(server.sessions() for server in servers)


def until_proved(worker: Worker, topic: str, server: Server, after: float) -> None:
    worker.until(lambda: (worker.health(topic, server).proved_at or 0) > after, f"a younger proof of {server.key}")


def test_the_membership_is_read_and_every_host_proves_its_role(worker: Worker, aurora: LocalAurora) -> None:
    # The seed knows one host; the table brings the others.
    topic = worker.watch(readers_of(aurora)[0], dialect=DIALECTS[aurora.engine], template=aurora.instance_host_pattern)
    worker.until(lambda: len(worker.cluster(topic).health) == 3, "the members")
    worker.until_writer(topic, writer_of(aurora))
    for reader in readers_of(aurora):
        worker.until(lambda reader=reader: worker.health(topic, reader).role == "reader", "the reader's proof")  # type: ignore[misc]
    assert {host.id for host in worker.cluster(topic).topology.hosts} == {one.id for one in aurora.instances}
    eventually(lambda: sessions(servers_of(aurora)) == 4, "one session per host and one for the membership")


def test_between_two_questions_no_transaction_is_open(worker: Worker, aurora: LocalAurora) -> None:
    """An open one would hold back the clean-up of old rows on the whole cluster."""
    watched(worker, aurora, interval=30.0)
    in_transaction = {
        "postgresql": "SELECT state FROM pg_stat_activity WHERE application_name = 'aws-shared-monitor' AND xact_start IS NOT NULL",
        "mysql": "SELECT trx_state FROM information_schema.innodb_trx",
    }
    for server in servers_of(aurora):
        assert server.sessions() > 0
        eventually(lambda server=server: server.admin(in_transaction[aurora.engine]) == [], "no open transaction")  # type: ignore[misc]


@pytest.mark.parametrize("drop_sessions", [True, False])
def test_a_killed_writer_is_replaced_by_the_host_that_proves_itself(
    worker: Worker, aurora: LocalAurora, drop_sessions: bool
) -> None:
    topic = watched(worker, aurora, interval=1.0)
    old, new = writer_of(aurora), readers_of(aurora)[0]
    old.kill()
    worker.until(lambda: worker.health(topic, old).kind == "refused", "the refusal")
    failed_at = time.monotonic()
    aurora.failover(new.id, drop_sessions=drop_sessions, rejoin=False)
    worker.until_writer(topic, new)
    cluster = worker.cluster(topic)
    assert cluster.topology.term == 2
    assert (cluster.writer_proved_at or 0) > failed_at
    eventually(lambda: sessions(one for one in servers_of(aurora) if one != old) == 3, "two hosts and the membership")
    assert worker.status()["restarts"] == 0
    old.start()
    worker.until(lambda: worker.health(topic, old).role == "reader", "the old writer to come back as a reader")
    assert worker.writer(topic) == new.key
    eventually(lambda: sessions(servers_of(aurora)) == 4, "three hosts and the membership")


def test_a_failover_without_a_fault_is_followed(worker: Worker, aurora: LocalAurora) -> None:
    topic = watched(worker, aurora, interval=30.0)
    old, new = writer_of(aurora), readers_of(aurora)[0]
    aurora.failover(new.id)
    worker.until_writer(topic, new)
    worker.until(lambda: worker.health(topic, old).role == "reader", "the demoted writer's own word")


def test_an_old_writer_that_resumes_stays_superseded(worker: Worker, aurora: LocalAurora) -> None:
    topic = watched(worker, aurora, interval=0.2)
    old, new = writer_of(aurora), readers_of(aurora)[1]
    old.hang()
    worker.until(lambda: worker.health(topic, old).silent >= 1, "the writer to fall silent")
    aurora.failover(new.id)
    worker.until_writer(topic, new)
    old.resume()
    worker.until(
        lambda: worker.health(topic, old).role == "writer" and not worker.health(topic, old).is_failing, "its honest claim"
    )
    until_proved(worker, topic, old, after=worker.report(topic, old))
    assert worker.writer(topic) == new.key
    assert worker.cluster(topic).topology.term == 2
    assert worker.cluster(topic).proved(old.key) is None


def test_a_second_failover_follows_the_first(worker: Worker, aurora: LocalAurora) -> None:
    topic = watched(worker, aurora, interval=0.2)
    for term, target in enumerate(readers_of(aurora), 2):
        writer_of(aurora).kill()
        aurora.failover(target.id)
        worker.until_writer(topic, target)
        assert worker.cluster(topic).topology.term == term


def test_a_writer_that_restarts_in_place_is_proved_again(worker: Worker, aurora: LocalAurora) -> None:
    topic = watched(worker, aurora, interval=30.0)
    writer = writer_of(aurora)
    writer.kill()
    killed_at = time.monotonic()
    writer.start()
    # As a worker does whose connection was reset. Without, a restart that no probe met would be no news.
    worker.report(topic, writer)
    worker.until(lambda: worker.writer(topic) == writer.key, "the writer")
    until_proved(worker, topic, writer, after=killed_at)
    assert worker.cluster(topic).topology.term == 1


def test_a_report_asks_every_host(worker: Worker, aurora: LocalAurora) -> None:
    topic = watched(worker, aurora, interval=30.0)
    at = worker.report(topic, writer_of(aurora), "read_only")
    for server in servers_of(aurora):
        until_proved(worker, topic, server, after=at)
    assert worker.writer(topic) == writer_of(aurora).key


def test_a_host_that_the_table_does_not_list_is_dropped(worker: Worker, aurora: LocalAurora) -> None:
    left = TopologyHost("deleted.example", aurora.port)
    seed = Topology(hosts=(left, TopologyHost(writer_of(aurora).endpoint, aurora.port)))
    topic = worker.watch(writer_of(aurora), dialect=DIALECTS[aurora.engine], template=aurora.instance_host_pattern, seed=seed)
    worker.until(lambda: len(worker.cluster(topic).health) == 3, "the members")
    assert left.key not in worker.cluster(topic).health
    assert not any(left.key in actor["name"] for actor in worker.status()["actors"])


def test_watches_that_prove_to_be_one_cluster_merge(new_worker: Callable[[], Worker], aurora: LocalAurora) -> None:
    one, other = new_worker(), new_worker()
    pattern = aurora.instance_host_pattern
    left, right = readers_of(aurora)
    # Two aliases whose seeds have no host in common, before any table was read.
    first = one.watch(left, dialect=DIALECTS[aurora.engine], template=pattern, endpoint="reader.alias")
    second = other.watch(right, dialect=DIALECTS[aurora.engine], template=pattern, endpoint="other.alias", cluster_id="mine")
    eventually(lambda: len(one.status()["clusters"]) == 1, "the merge")
    topic = one.status()["clusters"][0]["topic"]
    assert topic in (first, second)
    assert len(one.status()["clusters"][0]["watches"]) == 2
    assert one.watch(left, dialect=DIALECTS[aurora.engine], template=pattern, endpoint="reader.alias") == topic
    one.until_writer(topic, writer_of(aurora))
    eventually(lambda: sessions(servers_of(aurora)) == 4, "one set of sessions for both")


def test_missing_rights_are_named(worker: Worker, aurora: LocalAurora) -> None:
    writer = writer_of(aurora)
    right, who, named = RIGHTS[aurora.engine]
    writer.admin(f"REVOKE {right} FROM {who}")
    try:
        topic = worker.watch(writer, dialect=DIALECTS[aurora.engine], template=aurora.instance_host_pattern)
        worker.until(lambda: named in worker.health(topic, writer).detail, "the missing right")
        health = worker.health(topic, writer)
        assert health.kind == "answered"
        assert health.proved_at is None
        assert worker.status()["clusters"][0]["probe_sessions"] >= 1, "a missing right is no fault of the session"
    finally:
        writer.admin(f"GRANT {right} TO {who}")
    worker.until(lambda: worker.writer(topic) == writer.key, "the proof once the right is there")


def test_refused_logins_leave_the_host_alive(worker: Worker, aurora: LocalAurora) -> None:
    topic = watched(worker, aurora, interval=0.2)
    reader = readers_of(aurora)[0]
    aurora.refuse_logins(reader.id)
    reader.drop_sessions()
    worker.until(lambda: not worker.health(topic, reader).accepting, "the refused login")
    assert not worker.health(topic, reader).is_failing
    aurora.refuse_logins(reader.id, False)
    worker.until(lambda: worker.health(topic, reader).accepting, "the login")


def test_two_clusters_that_fall_silent_together_are_our_own_trouble(worker: Worker, aurora: LocalAurora, server: Server) -> None:
    topic = watched(worker, aurora, interval=0.8)
    lone = worker.watch(server, interval=0.8)
    worker.snapshot(*worker.cluster(topic).watches, *worker.cluster(lone).watches)
    worker.until(lambda: worker.writer(lone), "the other cluster")
    everything = [server, *servers_of(aurora)]
    with ThreadPoolExecutor() as together:
        list(together.map(Server.hang, everything))
    worker.until(lambda: worker.events_named("OWN TROUBLE"), "the monitor to suspect itself")
    worker.follow(1.0)
    assert worker.events_named("DOWN?") == []
    # One of them answers again: now the others' silence is theirs.
    server.resume()
    worker.until(lambda: worker.health(topic, writer_of(aurora)).silent >= 3, "the evidence against the cluster")
    for one in everything:
        one.resume()
