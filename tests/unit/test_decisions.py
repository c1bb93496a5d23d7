"""The pure decisions, by the case files in tests/spec and by properties."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrapper.decisions.admission import Bounds, admission_delay
from wrapper.decisions.failover import Attempt, FailoverMode, GiveUp, Plan, Policy, Wait, next_step
from wrapper.decisions.verdict import Sensitivity, covers, is_down, is_in_doubt, is_path_alive
from wrapper.decisions.writer import Claim, WriterState, consider
from wrapper.monitor.state import ClusterState, HostHealth, Topology, TopologyHost

SPEC = Path(__file__).parents[1] / "spec"


def cases(name: str) -> list[Any]:
    document = json.loads((SPEC / f"{name}.json").read_text())
    return [pytest.param(case, id=case["name"]) for case in document["cases"]]


@pytest.mark.parametrize("case", cases("verdicts"))
def test_verdict(case: dict[str, Any]) -> None:
    evidence = HostHealth("a:1", **case["evidence"])
    sensitivity = Sensitivity(case["interval"], case["count"])
    assert is_down(evidence, sensitivity, superseded=case.get("superseded", False)) is case["down"]


def test_evidence_is_about_connections_that_are_older_than_the_failing_run() -> None:
    evidence = HostHealth("a:1", failing_since=10.0)
    assert covers(evidence, opened_at=9.9)
    assert not covers(evidence, opened_at=10.1)
    assert is_path_alive(evidence, last_received=10.2)
    assert not is_path_alive(evidence, last_received=9.0)


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        (HostHealth("a:1"), False),
        (HostHealth("a:1", failed_before=4.9), False),
        (HostHealth("a:1", failed_before=5.1), True),
        (HostHealth("a:1", failing_since=4.0, failed_at=4.9), True),
        (None, True),
    ],
    ids=["it is well", "it failed before", "it failed and is back", "it is failing", "it has left"],
)
def test_a_connection_is_looked_at_when_its_host_was_in_trouble(evidence: HostHealth | None, expected: bool) -> None:
    assert is_in_doubt(evidence, opened_at=5.0) is expected


@pytest.mark.parametrize("case", cases("writers"))
def test_writer(case: dict[str, Any]) -> None:
    state = WriterState()
    for step in case["steps"]:
        claims = [Claim(key, float(rank), live=not dead, region=key.rpartition("/")[0]) for key, rank, *dead in step["claims"]]
        state = consider(state, claims, step.get("readers", ()))
        assert (state.writer, state.term) == (step["writer"], step["term"]), step
        assert list(state.conflict) == step.get("conflict", []), step


claims_strategy = st.lists(
    st.builds(Claim, key=st.sampled_from("abc"), rank=st.integers(0, 5).map(float), live=st.booleans()),
    max_size=3,
    unique_by=lambda claim: claim.key,
)


@given(st.lists(claims_strategy, max_size=12))
def test_the_accepted_rank_never_falls_and_a_term_is_never_reused(history: list[list[Claim]]) -> None:
    state = WriterState()
    seen: dict[int, str] = {}
    for claims in history:
        after = consider(state, claims)
        assert after.rank >= state.rank
        assert after.term in (state.term, state.term + 1)
        if after.writer is not None:
            assert seen.setdefault(after.term, after.writer) == after.writer
            assert not after.conflict
        state = after


class Member(TopologyHost, frozen=True):
    """Of which the key is the name alone."""

    @property
    def key(self) -> str:
        return self.host


def cluster_of(case: dict[str, Any]) -> ClusterState:
    """A host is called by a letter; in a Global Database, by its region and a letter."""
    health = {key: HostHealth(key, role=role, proved_at=at) for key, (role, at) in case["hosts"].items()}
    hosts = tuple(Member(key, 1, region=key.rpartition("/")[0]) for key in case["hosts"])
    elsewhere = tuple(Member(key, 1, role=role, region=key.rpartition("/")[0]) for key, role in case.get("elsewhere", {}).items())
    topology = Topology(hosts=hosts, writer=case["writer"], elsewhere=elsewhere)
    return ClusterState("t", topology=topology, health=health)


def policy_of(case: dict[str, Any]) -> Policy:
    if "mode" in case:
        return Policy.always(FailoverMode(case["mode"]))
    return Policy(FailoverMode(case["active"]), FailoverMode(case["inactive"]), case["home"])


@pytest.mark.parametrize("case", [*cases("failover"), *cases("global_failover")])
def test_failover_step(case: dict[str, Any]) -> None:
    plan = Plan(policy_of(case), since=100.0, started=100.0, deadline=110.0, attempts=case.get("attempts", {}))
    step = next_step(plan, [cluster_of(case)], case["now"])
    if case["step"] == "attempt":
        assert isinstance(step, Attempt)
        assert sorted(candidate.key for candidate in step.candidates) == case["hosts_out"]
    elif case["step"] == "give_up":
        assert isinstance(step, GiveUp)
        assert case.get("reason", "a") in step.reason
    else:
        assert isinstance(step, Wait)
        assert step.search is (case["step"] == "search")
        # Whoever waits does not go round in circles, and misses nothing meanwhile.
        assert step.until > case["now"]
        just_before = next_step(plan, [cluster_of(case)], math.nextafter(step.until, 0.0))
        assert just_before == step


def test_the_newest_of_two_views_wins() -> None:
    old = cluster_of({"writer": "a", "hosts": {"a": ["writer", 99.0]}})
    new = cluster_of({"writer": "b", "hosts": {"b": ["writer", 100.5]}})
    plan = Plan(Policy.always(FailoverMode.STRICT_WRITER), since=100.0, started=100.0, deadline=110.0)
    step = next_step(plan, [old, new], 100.6)
    assert isinstance(step, Attempt)
    assert step.candidates[0].key == "b"


bounds_strategy = st.builds(Bounds, st.integers(0, 500), st.floats(0, 10_000), st.floats(0, 60))
draws = st.floats(0, 1, exclude_max=True)


@given(st.integers(0, 100_000), draws, bounds_strategy, st.floats(0, 100))
def test_nobody_waits_longer_than_allowed_and_who_comes_late_waits_less(
    expected: int, draw: float, bounds: Bounds, elapsed: float
) -> None:
    delay = admission_delay(expected, draw, bounds)
    assert 0.0 <= delay <= bounds.longest + 1e-6
    assert admission_delay(expected, draw, bounds, elapsed) == pytest.approx(max(0.0, delay - elapsed), abs=2e-6)


@given(st.integers(1, 3000), st.integers(1, 100), st.integers(10, 1000))
def test_a_few_connect_at_once_and_the_others_at_the_rate(expected: int, burst: int, rate: int) -> None:
    bounds = Bounds(burst, rate, longest=1e9)
    delays = sorted(admission_delay(expected, place / expected, bounds) for place in range(expected))
    assert sum(delay == 0.0 for delay in delays) == min(expected, burst + 1)
    waiting = delays[burst:]
    assert all(later - earlier == pytest.approx(1 / rate, abs=1e-5) for earlier, later in pairwise(waiting))


@given(st.integers(0, 100_000), draws)
def test_the_rate_can_be_unlimited(expected: int, draw: float) -> None:
    assert admission_delay(expected, draw, Bounds(rate=0)) == 0.0
