"""The pure rules of the monitor against the cases in tests/spec/monitor, and against properties that must always hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from monitor_service import cadence, topology
from monitor_service.credentials import CredentialBook, fingerprint
from monitor_service.evidence import Probe, is_due, is_own_trouble, judge, void
from monitor_service.options import Limits
from monitor_service.registry import Registry
from wrapper.decisions.panic import PANIC_LONGEST, PANIC_SHORTEST, panic_pause
from wrapper.decisions.verdict import Sensitivity, is_down, probe_timeout
from wrapper.dialects import RoleAnswer
from wrapper.hosts import HostRole, split_host_key
from wrapper.monitor.messages import Client, Offer, Watch, WatchRequest
from wrapper.monitor.messages import Settings as WatchSettings
from wrapper.monitor.state import ANSWERED, OURS, REFUSED, SILENT, HostHealth, Topology, TopologyHost

SPEC = Path(__file__).parent.parent / "spec" / "monitor"


def cases(name: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in json.loads((SPEC / name).read_text())]


def member(key: str, role: str = "unknown") -> TopologyHost:
    host, port = split_host_key(key)
    return TopologyHost(host, port, role=role, region=host.rpartition("/")[0])


def make_probe(spec: dict[str, Any], now: float) -> Probe:
    role = spec.get("role")
    return Probe(
        started=spec.get("started", now - 0.001),
        ended=spec.get("ended", now),
        kind=spec["kind"],
        accepting=spec.get("accepting", role is not None),
        answer=None if role is None else RoleAnswer(HostRole.parse(role), spec.get("rank", 0.0)),
        detail=spec.get("detail", ""),
    )


@pytest.mark.parametrize("case", cases("evidence.json"))
def test_evidence(case: dict[str, Any]) -> None:
    health = published = HostHealth(key="a:1")
    for number, step in enumerate(case["steps"], 1):
        health = judge(health, make_probe(step["probe"], step["probe"]["ended"]), 1.0)
        for name, value in step.get("expect", {}).items():
            assert getattr(health, name) == value, f"step {number}: {name}"
        due = is_due(published, health, hinted_at=case.get("hinted_at"), searching=False)
        if "due" in step:
            assert due is step["due"], f"step {number}: due"
        if due:
            published = health


@pytest.mark.parametrize("case", cases("topology.json"))
def test_topology(case: dict[str, Any]) -> None:
    members = tuple(member(key) for key in case["hosts"])
    view = topology.start(Topology(), members, case.get("topology_aware", True), 0.0)
    for number, step in enumerate(case["steps"], 1):
        now = step["at"]
        if "probe" in step:
            health = judge(view.health[step["probe"]["host"]], make_probe(step["probe"], now), 1.0)
            view, _ = topology.on_probe(view, health, now, now)
        elif "table" in step:
            listed = tuple(member(key, role) for key, role in step["table"]["hosts"].items())
            elsewhere = tuple(member(key, role) for key, role in step["table"].get("elsewhere", {}).items())
            view, _ = topology.on_table(view, listed, step["table"]["from"], now, elsewhere)
        elif "report" in step:
            report = step["report"]
            view, _ = topology.on_report(view, report["host"], report["error"], report["at"], now)
        else:
            view = topology.on_pause(view, now)
        seen = {
            "writer": view.writer.writer,
            "published": view.topology.writer,
            "term": view.writer.term,
            "conflict": list(view.writer.conflict),
            "searching": view.searching_since is not None,
            "members": [host.key for host in view.hosts],
            "failing": [key for key, health in view.health.items() if health.is_failing],
        }
        for name, value in step.get("expect", {}).items():
            assert seen[name] == value, f"step {number}: {name}"


# -- properties ----------------------------------------------------------------------------------------------------------------

HOSTS = ("a:1", "b:1", "c:1")
probes = st.builds(
    lambda host, kind, role, rank: (host, kind, role, float(rank)),
    st.sampled_from(HOSTS),
    st.sampled_from((ANSWERED, ANSWERED, SILENT, REFUSED, OURS)),
    st.sampled_from(("writer", "reader", "unknown")),
    st.integers(1, 6),
)


@given(st.lists(probes, max_size=40))
def test_only_a_hosts_own_proof_moves_the_writer_and_never_to_a_lower_rank(history: list[tuple[str, str, str, float]]) -> None:
    view = topology.start(Topology(), tuple(member(key) for key in HOSTS), True, 0.0)
    for now, (host, kind, role, rank) in enumerate(history, 1):
        before = view
        probe = make_probe({"kind": kind, **({"role": role, "rank": rank} if kind == ANSWERED else {})}, float(now))
        view, _ = topology.on_probe(view, judge(view.health[host], probe, 1.0), float(now), float(now))
        if view.writer.term != before.writer.term:
            assert view.writer.writer is not None
            claim = view.health[view.writer.writer]
            assert claim.role == "writer"
            assert claim.rank >= before.writer.rank
        assert (view.writer.writer is None) <= (view.searching_since is not None)


@given(st.lists(st.sampled_from((ANSWERED, SILENT, REFUSED, OURS)), max_size=30), st.floats(0.05, 5.0))
def test_a_verdict_needs_silent_probes_in_a_row(kinds: list[str], interval: float) -> None:
    health = HostHealth(key="a:1")
    now = 0.0
    row = 0
    for kind in kinds:
        started, now = now, now + (probe_timeout(interval) if kind == SILENT else 0.001)
        health = judge(health, Probe(started, now, kind, accepting=True), interval)
        row = row + 1 if kind == SILENT else row if kind == OURS else 0
        assert health.silent == row
        assert not is_down(health, Sensitivity(interval, 3)) or row >= 3
    assert not void(health).is_failing


@given(st.floats(0, 1e6), st.floats(0, 0.999))
def test_a_search_is_quick_at_first_and_bounded_for_ever(outage: float, chance: float) -> None:
    seconds = panic_pause(outage, chance)
    assert PANIC_SHORTEST * 0.75 <= seconds <= PANIC_LONGEST * 1.25


@given(
    st.sampled_from((ANSWERED, REFUSED, OURS)),
    st.floats(0.02, 60),
    st.booleans(),
    st.none() | st.floats(0, 1e4),
    st.floats(0, 0.999),
)
def test_connects_are_never_closer_than_their_pause(
    kind: str, interval: float, slow: bool, outage: float | None, chance: float
) -> None:
    assert (
        cadence.pause(kind, interval, has_session=False, slow=slow, failing_for=0, outage=outage, chance=chance)
        >= cadence.CONNECT_PAUSE
    )


def test_a_silent_host_is_asked_again_at_once() -> None:
    assert cadence.pause(SILENT, 1.0, has_session=False, slow=False, failing_for=5, outage=None, chance=0.5) == 0.0


def test_worst_case_detection_follows_from_interval_and_timeout() -> None:
    # Phase, then three probes back to back: the bound in the documentation.
    for interval, bound in ((1.0, 2.8), (0.1, 0.28)):
        longest_rest = cadence.pause(ANSWERED, interval, has_session=True, slow=False, failing_for=0, outage=None, chance=1.0)
        assert longest_rest + 3 * probe_timeout(interval) <= bound + 1e-9


def silent_host(since: float, silent: int = 1) -> HostHealth:
    return HostHealth(key="x:1", failing_since=since, failed_at=since + 0.6, failures=silent, silent=silent, kind=SILENT)


def test_silence_of_everything_is_our_own_trouble_only_if_it_began_together() -> None:
    one, other = silent_host(10.0), silent_host(10.7)
    assert is_own_trouble([[one], [other]])
    assert not is_own_trouble([[one, other]]), "one cluster alone proves nothing"
    assert not is_own_trouble([[one], [replace(other, failing_since=60.0)]]), "an old outage and a new one"
    assert not is_own_trouble([[one], [other], [HostHealth(key="y:1", last_answer=1.0, kind=ANSWERED)]]), "another cluster answers"


def test_during_a_search_a_writers_word_goes_out_at_once_and_a_readers_now_and_then() -> None:
    for role, due in ((HostRole.WRITER, [True, True, True]), (HostRole.READER, [False, False, True])):
        published = HostHealth("a:1", kind=ANSWERED, role=role.value, proved_at=10.0)
        proofs = [replace(published, proved_at=at) for at in (10.01, 10.05, 10.11)]
        assert [is_due(published, proof, hinted_at=None, searching=True) for proof in proofs] == due
        assert not any(is_due(published, proof, hinted_at=None, searching=False) for proof in proofs)
        assert is_due(published, proofs[0], hinted_at=10.0, searching=False)


# -- the search for a lost writer ----------------------------------------------------------------------------------------------

PAIR = (TopologyHost("a", 1), TopologyHost("b", 1))


def answered(view: topology.View, key: str, role: HostRole, rank: float, now: float) -> topology.View:
    probe = Probe(now - 0.001, now, ANSWERED, accepting=True, answer=RoleAnswer(role, rank))
    return topology.on_probe(view, judge(view.health[key], probe, 1.0), now, now)[0]


def refused(view: topology.View, key: str, now: float) -> topology.View:
    return topology.on_probe(view, judge(view.health[key], Probe(now - 0.001, now, REFUSED), 1.0), now, now)[0]


def test_after_a_lost_writer_it_stays_fast_for_longer_than_after_a_false_alarm() -> None:
    view = topology.start(Topology(), PAIR, True, 0.0)
    view = answered(answered(view, "b:1", HostRole.READER, 0.0, 1.0), "a:1", HostRole.WRITER, 1.0, 1.0)
    assert view.outage(1.0) is None
    assert view.fast_until == 1.0 + topology.FAST_AFTER_ALARM
    doubted, _ = topology.on_report(view, "a:1", "read_only", 10.0, 10.0)
    assert doubted.outage(10.5) == 0.5
    cleared = answered(doubted, "a:1", HostRole.WRITER, 1.0, 11.0)
    assert (cleared.outage(11.0), cleared.fast_until) == (None, 11.0 + topology.FAST_AFTER_ALARM)
    lost = refused(cleared, "a:1", 20.0)
    assert lost.outage(21.0) == 1.0
    found = answered(lost, "b:1", HostRole.WRITER, 2.0, 22.0)
    assert (found.writer.writer, found.outage(22.0)) == ("b:1", None)
    assert found.fast_until == 22.0 + topology.FAST_AFTER_CHANGE


def test_another_hosts_word_ends_no_search() -> None:
    view = topology.start(Topology(), PAIR, True, 0.0)
    view = answered(answered(view, "b:1", HostRole.READER, 0.0, 1.0), "a:1", HostRole.WRITER, 1.0, 1.0)
    lost = refused(view, "a:1", 2.0)
    listed = tuple(replace(host, role="writer" if host.host == "b" else "reader") for host in PAIR)
    told, _ = topology.on_table(lost, listed, "b:1", 3.0)
    assert told.outage(3.0) == 1.0
    assert told.writer.writer != "b:1"
    # Nor its own claim, when it ranks below the one that was accepted.
    assert answered(told, "b:1", HostRole.WRITER, 0.5, 4.0).outage(4.0) == 2.0


@pytest.mark.parametrize("slow", [True, False])
def test_calm_hosts_are_asked_at_their_interval_again(slow: bool) -> None:
    during, after = (
        cadence.pause(ANSWERED, 30.0, has_session=not slow, slow=slow, failing_for=0, outage=outage, chance=0.5)
        for outage in (1.0, None)
    )
    assert during <= cadence.CONNECT_PAUSE
    assert after >= 27.0


def test_a_login_that_works_elsewhere_is_tried_at_once_when_a_search_begins() -> None:
    offer = Offer({"user": "app"})
    book, key = CredentialBook(), fingerprint(offer)
    book.replace([offer])
    book.accepted(key, "a")
    for now in range(8):
        book.refused(key, "b", float(now))
    assert book.pick("b", 8.0, 0.0) is None
    assert book.pick("c", 8.0, 0.0) is not None, "the other hosts are not to blame"
    book.forgive()
    assert book.pick("b", 8.0, 0.0) is not None
    for at in (8.0, 9.0, 10.0):
        book.refused(key, "b", at, outage=at - 8.0)
        assert book.pick("b", at + cadence.LOGIN_RETRY / 2, 0.0) is None
        assert book.pick("b", at + cadence.LOGIN_RETRY, 0.0) is not None
    never = Offer({"user": "wrong"})
    book.replace([never])
    for now in range(8):
        book.refused(fingerprint(never), "b", float(now), outage=float(now))
    book.forgive()
    assert book.pick("c", 20.0, 0.0) is None, "one that has never worked gets no haste"


# One client, another one that claims to be it, and one more.
_HOLDERS = [("uid 1", Client(1, 1, "t")), ("uid 2", Client(1, 1, "t")), ("uid 1", Client(2, 1, "t"))]
_KEYS = ["a", "b"]
_TOPICS = ["x/", "y/", "z/"]
_STEPS = st.one_of(
    st.tuples(st.just("watch"), st.sampled_from(_HOLDERS), st.sampled_from(_KEYS), st.sampled_from(_TOPICS)),
    st.tuples(st.just("release"), st.sampled_from(_HOLDERS)),
    st.tuples(st.just("move"), st.sampled_from(_TOPICS), st.sampled_from(_TOPICS)),
    st.tuples(st.just("lapse"), st.integers(0, 40)),
)


@given(st.lists(_STEPS, max_size=25))
def test_a_cluster_finds_the_watches_that_lead_to_it(steps: list[tuple[Any, ...]]) -> None:
    registry = Registry(10.0, Limits())
    for number, step in enumerate(steps):
        if step[0] == "watch":
            _, (owner, client), key, topic = step
            watch = Watch("postgresql", key, 5432)
            request = WatchRequest(client, watch, "pg", "psycopg", WatchSettings(), Topology(), Offer({"user": str(number)}))
            registry.watch(owner, request, topic, b"", float(number))
        elif step[0] == "release":
            registry.release(*step[1])
        elif step[0] == "move" and step[1] != step[2]:
            registry.move(step[1], step[2])
        elif step[0] == "lapse":
            registry.lapse(float(step[1]))
    held = [(lease, interest) for lease in registry.leases.values() for interest in lease.interests.values()]
    for topic in _TOPICS:
        expected = sorted((one for _, one in held if one.topic == topic), key=lambda one: -one.order)
        assert registry.requests(topic) == [one.request for one in expected]
        leases = {id(lease) for lease in registry.leases_of(topic)}
        assert leases == {id(lease) for lease, one in held if one.topic == topic}
