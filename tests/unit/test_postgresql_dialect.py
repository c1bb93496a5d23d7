"""What the rows of PostgreSQL servers mean: the cases of `tests/spec/postgresql_dialect.json`; and what the SQL depends on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from wrapper.dialects import DIALECTS, RoleAnswer, settled
from wrapper.dialects.base import InstanceTemplate
from wrapper.dialects.postgresql import DETECT_QUERY, detect
from wrapper.hosts import HostRole
from wrapper.monitor.state import TopologyHost

Case = dict[str, Any]
CASES: dict[str, list[Case]] = json.loads((Path(__file__).parents[1] / "spec" / "postgresql_dialect.json").read_text())
POSTGRESQL = {code: dialect for code, dialect in DIALECTS.items() if dialect.engine == "postgresql"}
# Functions of SQL's own syntax, which no schema can hide.
_SYNTAX = {"EXTRACT", "COALESCE", "EXISTS", "ANY", "OPERATOR", "FROM", "WHERE", "AND", "OR", "SELECT", "THEN", "ELSE", "IN"}


@pytest.mark.parametrize("case", CASES["detect"], ids=lambda case: str(case["comment"]))
def test_flavour(case: Case) -> None:
    assert detect(case["row"]) == case["code"]


@pytest.mark.parametrize("case", CASES["roles"], ids=lambda case: str(case["comment"]))
def test_role(case: Case) -> None:
    expected = RoleAnswer(HostRole(case["role"]), case.get("rank", 0.0), case.get("id", ""))
    assert DIALECTS[case["code"]].role_answer(case["row"]) == expected


@pytest.mark.parametrize("case", CASES["multi_az_topologies"], ids=lambda case: str(case["comment"]))
def test_multi_az_topology(case: Case) -> None:
    template = InstanceTemplate.parse(case.get("template", "?"))
    expected = tuple(TopologyHost(**host) for host in case["hosts"])
    assert DIALECTS["multi-az-pg"].topology_hosts(case["rows"], template, 5432) == expected


def test_a_host_without_members_is_a_single_one() -> None:
    multi_az = POSTGRESQL["multi-az-pg"]
    assert settled(multi_az, has_members=True) is multi_az
    assert settled(multi_az, has_members=False) is POSTGRESQL["rds-pg"]
    assert settled(POSTGRESQL["aurora-pg"], has_members=False) is POSTGRESQL["aurora-pg"]


@pytest.mark.parametrize("code", ["detection", *POSTGRESQL])
def test_no_search_path_changes_what_a_statement_means(code: str) -> None:
    """Every function, table and operator names its schema."""
    statements = [DETECT_QUERY] if code == "detection" else [POSTGRESQL[code].role_query, POSTGRESQL[code].topology_query or ""]
    for sql in statements:
        bare = re.sub(r"'[^']*'", "''", sql)
        assert set(re.findall(r"(?<![.\w])(\w+)\s*\(", bare)) <= _SYNTAX
        assert set(re.findall(r"(?:FROM|JOIN)\s+([a-z_]+)[\s(]", bare)) <= set()
        assert not re.search(r"\s(=|<>|<=|>=|~~|\|\|)\s", bare)
