"""Servers that are verified by their certificate: by applications, by the monitor, in a failover; and what goes wrong with one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest

from tests.integration.conftest import client, eventually
from wrapper import AwsWrapperConnection, errors
from wrapper.drivers.classify import ErrorKind
from wrapper.drivers.mysql_errors import classify as classify_mysql
from wrapper.drivers.psycopg_errors import classify as classify_psycopg
from wrapper.monitor.state import ANSWERED, HostHealth
from wrapper.plugins import failover_v2
from wrapper.testing import LocalAurora

ANOTHER_AUTHORITY = str(Path(__file__).parents[1] / "monitor" / "server.example.pem")


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def secured(request: pytest.FixtureRequest) -> Iterator[LocalAurora]:
    """A lab whose servers have certificates. Its names are addresses: mysql-connector-python verifies the name that it resolves."""
    with LocalAurora(2, engine=request.param, tls=True, address_names=True) as lab:
        yield lab


@pytest.fixture
def lab(secured: LocalAurora) -> LocalAurora:
    """The same without faults."""
    secured.reset()
    return secured


@pytest.fixture
def connect(lab: LocalAurora, monitor_directory: Path) -> Iterator[Callable[..., Any]]:
    """Connects to the writer through the wrapper, and verifies the server and its name."""
    opened: list[Any] = []

    def connect(authority: str = lab.certificate_authority, **more: Any) -> Any:
        more = {"autocommit": True, "cluster_instance_host_pattern": lab.instance_host_pattern, **more}
        if lab.engine == "postgresql":
            verified = lab.parameters(lab.writer.id, sslmode="verify-full", sslrootcert=authority)
            connection = AwsWrapperConnection.connect(psycopg.Connection.connect, **verified, **more)
        else:
            verified = lab.parameters(lab.writer.id, ssl_ca=authority, ssl_verify_cert=True, ssl_verify_identity=True)
            connection = AwsWrapperConnection.connect(mysql.connector.connect, **verified, **more)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


def health(connection: Any, host: str) -> HostHealth | None:
    """The monitor's evidence on a host, which goes by name and port; None until there is any."""
    found = client().state.by_watch(connection.plugin_service.watch.key) if client().is_live else None
    return None if found is None else found.health.get(host)


def until_proved(connection: Any, host: str = "", since: float = 0.0) -> None:
    """Wait until a session of the monitor's has got the host's word; of the host that the connection leads to, by default."""
    host = host or connection.plugin_service.current_host_info.key
    eventually(
        lambda: (known := health(connection, host)) is not None and (known.proved_at or 0.0) > since and known.accepting,
        "the monitor's session to get an answer",
    )


def meaning(lab: LocalAurora, error: BaseException) -> ErrorKind:
    return classify_psycopg(error) if lab.engine == "postgresql" else classify_mysql(error)


def test_the_servers_are_verified_by_everybody_and_in_a_failover(lab: LocalAurora, connect: Callable[..., Any]) -> None:
    connection = connect()
    until_proved(connection)
    (target,) = lab.readers
    lab.failover(target.id)
    with pytest.raises(errors.FailoverSuccessError):
        connection.rollback()
    assert connection.plugin_service.current_host_info.host == target.endpoint
    until_proved(connection)


def test_a_server_of_another_authority_is_no_dead_one(lab: LocalAurora, connect: Callable[..., Any]) -> None:
    implementations: list[dict[str, bool]] = [{}] if lab.engine == "postgresql" else [{"use_pure": True}, {"use_pure": False}]
    for how in implementations:
        for authority, said in (
            (ANOTHER_AUTHORITY, "certificate verify failed"),
            ("/no/such.pem", "no/such|No such file|SSL_CTX_"),
        ):
            with pytest.raises((psycopg.OperationalError, mysql.connector.Error), match=said) as caught:
                connect(authority, **how)
            assert not isinstance(caught.value, errors.AwsWrapperError)
            assert meaning(lab, caught.value) is ErrorKind.LOGIN


def test_an_expired_certificate_is_a_matter_of_the_login(lab: LocalAurora, connect: Callable[..., Any]) -> None:
    connection = connect()
    (reader,) = (f"{host.endpoint}:{host.port}" for host in lab.readers)
    until_proved(connection, reader)
    lab.expire_certificate()
    lab.drop_sessions(lab.readers[0].id)
    # The monitor cannot get in again: the host has answered all the time, and lets nobody in.
    known = eventually(lambda: (seen := health(connection, reader)) is not None and not seen.accepting and seen, "the refusal")
    assert known.kind == ANSWERED
    assert not known.is_failing
    # An application is told what is the matter; who is in already stays.
    with pytest.raises((psycopg.OperationalError, mysql.connector.Error), match="certificate verify failed") as caught:
        connect()
    assert meaning(lab, caught.value) is ErrorKind.LOGIN
    connection.cursor().execute("SELECT 1")
    lab.expire_certificate(False)
    with closing(connect(connect_timeout=10)):  # which offers the login again
        until_proved(connection, reader, known.proved_at or 0.0)


def test_a_failover_ends_with_the_certificate_that_nobody_accepts(
    lab: LocalAurora, connect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover_v2, "LOGIN_PATIENCE", 0.5)
    connection = connect(failover_timeout_sec=600.0)
    until_proved(connection)
    lab.expire_certificate()
    for instance in lab.instances:
        lab.drop_sessions(instance.id)
    with pytest.raises(errors.FailoverFailedError, match=r"no host that answers accepts the login: .*certificate verify failed"):
        connection.cursor().execute("SELECT 1")


def test_the_monitor_is_told_all_there_is_to_know_of_tls(lab: LocalAurora, connect: Callable[..., Any]) -> None:
    if lab.engine == "postgresql":
        limits: dict[str, Any] = {"ssl_max_protocol_version": "TLSv1.2"}
    else:
        limits = {"tls_versions": ["TLSv1.2"], "tls_ciphersuites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]}
        limits["use_pure"] = False  # the other one uses what is deprecated
    connection = connect(**limits)
    offered = connection.plugin_service.driver_dialect.login_values(connection.target_connection)
    assert offered.keys() >= limits.keys() - {"use_pure"}
    until_proved(connection)
