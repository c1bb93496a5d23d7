"""Hosts from which there is no failover, a single instance and an RDS Proxy: the application gets its driver's own error, and that
says why nothing more happened."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest

import wrapper
from tests.integration.conftest import eventually
from wrapper.plugins import obstacle
from wrapper.testing import LocalAurora

from .conftest import FAST, Flavoured

DRIVER_ERRORS = {"postgresql": psycopg.OperationalError, "mysql": mysql.connector.Error}


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstacle, "_said", set())


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == obstacle.__name__]


def notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def assert_is_the_drivers(error: BaseException, engine: str) -> None:
    assert isinstance(error, DRIVER_ERRORS[engine])
    assert not isinstance(error, (wrapper.FailoverError, wrapper.AwsWrapperError))


def test_a_single_instance(rds: Flavoured, caplog: pytest.LogCaptureFixture) -> None:
    """It has what a Multi-AZ DB cluster is recognised by, and lists nobody. As its user may just lack a right, the log names it."""
    engine = rds.lab.engine
    connection, other = rds.connect(), rds.connect()
    service = connection.plugin_service
    assert service.database_dialect.code == {"postgresql": "rds-pg", "mysql": "rds-mysql"}[engine]
    assert [host.host for host in service.all_hosts] == [rds.lab.writer_endpoint]
    rds.lab.kill("writer")
    for lost in (connection, connection, other):
        with pytest.raises(DRIVER_ERRORS[engine]) as caught:
            rds.run(lost, "SELECT 1")
        assert_is_the_drivers(caught.value, engine)
        (note,) = notes(caught.value)
        assert note.startswith(f"no failover: {rds.lab.writer_endpoint} leads to a database of the kind")
    (line,) = lines(caplog)
    assert line.startswith(note)
    assert ("rds_topology" if engine == "mysql" else "rds_tools") in line


@pytest.mark.slow
def test_a_single_instance_that_hangs(rds: Flavoured) -> None:
    """The connection is ended on the monitor's evidence all the same."""
    connection = rds.connect(**FAST)
    handle = connection.plugin_service.physical(connection.target_connection).handle
    eventually(lambda: connection.plugin_service.client.is_live, "the monitor to live")
    rds.lab.hang("writer")
    eventually(lambda: handle.aborted_by is not None, "the connection to be given up")
    with pytest.raises(DRIVER_ERRORS[rds.lab.engine]) as caught:
        rds.run(connection, "SELECT 1")
    assert_is_the_drivers(caught.value, rds.lab.engine)
    assert notes(caught.value)


@pytest.fixture
def proxy(aurora: LocalAurora, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of an RDS Proxy that leads to the cluster's writer."""
    name = "p.proxy-xyz.us-east-2.rds.amazonaws.com"
    hosts = tmp_path / "hosts"
    hosts.write_text(Path(aurora.hosts_file).read_text() + f"{aurora.writer.address} {name}\n")
    monkeypatch.setenv("AWS_WRAPPER_HOSTS_FILE", str(hosts))
    return name


def test_an_rds_proxy(aurora: LocalAurora, proxy: str, caplog: pytest.LogCaptureFixture) -> None:
    parameters: dict[str, Any] = aurora.parameters(host=proxy, autocommit=True, monitor_mode="off")
    connection = wrapper.AwsWrapperConnection.connect(psycopg.Connection.connect, **parameters)
    try:
        aurora.drop_sessions("writer")
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError) as caught:
                connection.execute("SELECT 1")
            assert_is_the_drivers(caught.value, "postgresql")
            assert notes(caught.value) == [f"no failover: {proxy} is an RDS Proxy, which chooses the host itself"]
    finally:
        connection.close()
    assert lines(caplog) == notes(caught.value)


def test_a_connect_to_a_proxy_that_fails(aurora: LocalAurora, proxy: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    parameters: dict[str, Any] = aurora.parameters(host=proxy, monitor_mode="off", enable_connect_failover=True)
    aurora.kill("writer")
    with pytest.raises(psycopg.OperationalError) as caught:
        wrapper.AwsWrapperConnection.connect(psycopg.Connection.connect, **parameters)
    assert_is_the_drivers(caught.value, "postgresql")
    assert len(notes(caught.value)) == len(lines(caplog)) == 1


def test_an_error_of_the_applications_own_has_no_note(rds: Flavoured) -> None:
    connection = rds.connect()
    with pytest.raises(DRIVER_ERRORS[rds.lab.engine] if rds.lab.engine == "mysql" else psycopg.Error) as caught:
        rds.run(connection, "SELECT nothing FROM nowhere")
    assert notes(caught.value) == []
