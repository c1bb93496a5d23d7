"""`stale_dns`, and `initial_connection` in its place: the name of the writer leads to a host that is the writer no longer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import client, eventually, forget_client
from tests.integration.test_failover import instance_of
from wrapper.resolver import parse_hosts
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
NAME = "under-test"


@pytest.fixture(scope="module")
def slow_lab() -> Iterator[LocalAurora]:
    """A cluster whose endpoint does not follow within any test."""
    with LocalAurora(dns_delay=3600) as lab:
        yield lab


@pytest.fixture
def aurora(slow_lab: LocalAurora, monkeypatch: pytest.MonkeyPatch) -> LocalAurora:
    """That cluster, its writer the one that the endpoint's name leads to."""
    slow_lab.reset()
    for name, value in slow_lab.environment().items():
        monkeypatch.setenv(name, value)
    if slow_lab.writer.id != named(slow_lab):
        slow_lab.failover(named(slow_lab))
    return slow_lab


def named(lab: LocalAurora) -> str:
    """The instance that the writer endpoint's name leads to."""
    address = parse_hosts(Path(lab.hosts_file).read_text())[lab.writer_endpoint]
    return next(instance.id for instance in lab.instances if instance.address == address)


def sessions_under_test(lab: LocalAurora, instance: str) -> list[dict[str, Any]]:
    return [session for session in lab.sessions(instance) if session["application_name"] == NAME]


@pytest.mark.parametrize("plugins", ["stale_dns", "initial_connection", "initial_connection,stale_dns"])
@pytest.mark.parametrize("mode", ["auto", "off"])
def test_the_first_connection_of_a_process(connect: Connect, aurora: LocalAurora, plugins: str, mode: str) -> None:
    old = aurora.writer.id
    aurora.failover()
    assert instance_of(connect(plugins="host_monitoring_v2", monitor_mode=mode)) == old, "the name is not stale"
    forget_client()
    connection = connect(plugins=plugins, monitor_mode=mode, application_name=NAME)
    assert instance_of(connection) == aurora.writer.id != old
    assert connection.plugin_service.current_host_info.host_id == aurora.writer.id
    eventually(lambda: not sessions_under_test(aurora, old), "the connection to the old writer to be closed")


@pytest.mark.parametrize("plugins", ["stale_dns", "initial_connection"])
@pytest.mark.parametrize("mode", ["auto", "off"])
def test_after_a_failover(connect: Connect, aurora: LocalAurora, plugins: str, mode: str) -> None:
    """What the process knew is out of date as well."""
    first = connect(plugins=plugins, monitor_mode=mode)
    old = aurora.writer.id
    assert instance_of(first) == old
    aurora.failover()
    assert instance_of(connect(plugins=plugins, monitor_mode=mode)) == aurora.writer.id != old


@pytest.mark.parametrize("plugins", ["stale_dns", "initial_connection"])
def test_an_old_writer_that_goes_on_believing(watched: Connect, aurora: LocalAurora, plugins: str) -> None:
    """It says that it is the writer; another host's claim ranks higher."""
    first = watched(plugins=plugins)
    old = aurora.writer.id
    aurora.hang(old)
    aurora.failover(rejoin=False)
    aurora.resume(old)

    def is_known() -> bool:
        cluster = client().state.by_watch(first.plugin_service.watch.key)
        return cluster is not None and cluster.topology.writer == f"{aurora.writer.endpoint}:{aurora.port}"

    eventually(is_known, "the new writer to be known")
    with psycopg.connect(aurora.dsn(old, by_address=True)) as session:
        assert session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), "the old writer does not believe"
    assert instance_of(watched(plugins=plugins)) == aurora.writer.id != old


def test_other_endpoints_are_left_alone(watched: Connect, aurora: LocalAurora) -> None:
    watched(plugins="stale_dns")
    reader = aurora.readers[0].id
    assert instance_of(watched(reader, plugins="stale_dns")) == reader


@pytest.mark.parametrize("plugins", ["stale_dns", "initial_connection"])
def test_a_reader_is_never_passed_off_as_the_writer(connect: Connect, aurora: LocalAurora, plugins: str) -> None:
    old = aurora.writer.id
    aurora.failover()
    aurora.kill("writer")
    limits = {"open_connection_retry_timeout_ms": 600, "open_connection_retry_interval_ms": 100}
    with pytest.raises(psycopg.OperationalError, match=r"led to no writer within 0.6 s|refused|does not answer"):
        connect(plugins=plugins, application_name=NAME, **limits)
    eventually(lambda: not sessions_under_test(aurora, old), "the connections to the reader to be closed")


def test_what_the_name_led_to_is_in_the_error(connect: Connect, aurora: LocalAurora) -> None:
    old = aurora.writer.id
    aurora.failover()
    with pytest.raises(wrapper.AwsConnectError, match=rf"led to no writer within 0.3 s: the last time it led to {old} ") as caught:
        connect(plugins="initial_connection", endpoint_substitution_role="none", open_connection_retry_timeout_ms=300)
    assert isinstance(caught.value, psycopg.OperationalError)
