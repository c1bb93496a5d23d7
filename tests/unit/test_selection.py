"""Host selection: the strategies by the cases in tests/spec/selection.json and by properties, and whose turn it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrapper.decisions.selection import ROUND_ROBIN, STRATEGIES, WEIGHTED_RANDOM, Rule, choose, eligible, line_of, parse_weights
from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.hosts import HostAvailability, HostInfo, HostRole
from wrapper.providers.base import DriverConnectionProvider, Turns

CASES = json.loads((Path(__file__).parents[1] / "spec" / "selection.json").read_text())["cases"]


def host_of(name: str, facts: dict[str, Any]) -> HostInfo:
    role = HostRole(facts.get("role", "reader"))
    availability = HostAvailability(facts.get("availability", "available"))
    figures = {name: value for name, value in facts.items() if name not in ("role", "availability")}
    return HostInfo(name, 1, role, availability, **figures)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in CASES])
def test_choice(case: dict[str, Any]) -> None:
    rule = Rule.of(case["strategy"], case.get("parameters", {}))
    role = case.get("role", "reader")
    found = eligible([host_of(*item) for item in case["hosts"].items()], HostRole(role) if role else None)
    choices = [choose(rule, found, draw=draw) for draw in case.get("draws", ())]
    choices += [choose(rule, found, draw=0.0, turn=turn) for turn in case.get("turns", ())]
    assert [host and host.host for host in choices] == case["chosen"]


def test_every_strategy_has_a_case() -> None:
    assert {case["strategy"] for case in CASES} == set(STRATEGIES)


figures = st.none() | st.floats(0, 1e6)
hosts = st.lists(
    st.builds(
        HostInfo,
        host=st.sampled_from(["a", "b", "c", "d"]),
        port=st.just(1),
        role=st.sampled_from([HostRole.READER, HostRole.WRITER]),
        availability=st.sampled_from(list(HostAvailability)),
        weight=st.integers(0, 9),
        cpu=figures,
        lag_ms=figures,
        connections=st.integers(0, 9),
    ),
    max_size=4,
    unique_by=lambda host: host.host,
)
draws = st.floats(0, 1, exclude_max=True)
weights = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 5))


@given(st.sampled_from(STRATEGIES), hosts, draws, st.integers(0, 1000))
def test_a_choice_is_always_eligible(strategy: str, hosts: list[HostInfo], draw: float, turn: int) -> None:
    found = eligible(hosts, HostRole.READER)
    assert all(host.role is HostRole.READER and host.availability is HostAvailability.AVAILABLE for host in found)
    chosen = choose(Rule.of(strategy, {}), found, draw=draw, turn=turn)
    assert chosen in found if found else chosen is None


@given(st.sampled_from(STRATEGIES), hosts, draws)
def test_nothing_depends_on_the_order_in_which_hosts_are_given(strategy: str, hosts: list[HostInfo], draw: float) -> None:
    rule = Rule.of(strategy, {})
    assert choose(rule, eligible(hosts, None), draw=draw) == choose(rule, eligible(hosts[::-1], None), draw=draw)


@given(st.sampled_from([name for name in STRATEGIES if "load" in name or "least" in name or "highest" in name]), hosts)
def test_equals_share(strategy: str, hosts: list[HostInfo]) -> None:
    """Whoever is chosen by any draw is chosen by an equal part of all draws."""
    found = eligible(hosts, None)
    counts = Counter(choose(Rule.of(strategy, {}), found, draw=draw / 120) for draw in range(120))
    assert set(counts.values()) == {120 // len(counts)}


@given(hosts, weights, st.integers(0, 1000))
def test_round_robin_is_fair_by_weight(hosts: list[HostInfo], weights: dict[str, int], first: int) -> None:
    found = eligible(hosts, None)
    rule = Rule(ROUND_ROBIN, weights)
    line = line_of(rule, found)
    total = sum(length for _, length in line)
    counts: Counter[str] = Counter()
    for turn in range(first, first + total):
        chosen = choose(rule, found, draw=0.0, turn=turn)
        assert chosen is not None
        counts[chosen.key] += 1
    assert counts == dict(line)


@given(hosts, weights)
def test_weighted_random_is_fair_by_weight(hosts: list[HostInfo], weights: dict[str, int]) -> None:
    found = eligible(hosts, None)
    rule = Rule(WEIGHTED_RANDOM, weights)
    line = line_of(rule, found)
    total = sum(length for _, length in line)
    chosen = [choose(rule, found, draw=(place + 0.5) / total) for place in range(total)]
    assert Counter(host.key for host in chosen if host is not None) == dict(line)


def test_bad_strategy_and_weights_are_named() -> None:
    with pytest.raises(UnsupportedOperationError, match="fastest"):
        Rule.of("fastest", {})
    with pytest.raises(AwsWrapperError, match=r"round_robin_host_weight_pairs.*'a:0'"):
        parse_weights("round_robin_host_weight_pairs", "a:0")


# -- whose turn it is ----------------------------------------------------------------------------------------------------------

READERS = [host_of(name, {}) for name in "abc"]


def picks(count: int, hosts: list[HostInfo] = READERS, role: HostRole = HostRole.READER, **parameters: Any) -> Counter[str]:
    # As every connection does, with a provider of its own.
    chosen = (DriverConnectionProvider().get_host_info_by_strategy(hosts, role, ROUND_ROBIN, parameters) for _ in range(count))
    return Counter(host.host for host in chosen if host is not None)


def test_threads_share_the_turns_fairly() -> None:
    with ThreadPoolExecutor(16) as pool:
        parts = list(pool.map(lambda _: picks(75), range(16)))
    assert sum(parts, Counter()) == {"a": 400, "b": 400, "c": 400}


def test_choosing_something_else_takes_nobodys_turn() -> None:
    """An application that opens a writer and a reader in turns must not meet the same reader each time."""
    members = [*READERS[:2], host_of("w", {"role": "writer"})]
    found: Counter[str] = Counter()
    for _ in range(10):
        picks(1, members, HostRole.WRITER)
        picks(1, members[1:])
        picks(1, members, round_robin_host_weight_pairs="a:7")
        found += picks(1, members)
    assert found == {"a": 5, "b": 5}


def test_a_host_that_comes_and_goes_does_not_starve_another() -> None:
    lost = [*READERS[:2], host_of("c", {"availability": "unavailable"})]
    all_of_them: Counter[str] = Counter()
    without: Counter[str] = Counter()
    for _ in range(12):
        all_of_them += picks(1)
        without += picks(1, lost)
    assert all_of_them == {"a": 4, "b": 4, "c": 4}
    assert without == {"a": 6, "b": 6}


def test_processes_begin_anywhere_and_a_child_does_not_go_on_where_its_parent_was() -> None:
    script = """
import os
from wrapper.providers.base import Turns

line = (("a", 10**9), ("b", 10**9))
assert Turns().take(line) != Turns().take(line)
turns = Turns()
before = turns.take(line)
child = os.fork()
if child == 0:
    os._exit(1 if turns.take(line) == before + 1 else 0)
assert os.waitpid(child, 0)[1] == 0
assert turns.take(line) == before + 1
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_lines_that_nobody_uses_any_more_do_not_pile_up() -> None:
    turns = Turns()
    for number in range(3 * Turns._MOST):
        turns.take(((f"host-{number}", 1),))
    assert len(turns._numbers) <= Turns._MOST
