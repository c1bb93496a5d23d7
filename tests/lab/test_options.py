"""Which lab two words mean."""

from __future__ import annotations

import pytest

from wrapper.dialects import DIALECTS
from wrapper.testing import LabError
from wrapper.testing.options import FLAVORS, Options, choose_flavor


@pytest.mark.parametrize(
    ("engine", "flavor", "expected"),
    [
        (None, None, "aurora-pg"),
        ("mysql", None, "aurora-mysql"),
        (None, "multi-az-mysql", "multi-az-mysql"),
        ("mysql", "multi-az", "multi-az-mysql"),
        ("postgresql", "rds", "rds-pg"),
        (None, "aurora", "aurora-pg"),
        ("mysql", "mysql", "mysql"),
    ],
)
def test_a_flavor_is_told_by_its_code_or_its_family(engine: str | None, flavor: str | None, expected: str) -> None:
    assert choose_flavor(engine, flavor) == expected


@pytest.mark.parametrize(("engine", "flavor"), [("mysql", "multi-az-pg"), (None, "multi"), ("oracle", None), (None, "")])
def test_what_is_no_flavor_is_refused(engine: str | None, flavor: str | None) -> None:
    with pytest.raises(LabError, match="is not valid"):
        choose_flavor(engine, flavor)


def test_every_flavor_is_a_dialects() -> None:
    assert {flavor: DIALECTS[flavor].engine for flavor in FLAVORS} == FLAVORS
    assert [Options("", flavor=flavor).family for flavor in ("multi-az-pg", "pg", "rds-mysql")] == ["multi-az", "", "rds"]
