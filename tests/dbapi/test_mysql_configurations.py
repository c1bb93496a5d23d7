"""Whatever plugins a connection of mysql-connector-python has, it is a PEP 249 connection.

The requirements are those of the `dbapi-compliance` package. The driver alone is asked too: what it does not meet, the wrapper need
not meet either; it is listed here.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import mysql.connector
import pytest

import wrapper.mysql_connector
from tests.dbapi.plugins import ALL, EACH
from tests.dbapi.requirements import Requirements
from wrapper.drivers.mysql_connector import MySqlConnectorDialect
from wrapper.pipeline import parse_codes
from wrapper.testing import LocalAurora


@dataclass(frozen=True, slots=True)
class Configuration:
    """A DB-API module, the driver's implementation, and the value of `plugins` that `connect` is given; None for none."""

    name: str
    driver: ModuleType
    use_pure: bool
    plugins: str | None = None

    def arguments(self, lab: LocalAurora) -> dict[str, Any]:
        """What `connect` is called with."""
        # A cursor of the suite's is often left with rows unread, and what it says of that is the driver's own matter.
        common = {"use_pure": self.use_pure, "consume_results": True}
        if self.driver is mysql.connector:
            return {**lab.parameters(by_address=True), **common}
        ours = {"cluster_instance_host_pattern": lab.instance_host_pattern, "monitor_mode": "off"}
        return {**lab.parameters(), **common, **ours, **({} if self.plugins is None else {"plugins": self.plugins})}


def configurations(use_pure: bool) -> Iterator[Configuration]:
    """What is tested of one implementation. The registry's codes, so that a new plugin is tested without being named here."""
    implementation = "pure" if use_pure else "extension"
    yield Configuration(f"{implementation}-driver", mysql.connector, use_pure)
    yield Configuration(f"{implementation}-none", wrapper.mysql_connector, use_pure, "")
    yield Configuration(f"{implementation}-default", wrapper.mysql_connector, use_pure)
    for code in EACH:
        yield Configuration(f"{implementation}-{code}", wrapper.mysql_connector, use_pure, code)
    yield Configuration(f"{implementation}-all", wrapper.mysql_connector, use_pure, ALL)


CONFIGURATIONS = [*configurations(True), *configurations(False)]


PURE, EXTENSION = True, False
# What the driver alone does not meet, by implementation and for a reason; with the wrapper it is the same.
_QUOTED = "takes %%(u)s in a text for a parameter"
_SHARED = {
    "test_ExceptionsAsConnectionAttributes": "has no exceptions as attributes of connections, which is an option of PEP 249",
    "test_description": "describes a column by nine values, not seven",
    "test_execute": _QUOTED,
    "test_fetchall": "returns no rows, not an error, where there is no result",
    "test_fetchone": "returns no row, not an error, where there is no result",
    "test_setinputsizes": _QUOTED,
    "test_setoutputsize_basic": _QUOTED,
}
NOT_MET: dict[bool, dict[str, str]] = {
    PURE: _SHARED,
    EXTENSION: {
        **_SHARED,
        "test_close": "commit() of a closed connection raises an error that is no mysql.connector.Error",
        "test_fetchmany": "does not look at arraysize",
        "test_rowcount": "counts the rows that were fetched",
    },
}


@pytest.fixture(scope="module")
def lab(aurora_mysql_lab: LocalAurora) -> Iterator[LocalAurora]:
    """The lab without faults."""
    aurora_mysql_lab.reset()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in aurora_mysql_lab.environment().items():
            environment.setenv(name, value)
        yield aurora_mysql_lab


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda configuration: configuration.name)
class TestEveryConfiguration:
    def test_it_is_what_it_says(self, configuration: Configuration, lab: LocalAurora) -> None:
        expected: Any = mysql.connector.MySQLConnection if configuration.use_pure else mysql.connector.CMySQLConnection
        with configuration.driver.connect(**configuration.arguments(lab)) as connection:
            assert isinstance(connection, expected)
            if configuration.driver is mysql.connector:
                assert type(connection) is expected
                return
            plugins = MySqlConnectorDialect.default_plugins if configuration.plugins is None else configuration.plugins
            assert len(connection.plugin_service.manager.plugins) == len(parse_codes(plugins))

    @pytest.mark.parametrize("requirement", unittest.TestLoader().getTestCaseNames(Requirements))
    def test_pep_249(self, requirement: str, configuration: Configuration, lab: LocalAurora) -> None:
        # The suite's procedure does not exist in MySQL.
        members = {"driver": configuration.driver, "connect_kw_args": configuration.arguments(lab), "lower_func": None}
        # Not by `debug`, which leaves the tables of a failed test behind.
        result = unittest.TestResult()
        type("Requirements", (Requirements,), members)(requirement).run(result)
        failures = [text for _, text in [*result.errors, *result.failures]]
        assert bool(failures) is (requirement in NOT_MET[configuration.use_pure]), (
            "\n".join(failures) or "the driver has learned it"
        )
