"""`failover`: what sets it apart from `failover_v2`, and what it must do better than in the AWS Advanced Python Wrapper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import eventually
from tests.integration.test_failover import instance_of, is_superseded
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
V1 = {"plugins": "failover,host_monitoring_v2"}
V2 = {"plugins": "failover_v2,host_monitoring_v2"}


def test_every_failure_of_a_writer_is_survived(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(**V1)
    for _ in range(3):
        old = aurora.writer.id
        aurora.kill("writer")
        aurora.promote_later(0.1, rejoin=False)
        with pytest.raises(wrapper.FailoverSuccessError):
            connection.execute("SELECT 1")
        assert instance_of(connection) == aurora.writer.id != old
        aurora.start(old)


def test_every_failure_of_a_reader_is_survived(watched: Connect, aurora: LocalAurora) -> None:
    first, second = (reader.id for reader in aurora.readers)
    connection = watched(first, failover_mode="strict_reader", **V1)
    for lost, other in ((first, second), (second, first), (first, second)):
        assert instance_of(connection) == lost
        aurora.kill(lost)
        with pytest.raises(wrapper.FailoverSuccessError):
            connection.execute("SELECT 1")
        assert instance_of(connection) == other
        aurora.start(lost)


def test_a_reader_endpoint_may_end_at_the_writer(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(host=aurora.reader_endpoint, **V1)
    for reader in aurora.readers:
        aurora.kill(reader.id)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id


def test_an_open_transaction_ends_with_its_fate_unknown(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(autocommit=False, **V1)
    connection.execute("SELECT 1")
    aurora.kill("writer")
    aurora.promote_later(0.1, rejoin=False)
    with pytest.raises(wrapper.TransactionResolutionUnknownError):
        connection.execute("SELECT 1")


def test_a_refused_write_moves_v2_only(watched: Connect, aurora: LocalAurora) -> None:
    reader = aurora.readers[0].id
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
        watched(reader, **V1).execute("CREATE TABLE never (x int)")
    assert not isinstance(caught.value, wrapper.FailoverError)
    with pytest.raises(wrapper.FailoverSuccessError):
        watched(reader, **V2).execute("CREATE TABLE never (x int)")


def test_a_writer_that_was_replaced_and_still_works_is_left_by_v2_only(watched: Connect, aurora: LocalAurora) -> None:
    patient = {"failure_detection_interval_ms": 5000, "failure_detection_enabled": False}
    first, second = watched(**V1, **patient), watched(**V2, **patient)
    old = aurora.writer.id
    aurora.hang(old)
    aurora.failover(rejoin=False)
    eventually(lambda: is_superseded(first), "the new writer to be known")
    aurora.resume(old)
    assert instance_of(first) == old
    with pytest.raises(wrapper.FailoverSuccessError):
        second.execute("SELECT 1")


def test_errors_of_statements_are_the_drivers_own(watched: Connect) -> None:
    connection = watched(**V1)
    connection.execute("CREATE TEMPORARY TABLE once (x int PRIMARY KEY)")
    connection.execute("INSERT INTO once VALUES (1)")
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        connection.execute("INSERT INTO once VALUES (1)")
    assert type(caught.value) is psycopg.errors.UniqueViolation


@pytest.mark.parametrize("version", [V1, V2], ids=["failover", "failover_v2"])
def test_it_can_be_switched_off(watched: Connect, aurora: LocalAurora, version: dict[str, Any]) -> None:
    connection = watched(enable_failover=False, **version)
    aurora.kill("writer")
    with pytest.raises(psycopg.OperationalError) as caught:
        connection.execute("SELECT 1")
    assert not isinstance(caught.value, wrapper.FailoverError)


def test_opening_fails_over_only_when_asked(watched: Connect, aurora: LocalAurora) -> None:
    watched(**V1)
    reader = aurora.readers[0].id
    aurora.kill(reader)
    with pytest.raises(psycopg.OperationalError, match=r"refused|does not answer"):
        watched(reader, **V1)
    connection = watched(reader, enable_connect_failover=True, **V1)
    assert instance_of(connection) == aurora.writer.id


def test_its_parameters_are_accepted(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(
        failover_timeout_sec=20,
        failover_cluster_topology_refresh_rate_sec=0.1,
        failover_writer_reconnect_interval_sec=60,
        failover_reader_connect_timeout_sec="5",
        **V1,
    )
    aurora.kill("writer")
    aurora.start(aurora.writer.id)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id


def test_two_failover_plugins_are_refused(connect: Connect) -> None:
    with pytest.raises(wrapper.AwsWrapperError, match="failover and failover_v2 do the same work"):
        connect(plugins="failover,failover_v2")
