"""Whatever plugins a connection has, it is a PEP 249 connection, and errors and blocks mean what they mean in psycopg.

The requirements are those of the `dbapi-compliance` package. psycopg alone has to meet them too: what it does not do, the wrapper
need not do either.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import psycopg
import pytest

import wrapper.psycopg
from tests.dbapi.plugins import ALL, EACH
from tests.dbapi.requirements import Requirements
from tests.integration.conftest import own_monitor
from wrapper.drivers.psycopg import PsycopgDialect
from wrapper.pipeline import parse_codes
from wrapper.testing import LocalAurora


@dataclass(frozen=True, slots=True)
class Configuration:
    """A DB-API module, and the value of `plugins` that its `connect` is given; None for none."""

    name: str
    driver: ModuleType
    plugins: str | None = None

    def arguments(self, lab: LocalAurora) -> dict[str, str]:
        """What `connect` is called with."""
        if self.driver is psycopg:
            return {"conninfo": lab.dsn(by_address=True)}
        arguments = {"conninfo": lab.dsn(), "cluster_instance_host_pattern": lab.instance_host_pattern}
        return arguments if self.plugins is None else {**arguments, "plugins": self.plugins}


CONFIGURATIONS = (
    Configuration("psycopg", psycopg),
    Configuration("none", wrapper.psycopg, ""),
    Configuration("default", wrapper.psycopg),
    *(Configuration(code, wrapper.psycopg, code) for code in EACH),
    Configuration("all", wrapper.psycopg, ALL),
)


@pytest.fixture(scope="module")
def lab(aurora_lab: LocalAurora) -> Iterator[LocalAurora]:
    """The lab without faults, with one monitor for all tests of this module."""
    aurora_lab.reset()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in aurora_lab.environment().items():
            environment.setenv(name, value)
        with own_monitor(environment):
            yield aurora_lab


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda configuration: configuration.name)
class TestEveryConfiguration:
    def test_it_is_what_it_says(self, configuration: Configuration, lab: LocalAurora) -> None:
        with configuration.driver.connect(**configuration.arguments(lab)) as connection:
            if configuration.driver is psycopg:
                assert type(connection) is psycopg.Connection
                return
            plugins = PsycopgDialect.default_plugins if configuration.plugins is None else configuration.plugins
            assert len(connection.plugin_service.manager.plugins) == len(parse_codes(plugins))

    @pytest.mark.parametrize("requirement", unittest.TestLoader().getTestCaseNames(Requirements))
    def test_pep_249(self, requirement: str, configuration: Configuration, lab: LocalAurora) -> None:
        members = {"driver": configuration.driver, "connect_kw_args": configuration.arguments(lab)}
        type("Requirements", (Requirements,), members)(requirement).debug()

    @pytest.fixture
    def table(self, lab: LocalAurora) -> Iterator[str]:
        """An empty table with one unique column."""
        with psycopg.connect(lab.dsn(by_address=True), autocommit=True) as connection:
            connection.execute("CREATE TABLE dbapi_unique (x int PRIMARY KEY)")
            yield "dbapi_unique"
            connection.execute("DROP TABLE dbapi_unique")

    @staticmethod
    def rows(lab: LocalAurora, table: str) -> list[Any]:
        """What another session sees."""
        with psycopg.connect(lab.dsn(by_address=True)) as connection:
            return [x for (x,) in connection.execute(f"SELECT x FROM {table} ORDER BY x")]

    def test_driver_errors_are_caught_by_their_own_class(self, configuration: Configuration, lab: LocalAurora, table: str) -> None:
        with configuration.driver.connect(**configuration.arguments(lab), autocommit=True) as connection:
            connection.execute(f"INSERT INTO {table} VALUES (1)")
            for expected in (psycopg.errors.UniqueViolation, configuration.driver.IntegrityError, connection.IntegrityError):
                with pytest.raises(expected) as caught:
                    connection.execute(f"INSERT INTO {table} VALUES (1)")
                assert type(caught.value) is psycopg.errors.UniqueViolation
                assert caught.value.diag.table_name == table
            with pytest.raises(psycopg.errors.UniqueViolation):
                connection.cursor().executemany(f"INSERT INTO {table} VALUES (%s)", [(2,), (1,)])

    def test_leaving_the_block_commits(self, configuration: Configuration, lab: LocalAurora, table: str) -> None:
        with configuration.driver.connect(**configuration.arguments(lab)) as connection:
            connection.execute(f"INSERT INTO {table} VALUES (1)")
            assert self.rows(lab, table) == []
        assert connection.closed
        assert self.rows(lab, table) == [1]

    def test_leaving_the_block_with_an_error_rolls_back(self, configuration: Configuration, lab: LocalAurora, table: str) -> None:
        with pytest.raises(ZeroDivisionError), configuration.driver.connect(**configuration.arguments(lab)) as connection:
            connection.execute(f"INSERT INTO {table} VALUES (1)")
            raise ZeroDivisionError
        assert connection.closed
        assert self.rows(lab, table) == []
