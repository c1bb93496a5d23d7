"""Global Databases without servers: detection, members, regions, and the policy of `gdb_failover`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wrapper.decisions.failover import FailoverMode, Policy
from wrapper.dialects import DIALECTS, mysql, postgresql
from wrapper.dialects.base import InstanceTemplate, detected
from wrapper.errors import AwsWrapperError
from wrapper.monitor.regions import either, region_of, split, within
from wrapper.monitor.state import ClusterState, HostHealth, Topology, TopologyHost
from wrapper.plugins.gdb_failover import policy_of
from wrapper.settings import Settings
from wrapper.urls import parse_endpoint

Case = dict[str, Any]
CASES: dict[str, list[Case]] = json.loads((Path(__file__).parents[1] / "spec" / "global_database.json").read_text())
DETECTIONS = {"postgresql": postgresql.detection, "mysql": mysql.detection}


@pytest.mark.parametrize("case", CASES["detections"], ids=lambda case: f"{case['engine']}: {case['comment']}")
def test_detection(case: Case) -> None:
    answers = list(case["answers"])
    assert detected(DETECTIONS[case["engine"]](), lambda _: answers.pop(0)) == case["code"]
    assert answers == []
    assert DIALECTS[case["code"]].engine == case["engine"]


@pytest.mark.parametrize("code", ["global-aurora-pg", "global-aurora-mysql"])
@pytest.mark.parametrize("case", CASES["topologies"], ids=lambda case: str(case["comment"]))
def test_members(case: Case, code: str) -> None:
    template = InstanceTemplate.parse(case["template"])
    assert str(template) == case["template"]
    members = DIALECTS[code].topology_hosts(case["rows"], template, 5000)
    near, far = split(members, tuple(case.get("accessible", ())))
    assert near == tuple(TopologyHost(**host) for host in case["hosts"])
    assert far == tuple(TopologyHost(**host) for host in case.get("elsewhere", ()))


def test_the_statements_of_postgresql_do_not_depend_on_the_search_path() -> None:
    dialect = DIALECTS["global-aurora-pg"]
    for sql in (postgresql.DETECT_QUERY, postgresql.REGIONS_QUERY, str(dialect.topology_query), dialect.role_query):
        for name in ("aurora_global_db_", "to_regproc", "count(", "has_function_privilege"):
            assert sql.count(name) == sql.count(f"pg_catalog.{name}"), (name, sql)
        assert " = " not in sql


EAST = TopologyHost("a.x.us-east-1.rds.amazonaws.com", 1, region="us-east-1")
WEST = TopologyHost("b.y.us-west-1.rds.amazonaws.com", 1, region="us-west-1")
CLUSTER = ClusterState(
    "t",
    topology=Topology(hosts=(EAST, WEST), writer=WEST.key),
    health={host.key: HostHealth(host.key) for host in (EAST, WEST)},
)


def test_who_may_not_reach_a_region_knows_nothing_of_it_but_that_it_is_there() -> None:
    assert within(CLUSTER, ()) is CLUSTER
    assert within(CLUSTER, ("us-east-1", "us-west-1")) is CLUSTER
    seen = within(CLUSTER, ("us-east-1",))
    assert list(seen.health) == [EAST.key]
    assert seen.topology.hosts == (EAST,)
    assert seen.topology.writer is None
    assert seen.topology.writer_elsewhere is not None
    assert seen.topology.writer_elsewhere.region == "us-west-1"


def test_the_monitor_reaches_what_anybody_reaches() -> None:
    assert either(("b", "a"), ("c", "a")) == ("a", "b", "c")
    assert either(("a",), ()) == ()
    assert either() == ()


def test_the_region_of_a_host_is_as_listed_else_as_its_name_says() -> None:
    listed = ClusterState("t", topology=Topology(hosts=(TopologyHost("db.example.org", 1, region="us-east-1"),)))
    assert region_of("db.example.org:1", [listed]) == "us-east-1"
    assert region_of(WEST.key, [listed]) == "us-west-1"
    assert region_of("other.example.org:1", [listed]) is None


PATTERNS = {"global_cluster_instance_host_patterns": "us-east-1:?.a.us-east-1.rds.amazonaws.com"}
EASTERN = "c.cluster-a.us-east-1.rds.amazonaws.com"
GLOBAL = "g.global-a.global.rds.amazonaws.com"


@pytest.mark.parametrize(
    ("host", "given", "active", "inactive", "home"),
    [
        (EASTERN, {}, "strict_writer", "strict_writer", "us-east-1"),
        (GLOBAL, {"failover_home_region": "EU-West-1"}, "strict_writer", "strict_writer", "eu-west-1"),
        ("c.cluster-ro-a.us-east-1.rds.amazonaws.com", {}, "home_reader_or_writer", "home_reader_or_writer", "us-east-1"),
        ("i.a.us-east-1.rds.amazonaws.com", {}, "home_reader_or_writer", "home_reader_or_writer", "us-east-1"),
        ("10.0.0.1", {"failover_home_region": "us-east-1"}, "home_reader_or_writer", "home_reader_or_writer", "us-east-1"),
        (EASTERN, {"failover_home_region": "eu-west-1"}, "strict_writer", "strict_writer", "eu-west-1"),
        (EASTERN, {"active_home_failover_mode": "Strict-Home-Reader"}, "strict_home_reader", "strict_writer", "us-east-1"),
        (EASTERN, {"inactive_home_failover_mode": "any_reader_or_writer"}, "strict_writer", "any_reader_or_writer", "us-east-1"),
    ],
)
def test_policy(host: str, given: dict[str, str], active: str, inactive: str, home: str) -> None:
    policy = policy_of(parse_endpoint(host), Settings({**PATTERNS, **given}), ())
    assert policy == Policy(FailoverMode(active), FailoverMode(inactive), home)


@pytest.mark.parametrize("mode", [mode.value for mode in FailoverMode if mode.value not in ("strict_reader", "reader_or_writer")])
def test_every_mode_is_accepted_in_both_spellings(mode: str) -> None:
    for text in (mode, mode.replace("_", "-"), mode.upper()):
        settings = Settings({**PATTERNS, "active_home_failover_mode": text, "inactive_home_failover_mode": text})
        assert policy_of(parse_endpoint(EASTERN), settings, ()).active is FailoverMode(mode)


@pytest.mark.parametrize(
    ("host", "given", "accessible", "complaint"),
    [
        (GLOBAL, PATTERNS, (), "needs failover_home_region.*global cluster endpoint"),
        ("10.0.0.1", PATTERNS, (), "needs failover_home_region"),
        (EASTERN, PATTERNS, ("eu-west-1",), "gdb_accessible_regions='eu-west-1' leaves out the home region us-east-1"),
        (EASTERN, {}, (), "needs global_cluster_instance_host_patterns"),
        (EASTERN, {"active_home_failover_mode": "strict_reader"}, (), "active_home_failover_mode='strict_reader' is not valid"),
        (EASTERN, {"inactive_home_failover_mode": "writer"}, (), "inactive_home_failover_mode='writer' is not valid: .*strict_any"),
        (EASTERN, {"failover_home_region": "Virginia"}, (), "failover_home_region='Virginia' is not valid"),
        (EASTERN, {"global_cluster_instance_host_patterns": "?.a.x"}, (), "global_cluster_instance_host_patterns=.*region:pattern"),
        (EASTERN, {"gdb_accessible_regions": "us-east-1,home"}, (), "gdb_accessible_regions=.* is not valid"),
    ],
)
def test_what_is_missing_or_wrong_is_named(host: str, given: dict[str, str], accessible: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(AwsWrapperError, match=complaint):
        policy_of(parse_endpoint(host), Settings(given), accessible)
