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
    assert detect(case["aurora"], *filter(None, [case["flavour"]])) == case["code"]


@pytest.mark.parametrize("case", CASES["roles"], ids=lambda case: str(case["comment"]))
def test_role(case: Case) -> None:
    expected = RoleAnswer(HostRole(case["role"]), case.get("rank", 0.0), case.get("id", ""))
    assert DIALECTS[case["code"]].role_answer(case["row"]) == expected


@pytest.mark.parametrize("case", CASES["topologies"], ids=lambda case: str(case["comment"]))
def test_topology(case: Case) -> None:
    expected = tuple(TopologyHost(port=3306, **host) for host in case["hosts"])
    assert DIALECTS["aurora-mysql"].topology_hosts(case["rows"], TEMPLATE, 3306) == expected


def test_only_an_aurora_lists_its_cluster() -> None:
    mysql = {code: dialect for code, dialect in DIALECTS.items() if dialect.engine == "mysql"}
    assert set(mysql) == {"mysql", "mariadb", "rds-mysql", "aurora-mysql", "global-aurora-mysql"}
    assert [code for code, dialect in mysql.items() if dialect.is_topology_aware] == ["aurora-mysql", "global-aurora-mysql"]


def test_a_template_may_have_a_port_of_its_own() -> None:
    (host,) = DIALECTS["aurora-mysql"].topology_hosts([["i", 1, 0, 0]], InstanceTemplate("?.x", 3307), 3306)
    assert (host.host, host.port) == ("i.x", 3307)
