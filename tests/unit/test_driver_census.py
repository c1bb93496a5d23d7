"""Every method of the driver that can reach the network, and how the wrapper covers it: `tests/spec/psycopg_methods.json`.

* `chain`: the wrapper's own method, which runs the driver's through the plugin chain, by the names in `as`;
* `block`: the wrapper's own block, whose entering and successful leaving run through the chain, by the names in `as`;
* `guard`: the driver's own method, whose failures the guard on `Connection.wait` sees;
* `aside`: on a connection of its own (a request to cancel), which says nothing about this one.

What the driver has and the table has not reads memory. `since` and `until` (exclusive) are versions of psycopg, where the method is
not in all of them. Whether calls do go through the chain is tested with a server: `tests/integration/test_routing.py`.
"""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import psycopg.copy
import pytest

from tests.unit.driver_census import BESIDE_IT, GUARDED, PSYCOPG, Census, network_classes
from wrapper import AwsWrapperConnection
from wrapper.cursor import wrapped
from wrapper.drivers.psycopg import PsycopgDialect
from wrapper.drivers.psycopg_guard import guarded
from wrapper.drivers.psycopg_wrapper import PsycopgWrapperConnection

VERSION = tuple(int(part) for part in psycopg.__version__.split(".")[:2])
TABLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "spec" / "psycopg_methods.json").read_text(encoding="utf-8"))
# Older versions lack some.
CLASSES = {name: kind for name in TABLE if (kind := getattr(psycopg, name, getattr(psycopg.copy, name, None))) is not None}


def listed(name: str) -> dict[str, dict[str, Any]]:
    """The table's rows for a class, as far as this version of the driver has them."""
    rows = TABLE[name]
    return {
        method: row
        for method, row in (listed(rows) if isinstance(rows, str) else rows).items()
        if _version(row.get("since", "0")) <= VERSION < _version(row.get("until", "999"))
    }


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@cache
def found(name: str) -> dict[str, frozenset[str]]:
    """The methods of a class that can reach the network, by the driver's code, each with the ends of its way."""
    return Census(PSYCOPG, {**network_classes(), **CLASSES}).methods(CLASSES[name])


def rows_covered_by(*covers: str) -> list[tuple[str, str]]:
    return [(name, method) for name in CLASSES for method, row in listed(name).items() if row["by"] in covers]


def in_the_wrapper(name: str, method: str) -> Any:
    """What stands for the driver's method when it is called on a wrapper's object."""
    kind = CLASSES[name]
    if issubclass(kind, psycopg.Connection):
        ours = {**vars(AwsWrapperConnection), **vars(PsycopgWrapperConnection)}
        return ours.get(method, inspect.getattr_static(kind, method))
    if issubclass(kind, psycopg.Cursor):
        kind = wrapped(kind, PsycopgDialect(psycopg.connect).cursor_mixins(kind))
    return inspect.getattr_static(kind, method)


def is_ours(name: str, method: str) -> bool:
    return in_the_wrapper(name, method) is not inspect.getattr_static(CLASSES[name], method)


def test_no_class_of_the_driver_is_missing() -> None:
    unknown = {name for name, kind in network_classes().items() if not any(issubclass(each, kind) for each in CLASSES.values())}
    assert not unknown, f"psycopg {psycopg.__version__} has classes that reach the network and are not in the table"


@pytest.mark.parametrize("name", CLASSES)
def test_no_method_of_the_driver_is_missing(name: str) -> None:
    """A new one must be routed, or it must be seen that the guard is enough; one that is gone leaves the table."""
    assert sorted(found(name)) == sorted(listed(name))


@pytest.mark.parametrize(("name", "method"), rows_covered_by("guard"))
def test_what_is_left_to_the_guard_reaches_it(name: str, method: str) -> None:
    assert GUARDED in found(name)[method]
    assert not is_ours(name, method) or (name, method) == ("Connection", "wait")


def test_the_guard_is_at_the_point_that_everything_comes_by() -> None:
    assert guarded(psycopg.Connection).wait is not psycopg.Connection.wait


@pytest.mark.parametrize(("name", "method"), rows_covered_by("aside"))
def test_what_is_left_alone_never_uses_the_connection(name: str, method: str) -> None:
    assert found(name)[method] == {BESIDE_IT}


@pytest.mark.parametrize(("name", "method"), rows_covered_by("chain"))
def test_what_goes_through_the_chain_is_the_wrappers_own(name: str, method: str) -> None:
    assert is_ours(name, method)


@pytest.mark.parametrize(("name", "method"), rows_covered_by("block"))
def test_blocks_are_the_wrappers_own(name: str, method: str) -> None:
    """The driver's own blocks are made by methods of the wrapper, which enter and leave them."""
    makers = {"Transaction": ("Connection", "transaction"), "Pipeline": ("Connection", "pipeline"), "Copy": ("Cursor", "copy")}
    assert is_ours(*makers.get(name, (name, method)))


def test_plugins_can_subscribe_to_what_goes_through_the_chain_and_to_nothing_else() -> None:
    names = {each for name, method in rows_covered_by("chain", "block") for each in listed(name)[method]["as"]}
    assert names - {"connect"} == PsycopgDialect.network_bound_methods
