"""Errors that mean what the application says: a custom handler decides for everything that judges errors in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg
import pytest

import wrapper
from tests.integration.conftest import Connect
from tests.integration.test_failover import instance_of
from wrapper.drivers.psycopg_errors import PsycopgExceptionHandler
from wrapper.errors import AwsWrapperError
from wrapper.testing import LocalAurora

# A state that no table lists, as the application's own functions or a proxy may raise it.
MAINTENANCE = "ZZ001"
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'maintenance' USING ERRCODE = '{}'; END $$"


def sqlstate_of(error: BaseException | None, sql_state: str | None) -> str | None:
    return sql_state or getattr(error, "sqlstate", None)


class AlsoNetwork(PsycopgExceptionHandler):
    """Knows one more network error than the driver's tables."""

    def is_network_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        return sqlstate_of(error, sql_state) == MAINTENANCE or super().is_network_exception(error, sql_state)


class AlsoReadOnly(PsycopgExceptionHandler):
    """Knows one more error of a host that takes no writes."""

    def is_read_only_connection_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        return sqlstate_of(error, sql_state) == MAINTENANCE or super().is_read_only_connection_exception(error, sql_state)


class Nothing:
    """Denies everything."""

    def is_network_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        return False

    def is_login_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        return False

    def is_read_only_connection_exception(self, error: BaseException | None = None, sql_state: str | None = None) -> bool:
        return False


@pytest.fixture(autouse=True)
def manager() -> Iterator[type[wrapper.ExceptionManager]]:
    yield wrapper.ExceptionManager
    wrapper.ExceptionManager.reset_custom_handler()


def backend(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("handler", [AlsoNetwork(), AlsoReadOnly()], ids=lambda handler: type(handler).__name__)
def test_a_custom_error_starts_a_failover(
    watched: Connect, manager: type[wrapper.ExceptionManager], handler: wrapper.ExceptionHandler
) -> None:
    connection = watched()
    with pytest.raises(psycopg.Error) as plain:
        connection.execute(RAISE.format(MAINTENANCE))
    assert plain.value.sqlstate == MAINTENANCE
    assert not isinstance(plain.value, wrapper.FailoverError)
    before = backend(connection)
    manager.set_custom_handler(handler)
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        connection.execute(RAISE.format(MAINTENANCE))
    assert caught.value.outcome == "unknown"
    assert isinstance(caught.value.driver_error, psycopg.Error)
    assert caught.value.driver_error.sqlstate == MAINTENANCE
    # Its host is the writer still, and has proved it since; the session is another one.
    assert backend(connection) != before
    manager.reset_custom_handler()
    with pytest.raises(psycopg.Error) as again:
        connection.execute(RAISE.format(MAINTENANCE))
    assert not isinstance(again.value, wrapper.FailoverError)


def test_a_custom_error_moves_the_connection_to_the_new_writer(
    watched: Connect, aurora: LocalAurora, manager: type[wrapper.ExceptionManager]
) -> None:
    """On a reader the connection is nobody's business, until the application says what its error means."""
    reader = aurora.readers[0].id
    connection = watched(reader, failover_mode="strict_writer")
    assert instance_of(connection) == reader
    manager.set_custom_handler(AlsoNetwork())
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute(RAISE.format(MAINTENANCE))
    assert instance_of(connection) == aurora.writer.id


def test_what_the_handler_denies_is_not_so(
    watched: Connect, aurora: LocalAurora, manager: type[wrapper.ExceptionManager], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    manager.set_custom_handler(Nothing())
    connection = watched()
    aurora.drop_sessions(aurora.writer.id)
    with pytest.raises(psycopg.OperationalError) as caught:
        connection.execute("SELECT 1")
    assert not isinstance(caught.value, wrapper.FailoverError)
    assert "failed over" not in caplog.text


def test_the_plugin_service_asks_the_handler(connect: Connect, manager: type[wrapper.ExceptionManager]) -> None:
    service = connect().plugin_service
    error = psycopg.errors.lookup("57P01")("terminated")
    error.sqlstate = "57P01"
    assert service.is_network_exception(error)
    assert service.is_login_exception(sql_state="28P01")
    assert service.is_read_only_connection_exception(sql_state="25006")
    assert not service.is_network_exception(sql_state=MAINTENANCE)
    manager.set_custom_handler(AlsoNetwork())
    assert service.is_network_exception(sql_state=MAINTENANCE)
    assert service.is_network_exception(error)
    assert service.is_login_exception(sql_state="28P01")
    assert service.is_read_only_connection_exception(sql_state="25006")
    manager.set_custom_handler(Nothing())
    assert not service.is_network_exception(error)
    assert not service.is_network_exception(error, "57P01")
    assert not service.is_login_exception(sql_state="28P01")
    assert not service.is_read_only_connection_exception(sql_state="25006")


def test_a_handler_that_lacks_a_question_is_refused(manager: type[wrapper.ExceptionManager]) -> None:
    with pytest.raises(AwsWrapperError, match="a str is not an exception handler: it has no is_network_exception, is_login_"):
        manager.set_custom_handler("handler")  # type: ignore[arg-type]
