"""Every method of mysql-connector-python that can reach the network, and how the wrapper covers it:
`tests/spec/mysql_methods.json`.

* `chain`: runs through the plugin chain, by the names in `as`; where the driver makes it of another method, `through` that one;
* `guard`: the driver's own method, whose failures the guard sees where it sends and receives (`wrapper.drivers.mysql_guard`);
* `own`: the wrapper's own, which tells the guard of a failure;
* `end`: ends the connection, whatever state that is in;
* `memory`: the rows of a buffered cursor are there already; the census, which reads names, cannot tell.

What the driver has and the table has not reads memory, or is made of methods that are here. The tests with servers are in
`tests/integration/mysql/test_failover.py`.
"""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import mysql.connector
import mysql.connector.cursor
import mysql.connector.cursor_cext
import pytest
from mysql.connector.abstracts import MySQLConnectionAbstract, MySQLCursorAbstract
from mysql.connector.connection import MySQLConnection

from tests.unit.driver_census import GUARDED, Census, c_functions, mysql_driver
from wrapper import AwsWrapperConnection
from wrapper.cursor import wrapped
from wrapper.drivers.mysql_connector import MySqlConnectorDialect
from wrapper.drivers.mysql_wrapper import _SETTINGS, MySqlWrapperConnection

TABLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "spec" / "mysql_methods.json").read_text(encoding="utf-8"))


def _implementation(connection_class: type, module: Any) -> dict[str, type]:
    """A class of connections, and the cursors that are made for it."""
    own = [kind for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == module.__name__]
    return {kind.__name__: kind for kind in (connection_class, *own) if issubclass(kind, (connection_class, MySQLCursorAbstract))}


IMPLEMENTATIONS = {
    "pure": _implementation(MySQLConnection, mysql.connector.cursor),
    "extension": _implementation(mysql.connector.CMySQLConnection, mysql.connector.cursor_cext),
}
CLASSES = {name: kind for classes in IMPLEMENTATIONS.values() for name, kind in classes.items()}


def listed(name: str) -> dict[str, dict[str, Any]]:
    """The table's rows for a class."""
    rows = TABLE[name]
    return listed(rows) if isinstance(rows, str) else rows


@cache
def census(implementation: str) -> Census:
    classes = IMPLEMENTATIONS[implementation]
    return Census(mysql_driver(next(iter(classes.values()))), classes)


@cache
def found(name: str) -> dict[str, frozenset[str]]:
    """The methods of a class that can reach the network, by the driver's code, each with the ends of its way."""
    (implementation,) = (each for each, classes in IMPLEMENTATIONS.items() if name in classes)
    return census(implementation).methods(CLASSES[name])


def in_the_wrapper(name: str, method: str) -> Any:
    """What stands for the driver's method when it is called on a wrapper's object."""
    kind: Any = CLASSES[name]
    if issubclass(kind, MySQLConnectionAbstract):
        ours = {**vars(AwsWrapperConnection), **vars(MySqlWrapperConnection)}
        return ours.get(method, inspect.getattr_static(kind, method))
    kind = wrapped(kind, MySqlConnectorDialect(mysql.connector.connect).cursor_mixins(kind))
    return inspect.getattr_static(kind, method)


def is_ours(name: str, method: str) -> bool:
    return in_the_wrapper(name, method) is not inspect.getattr_static(CLASSES[name], method)


def rows_covered_by(*covers: str) -> list[tuple[str, str]]:
    return [(name, method) for name in CLASSES for method, row in listed(name).items() if row["by"] in covers]


def test_no_class_of_the_driver_is_missing() -> None:
    assert sorted(TABLE) == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_no_method_of_the_driver_is_missing(name: str) -> None:
    """A new one must be routed, or it must be seen that the guard is enough; one that is gone leaves the table."""
    assert sorted(found(name)) == sorted(listed(name))


def test_no_function_of_the_c_library_is_unknown() -> None:
    """Which of them wait for the server cannot be read anywhere: each new one has to be looked at."""
    assert c_functions(IMPLEMENTATIONS["extension"].values()) == set()


@pytest.mark.parametrize(("name", "method"), rows_covered_by("guard"))
def test_what_is_left_to_the_guard_reaches_it(name: str, method: str) -> None:
    assert GUARDED in found(name)[method]
    assert not is_ours(name, method)


@pytest.mark.parametrize(("name", "method"), rows_covered_by("chain", "own"))
def test_what_goes_through_the_chain_is_the_wrappers_own(name: str, method: str) -> None:
    row = listed(name)[method]
    if method in _SETTINGS:
        assert row["as"] == [f"Connection.{method}"]
    else:
        assert is_ours(name, row.get("through", method))


@pytest.mark.parametrize(("name", "method"), rows_covered_by("memory"))
def test_the_rows_of_buffered_cursors_are_fetched_by_the_drivers_own_functions(name: str, method: str) -> None:
    assert "Buffered" in name
    assert not is_ours(name, method) or method == "__iter__"


def test_plugins_can_subscribe_to_what_goes_through_the_chain_and_to_nothing_else() -> None:
    names = {each for name, method in rows_covered_by("chain") for each in listed(name)[method]["as"]}
    assert names - {"connect"} == MySqlConnectorDialect.network_bound_methods
