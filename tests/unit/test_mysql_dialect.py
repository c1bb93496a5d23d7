"""What the rows of MySQL servers mean: the cases of `tests/spec/mysql_dialect.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wrapper.dialects import DIALECTS, RoleAnswer
from wrapper.dialects.base import InstanceTemplate
from wrapper.dialects.mysql import detect
from wrapper.hosts import HostRole
from wrapper.monitor.state import TopologyHost

Case = dict[str, Any]
CASES: dict[str, list[Case]] = json.loads((Path(__file__).parents[1] / "spec" / "mysql_dialect.json").read_text())
TEMPLATE = InstanceTemplate.parse("?.xyz.us-east-2.rds.amazonaws.com")


@pytest.mark.parametrize("case", CASES["detect"], ids=lambda case: str(case["comment"]))
def test_flavour(case: Case) -> None:
    assert detect(list(case["variables"].items())) == case["code"]


@pytest.mark.parametrize("case", CASES["roles"], ids=lambda case: str(case["comment"]))
def test_role(case: Case) -> None:
    expected = RoleAnswer(HostRole(case["role"]), case.get("rank", 0.0), case.get("id", ""))
    assert DIALECTS[case["code"]].role_answer(case["row"]) == expected


@pytest.mark.parametrize("case", CASES["topologies"], ids=lambda case: str(case["comment"]))
def test_topology(case: Case) -> None:
    expected = tuple(TopologyHost(port=3306, **host) for host in case["hosts"])
    assert DIALECTS["aurora-mysql"].topology_hosts(case["rows"], TEMPLATE, 3306) == expected


@pytest.mark.parametrize("case", CASES["multi_az_topologies"], ids=lambda case: str(case["comment"]))
def test_multi_az_topology(case: Case) -> None:
    template = InstanceTemplate.parse(case.get("template", "?"))
    expected = tuple(TopologyHost(**host) for host in case["hosts"])
    assert DIALECTS["multi-az-mysql"].topology_hosts(case["rows"], template, 3306) == expected


def test_who_lists_its_cluster() -> None:
    mysql = {code: dialect for code, dialect in DIALECTS.items() if dialect.engine == "mysql"}
    assert {"mysql", "mariadb", "rds-mysql", "aurora-mysql", "multi-az-mysql"} <= set(mysql)
    assert not any(mysql[code].is_topology_aware for code in ("mysql", "mariadb", "rds-mysql"))
    assert all(mysql[code].is_topology_aware for code in ("aurora-mysql", "multi-az-mysql", "global-aurora-mysql"))


def test_a_template_may_have_a_port_of_its_own() -> None:
    (host,) = DIALECTS["aurora-mysql"].topology_hosts([["i", 1, 0, 0]], InstanceTemplate("?.x", 3307), 3306)
    assert (host.host, host.port) == ("i.x", 3307)
