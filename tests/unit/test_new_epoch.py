"""What a worker keeps of an earlier monitor's words while the next one has proved nothing yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrapper.monitor.state import (
    ClusterState,
    ClusterUpdate,
    HealthUpdate,
    HostHealth,
    SharedState,
    Topology,
    TopologyHost,
    TopologyUpdate,
    Update,
    adopt,
    apply,
)

CASES = json.loads((Path(__file__).parents[1] / "spec" / "inherited.json").read_text())["cases"]


def key(name: str | None) -> str | None:
    return None if name is None else f"{name}:1"


def health(name: str, role: str = "unknown", proved_at: float | None = None) -> HostHealth:
    return HostHealth(f"{name}:1", role=role, proved_at=proved_at)


def topology(said: dict[str, Any], hosts: tuple[TopologyHost, ...] = ()) -> Topology:
    conflict = tuple(f"{name}:1" for name in said.get("conflict", ()))
    return Topology(hosts, key(said.get("writer")), said.get("term", 0), conflict=conflict)


def cluster(topic: str, said: dict[str, Any]) -> ClusterState:
    hosts = tuple(TopologyHost(name, 1) for name in said["hosts"])
    evidence = [health(name, *proof) for name, proof in said["hosts"].items()]
    return ClusterState(topic, watches=("w",), topology=topology(said, hosts), health={one.key: one for one in evidence})


def update(said: dict[str, Any], last: ClusterState) -> Update:
    if "health" in said:
        return HealthUpdate(health(*said["health"]))
    if "cluster" in said:
        return ClusterUpdate(cluster("2.1", said["cluster"]))
    return TopologyUpdate(topology(said, last.topology.hosts))


def followed(case: dict[str, Any]) -> SharedState:
    return adopt(SharedState(), 1, (cluster("1.1", case["known"]),), {"1.1": 7})


@pytest.mark.parametrize("first", ["snapshot", "empty snapshot", "update"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_what_is_kept(case: dict[str, Any], first: str) -> None:
    state, seq = followed(case), 0
    said = cluster("2.1", case["snapshot"])
    if first != "snapshot":
        # Asked before it was told of the watch, the new monitor knows nothing at all.
        state = adopt(state, 2, (), {})
        assert state.by_watch("w") == followed(case).by_watch("w")
    if first == "update":
        state, seq = apply(state, 2, "2.1", 1, ClusterUpdate(said)), 1
    else:
        state = adopt(state, 2, (said,), {"2.1": 0})
    for step in case.get("then", ()):
        seq += 1
        state = apply(state, 2, "2.1", seq, update(step, said))
    if first == "update":
        state = adopt(state, 2, (state.clusters["2.1"],), {"2.1": seq})
    now = state.by_watch("w")
    assert now is not None
    assert now.topic == "2.1"
    assert now.topology.writer == key(case["writer"])
    for name, proved_at in case.get("proved", {}).items():
        assert now.health[f"{name}:1"].proved_at == proved_at


def test_a_failing_run_is_not_kept() -> None:
    failing = HostHealth("a:1", role="writer", proved_at=5.0, failing_since=6.0, failed_at=7.0, failures=3, silent=3, kind="silent")
    known = ClusterState("1.1", watches=("w",), topology=Topology(writer="a:1", term=1), health={"a:1": failing})
    state = adopt(SharedState(), 1, (known,), {"1.1": 1})
    state = adopt(state, 2, (cluster("2.1", {"hosts": {"a": []}}),), {"2.1": 1})
    assert state.clusters["2.1"].health["a:1"] == HostHealth("a:1", role="writer", proved_at=5.0, failed_before=7.0)


def test_another_cluster_behind_the_same_endpoint_inherits_nothing() -> None:
    state = followed({"known": {"writer": "a", "term": 1, "hosts": {"a": ["writer", 5]}}})
    state = adopt(state, 2, (cluster("2.1", {"hosts": {"x": [], "y": []}}),), {"2.1": 1})
    assert state.clusters == {"2.1": cluster("2.1", {"hosts": {"x": [], "y": []}})}


roles = st.sampled_from(["writer", "reader"])
proofs: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.sampled_from("abc"), st.one_of(st.just([]), st.tuples(roles, st.floats(10, 20))), min_size=1
)


@given(st.sampled_from("abc"), proofs, st.integers(0, 2))
def test_a_new_monitor_is_never_contradicted(old: str, hosts: dict[str, Any], term: int) -> None:
    """Whatever a monitor has proved itself, it says; and a writer that it does not name is only ever the last one known."""
    claims = [name for name, proof in hosts.items() if proof and proof[0] == "writer"]
    said = {"writer": claims[0] if term and claims else None, "term": term, "hosts": hosts}
    state = followed({"known": {"writer": old, "term": 1, "hosts": {name: ["reader", 5] for name in "abc"} | {old: ["writer", 5]}}})
    now = adopt(state, 2, (cluster("2.1", said),), {"2.1": 1}).clusters["2.1"]
    assert now.health.keys() == {f"{name}:1" for name in hosts}
    for name, proof in hosts.items():
        if proof:
            assert now.health[f"{name}:1"] == health(name, *proof)
    if term:
        assert now.topology == topology(said, now.topology.hosts)
    else:
        assert now.topology.writer in (None, key(old))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (HostHealth("a:1", failed_before=3.0), HostHealth("a:1"), 3.0),
        (HostHealth("a:1", failing_since=3.5, failed_at=4.0, failed_before=3.0), HostHealth("a:1"), 4.0),
        (HostHealth("a:1", failed_before=3.0), HostHealth("a:1", failed_before=5.0), 5.0),
        (HostHealth("a:1"), HostHealth("a:1"), None),
        # A run that goes on needs no past: its own end will be later.
        (HostHealth("a:1", failed_before=3.0), HostHealth("a:1", failing_since=5.0, failed_at=5.1), None),
    ],
)
def test_that_a_host_has_failed_is_not_forgotten(old: HostHealth, new: HostHealth, expected: float | None) -> None:
    known = adopt(SharedState(), 1, (ClusterState("1.1", watches=("w",), health={"a:1": old}),), {"1.1": 7})
    state = adopt(known, 2, (ClusterState("2.1", watches=("w",), health={"a:1": new}),), {"2.1": 1})
    assert state.clusters["2.1"].health["a:1"].failed_before == expected
    assert state.clusters["2.1"].health["a:1"].is_failing == new.is_failing
