"""A cluster of three: who is the writer, proved by its own session, through everything that may happen to it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from wrapper.monitor.messages import Release

from .harness import Worker
from .servers import Aurora, Server, eventually


def watched(worker: Worker, aurora: Aurora, *servers: Server, **changes: object) -> str:
    topic = worker.watch(*(servers or aurora.servers), dialect="aurora-pg", template=aurora.pattern, **changes)
    worker.until_writer(topic, aurora.writer)
    worker.until(lambda: all(worker.health(topic, one).proved_at for one in aurora.servers), "proofs of all hosts")
    return topic


def sessions(aurora: Aurora) -> int:
    return sum(server.sessions() for server in aurora.servers if server.is_running)


def test_the_membership_is_read_and_every_host_proves_its_role(worker: Worker, aurora: Aurora) -> None:
    # The seed knows one host; the table brings the others.
    topic = worker.watch(aurora.readers[0], dialect="aurora-pg", template=aurora.pattern)
    worker.until(lambda: len(worker.cluster(topic).health) == 3, "the members")
    worker.until_writer(topic, aurora.writer)
    for reader in aurora.readers:
        worker.until(lambda reader=reader: worker.health(topic, reader).role == "reader", "the reader's proof")  # type: ignore[misc]
    assert worker.cluster(topic).topology.member(aurora.writer.key) is not None
    eventually(lambda: sessions(aurora) == len(aurora.servers) + 1, "one session per host and one for the membership")


@pytest.mark.parametrize("drop_sessions", [True, False])
def test_a_killed_writer_is_replaced_by_the_host_that_proves_itself(worker: Worker, aurora: Aurora, drop_sessions: bool) -> None:
    topic = watched(worker, aurora, interval=1.0)
    old, new = aurora.writer, aurora.readers[0]
    old.kill()
    worker.until(lambda: worker.health(topic, old).kind == "refused", "the refusal", timeout=5)
    failed_at = time.monotonic()
    aurora.fail_over(new, drop_sessions=drop_sessions)
    worker.until_writer(topic, new)
    cluster = worker.cluster(topic)
    assert cluster.topology.term == 2
    assert (cluster.writer_proved_at or 0) > failed_at
    eventually(lambda: sessions(aurora) == 3, "two hosts and the membership", timeout=5)
    assert worker.status()["restarts"] == 0


def test_a_failover_without_any_fault_is_seen(worker: Worker, aurora: Aurora) -> None:
    topic = watched(worker, aurora, interval=0.2)
    new = aurora.readers[0]
    # The old writer goes on believing; the new one's claim ranks higher.
    aurora.hang_writer().resume()
    aurora.fail_over(new)
    worker.until_writer(topic, new)


def test_an_old_writer_that_resumes_stays_superseded(worker: Worker, aurora: Aurora) -> None:
    topic = watched(worker, aurora, interval=0.2)
    new = aurora.readers[1]
    old = aurora.hang_writer()
    worker.until(lambda: worker.health(topic, old).silent >= 1, "the writer to fall silent")
    aurora.fail_over(new)
    worker.until_writer(topic, new)
    old.resume()
    worker.until(
        lambda: worker.health(topic, old).role == "writer" and not worker.health(topic, old).is_failing, "its honest claim"
    )
    at = worker.report(topic, old)
    worker.until(lambda: (worker.health(topic, old).proved_at or 0) > at, "another claim")
    assert worker.writer(topic) == new.key
    assert worker.cluster(topic).topology.term == 2
    assert worker.cluster(topic).proved(old.key) is None


def test_a_second_failover_follows_the_first(worker: Worker, aurora: Aurora) -> None:
    topic = watched(worker, aurora, interval=0.2)
    first, second = aurora.readers
    aurora.writer.kill()
    aurora.fail_over(first)
    worker.until_writer(topic, first)
    first.kill()
    aurora.fail_over(second)
    worker.until_writer(topic, second)
    assert worker.cluster(topic).topology.term == 3


def test_a_report_asks_every_host(worker: Worker, aurora: Aurora) -> None:
    topic = watched(worker, aurora, interval=30.0)
    at = worker.report(topic, aurora.writer, "read_only")
    for server in aurora.servers:
        worker.until(lambda server=server: (worker.health(topic, server).proved_at or 0) > at, "a proof after the report")  # type: ignore[misc]
    assert worker.writer(topic) == aurora.writer.key


def test_a_member_that_leaves_is_no_longer_probed(worker: Worker, aurora: Aurora) -> None:
    topic = watched(worker, aurora, interval=0.2)
    gone = aurora.servers.pop()
    aurora.publish()
    worker.report(topic, aurora.writer, "wrong_role")  # brings the refresh forward
    worker.until(lambda: len(worker.cluster(topic).health) == 2, "the membership without it")
    eventually(lambda: gone.sessions() == 0, "its session to be closed")
    gone.stop()


def test_watches_that_prove_to_be_one_cluster_merge(new_worker: Callable[[], Worker], aurora: Aurora) -> None:
    one, other = new_worker(), new_worker()
    # Two aliases whose seeds have no host in common, before any table was read.
    first = one.watch(aurora.readers[0], dialect="aurora-pg", template=aurora.pattern, endpoint="reader.alias")
    second = other.watch(aurora.readers[1], dialect="aurora-pg", template=aurora.pattern, endpoint="other.alias", cluster_id="mine")
    eventually(lambda: len(one.status()["clusters"]) == 1, "the merge")
    topic = one.status()["clusters"][0]["topic"]
    assert topic in (first, second)
    assert len(one.status()["clusters"][0]["watches"]) == 2
    assert one.watch(aurora.readers[0], dialect="aurora-pg", template=aurora.pattern, endpoint="reader.alias") == topic
    one.until_writer(topic, aurora.writer)
    eventually(lambda: sessions(aurora) == 4, "one set of sessions for both")
    one.ask(Release(one.client))
    assert len(other.status()["clusters"][0]["watches"]) == 2


def test_missing_rights_are_named(worker: Worker, aurora: Aurora) -> None:
    for server in aurora.servers:
        if server is aurora.writer:
            server.admin("REVOKE EXECUTE ON FUNCTION pg_catalog.aurora_replica_status() FROM PUBLIC")
    topic = worker.watch(aurora.writer, dialect="aurora-pg", template=aurora.pattern)
    worker.until(lambda: "grant EXECUTE on" in worker.health(topic, aurora.writer).detail, "the missing right")
    health = worker.health(topic, aurora.writer)
    assert health.kind == "answered"
    assert health.proved_at is None
    aurora.writer.admin("GRANT EXECUTE ON FUNCTION pg_catalog.aurora_replica_status() TO PUBLIC")
    worker.until(lambda: worker.writer(topic) == aurora.writer.key, "the proof once the right is there")
