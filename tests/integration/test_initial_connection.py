"""`initial_connection`: a connect by an endpoint's name ends on an instance of the role that the name stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import client, eventually
from tests.integration.test_failover import instance_of
from tests.integration.test_recognition import NAME, found, queries
from wrapper import AwsWrapperConnection
from wrapper.hosts import HostRole
from wrapper.providers import SqlAlchemyPooledConnectionProvider
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
PLUGINS = {"plugins": "initial_connection"}


class Counted(psycopg.Connection[Any]):
    """Counts how often a connect reaches the driver."""

    attempts = 0

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Any:
        Counted.attempts += 1
        return super().connect(*args, **kwargs)


@pytest.fixture
def counted(aurora: LocalAurora, connect: Connect) -> Callable[..., Any]:
    Counted.attempts = 0

    def counted(**parameters: Any) -> Any:
        parameters = {"cluster_instance_host_pattern": aurora.instance_host_pattern, **PLUGINS, **parameters}
        return AwsWrapperConnection.connect(Counted.connect, aurora.dsn(), **parameters)

    return counted


def test_the_writer_endpoint_is_the_writer_and_nobody_is_asked(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    watched()
    connection = connect(application_name=NAME, **PLUGINS)
    assert found(connection) == (aurora.writer.id, HostRole.WRITER)
    assert queries(aurora, aurora.writer.id) == [""]
    assert connection.info.host == aurora.writer.endpoint


def test_the_reader_endpoint_is_each_reader_in_turn(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    """The name leads to one of them only."""
    watched(host=aurora.reader_endpoint)
    settings = {"initial_connection_host_selector_strategy": "round_robin", "application_name": NAME, **PLUGINS}
    connections = [connect(host=aurora.reader_endpoint, **settings) for _ in range(4)]
    readers = {reader.id for reader in aurora.readers}
    assert {found(connection) for connection in connections} == {(reader, HostRole.READER) for reader in readers}
    assert [query for reader in readers for query in queries(aurora, reader)] == [""] * 4
    assert {instance_of(connection) for connection in connections} == readers


def test_a_reader_that_is_down_is_not_chosen(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    watched()
    first, second = aurora.readers
    aurora.kill(first.id)
    for _ in range(3):
        assert instance_of(connect(host=aurora.reader_endpoint, **PLUGINS)) == second.id


@pytest.mark.parametrize("wait", [0, 5000])
def test_the_first_connection_of_a_process_may_be_exchanged(connect: Connect, aurora: LocalAurora, wait: int) -> None:
    by_name, other = aurora.readers
    connection = connect(
        host=aurora.reader_endpoint,
        wait_for_initial_topology_ms=wait,
        initial_connection_host_selector_strategy="weighted_random",
        weighted_random_host_weight_pairs=f"{other.id}:1000000000",
        application_name=NAME,
        **PLUGINS,
    )
    chosen, left = (other, by_name) if wait else (by_name, other)
    assert instance_of(connection) == chosen.id
    eventually(lambda: queries(aurora, left.id) == [], "the first connection to be closed")


def test_an_address_is_connected_to_as_it_is_unless_asked_otherwise(
    watched: Connect, connect: Connect, aurora: LocalAurora
) -> None:
    watched(host=aurora.writer.address)
    by_address = {"host": aurora.writer.address, **PLUGINS}
    assert instance_of(connect(**by_address)) == aurora.writer.id
    reader = connect(endpoint_substitution_role="reader", verify_opened_connection_type="reader", **by_address)
    assert found(reader)[1] is HostRole.READER
    limits = {"open_connection_retry_timeout_ms": 300, "open_connection_retry_interval_ms": 100}
    with pytest.raises(wrapper.AwsConnectError, match=r"led to no reader within 0.3 s: the last time it led to instance-"):
        connect(verify_opened_connection_type="reader", **limits, **by_address)


def test_the_endpoint_can_be_kept(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    watched()
    connection = connect(endpoint_substitution_role="none", verify_opened_connection_type="none", **PLUGINS)
    assert connection.info.host == aurora.writer_endpoint


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_a_connect_in_the_middle_of_a_failover_waits_for_the_new_writer(connect: Connect, aurora: LocalAurora, mode: str) -> None:
    connect(monitor_mode=mode)
    old = aurora.writer.id
    aurora.kill(old)
    aurora.promote_later(0.5, rejoin=False)
    connection = connect(monitor_mode=mode, **PLUGINS)
    assert instance_of(connection) == aurora.writer.id != old


def test_a_refused_connect_is_repeated_without_haste_and_keeps_its_error(counted: Callable[..., Any], aurora: LocalAurora) -> None:
    for instance in aurora.instances:
        aurora.kill(instance.id)
    with pytest.raises(psycopg.OperationalError, match="refused") as caught:
        counted(open_connection_retry_timeout_ms=900, open_connection_retry_interval_ms=200)
    assert type(caught.value) is psycopg.OperationalError
    assert Counted.attempts <= 7  # intervals of at least 0.15 s


def test_refused_credentials_are_not_tried_again(counted: Callable[..., Any], aurora: LocalAurora) -> None:
    aurora.refuse_logins("writer")
    with pytest.raises(psycopg.OperationalError, match="reject"):
        counted()
    assert Counted.attempts == 1


def test_what_goes_together_with_failover(watched: Connect, aurora: LocalAurora) -> None:
    """The whole list of the AWS Advanced Python Wrapper."""
    connection = watched(plugins="initial_connection,aurora_connection_tracker,failover_v2,host_monitoring_v2")
    old = aurora.writer.id
    aurora.kill(old)
    aurora.promote_later(0.2, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id != old


@pytest.mark.parametrize(
    ("instance", "parameters"),
    [
        (None, {"endpoint_substitution_role": "reader"}),
        (None, {"endpoint_substitution_role": "any"}),
        (None, {"verify_opened_connection_type": "reader"}),
        ("instance-1", {"endpoint_substitution_role": "writer"}),
        (None, {"initial_connection_host_selector_strategy": "fastest_response", "host": "reader"}),
    ],
)
def test_what_cannot_be_is_refused(connect: Connect, aurora: LocalAurora, instance: str | None, parameters: dict[str, str]) -> None:
    given = {**parameters, **({"host": aurora.reader_endpoint} if "host" in parameters else {})}
    ((name, value), *_) = parameters.items()
    with pytest.raises(wrapper.AwsWrapperError, match=f"{name}='{value}'"):
        connect(instance, **given, **PLUGINS)


def is_writer_known(lab: LocalAurora) -> bool:
    return any(state.topology.writer == f"{lab.writer.endpoint}:{lab.port}" for state in client().state.clusters.values())


def test_a_pooled_connection_may_have_been_told_another_role(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    """It was opened to a reader, which was promoted while nobody looked at the connection."""
    provider = SqlAlchemyPooledConnectionProvider()
    pooled = {"connection_provider": provider, **PLUGINS}
    try:
        watched()
        first = connect(aurora.readers[0].id, **pooled)
        backend = first.info.backend_pid
        first.close()
        aurora.failover(aurora.readers[0].id, drop_sessions=False)
        eventually(lambda: is_writer_known(aurora), "the new writer to be known")
        second = connect(**pooled)
        assert instance_of(second) == aurora.writer.id
        assert second.info.backend_pid == backend
        second.close()
    finally:
        provider.release_resources()


def test_every_instance_has_its_own_pool(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    """Connections by the endpoint's name come from the pool of the instance that they lead to: after a failover, from another."""
    provider = SqlAlchemyPooledConnectionProvider()
    pooled = {"connection_provider": provider, **PLUGINS}
    try:
        watched().close()
        for _ in range(2):
            connection = connect(**pooled)
            assert instance_of(connection) == aurora.writer.id
            connection.close()
            aurora.failover()
    finally:
        provider.release_resources()
