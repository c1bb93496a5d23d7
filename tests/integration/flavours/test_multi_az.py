"""RDS Multi-AZ DB clusters: how they are recognised, and that a connection moves with the writer, whatever the old one does."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest

import wrapper
from tests.integration.conftest import client, eventually
from tests.integration.test_failover import Blocked
from wrapper.drivers import mysql_query, psycopg_query
from wrapper.hosts import HostRole

from .conftest import FAST, Flavoured


def test_it_is_recognised_from_every_instance(multi_az: Flavoured) -> None:
    """Also where the name that leads there says nothing: the table has the instances' whole endpoints."""
    lab = multi_az.lab
    code = {"postgresql": "multi-az-pg", "mysql": "multi-az-mysql"}[lab.engine]
    for parameters in ({"host": lab.writer.address}, *({"host": instance.endpoint} for instance in lab.instances)):
        connection = multi_az.connect(**parameters, monitor_mode="off")
        service = connection.plugin_service
        assert service.database_dialect.code == code
        assert {host.host for host in service.all_hosts} == {instance.endpoint for instance in lab.instances}
        found = service.identify_connection()
        instance = multi_az.instance_of(connection)
        assert found.host == lab.instance(instance).endpoint == service.current_host_info.host
        assert service.current_host_info.role is (HostRole.WRITER if instance == lab.writer.id else HostRole.READER)


def test_a_first_connect_takes_two_round_trips(multi_az: Flavoured, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    module = psycopg_query if multi_az.lab.engine == "postgresql" else mysql_query
    run = module.run

    def counted(*args: object) -> object:
        asked.append(args[1])
        return run(*args)

    monkeypatch.setattr(module, "run", counted)
    multi_az.connect(monitor_mode="off")
    assert len(asked) == 2, asked


def test_a_killed_writer(multi_az: Flavoured) -> None:
    connection = multi_az.watched()
    old = multi_az.instance_of(connection)
    multi_az.lab.kill(old)
    multi_az.lab.promote_later(0.2, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        multi_az.run(connection, "SELECT 1")
    assert multi_az.instance_of(connection) == multi_az.lab.writer.id != old
    assert connection.plugin_service.current_host_info.role is HostRole.WRITER


@pytest.mark.parametrize("busy", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["idle", "busy"])
def test_a_hung_writer_that_comes_back_is_not_believed(multi_az: Flavoured, busy: bool) -> None:
    lab = multi_az.lab
    connection = multi_az.watched(**FAST)
    old = multi_az.instance_of(connection)
    blocked = Blocked(connection) if busy else None
    if blocked is not None:
        eventually(lambda: multi_az.is_asleep(old), "the statement to run")
    lab.hang(old)
    lab.promote_later(0.5, rejoin=False)
    if blocked is not None:
        assert isinstance(blocked.wait(), wrapper.FailoverSuccessError)
    else:
        with pytest.raises(wrapper.FailoverSuccessError):
            multi_az.run(connection, "SELECT 1")
    assert multi_az.instance_of(connection) == lab.writer.id != old
    lab.resume(old)
    key = f"{lab.instance(old).endpoint}:{lab.port}"

    def claims() -> bool:
        cluster = client().state.by_host(key)
        return cluster is not None and not cluster.health[key].is_failing and cluster.health[key].role == "writer"

    eventually(claims, "the old writer to tell the monitor that it is the writer")
    cluster = client().state.by_host(key)
    assert cluster is not None
    assert cluster.topology.writer == f"{lab.writer.endpoint}:{lab.port}"
    with suppress(wrapper.FailoverSuccessError):
        # It may have been lost once more: a machine that is busy makes a healthy host look silent to these settings.
        multi_az.run(connection, "SELECT 1")
    assert multi_az.instance_of(connection) == lab.writer.id


@pytest.mark.slow
def test_a_planned_switchover(multi_az: Flavoured) -> None:
    connection = multi_az.watched()
    old = multi_az.instance_of(connection)
    multi_az.lab.failover()
    eventually(lambda: multi_az.is_superseded(connection), "the new writer to be known")
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        multi_az.run(connection, "SELECT 1")
    assert caught.value.outcome == "not_sent"
    assert multi_az.instance_of(connection) == multi_az.lab.writer.id != old


@pytest.mark.slow
def test_a_killed_reader(multi_az: Flavoured) -> None:
    first, second = multi_az.lab.readers
    connection = multi_az.watched(first.id, failover_mode="strict_reader")
    multi_az.lab.kill(first.id)
    with pytest.raises(wrapper.FailoverSuccessError):
        multi_az.run(connection, "SELECT 1")
    assert multi_az.instance_of(connection) == second.id


@pytest.mark.slow
def test_without_a_monitor(multi_az: Flavoured) -> None:
    """From a reader at first, whose session need not know who the writer is."""
    lab = multi_az.lab
    connection = multi_az.connect(lab.readers[0].id, monitor_mode="off", failover_mode="strict_writer")
    lab.kill(multi_az.instance_of(connection))
    with pytest.raises(wrapper.FailoverSuccessError):
        multi_az.run(connection, "SELECT 1")
    old = multi_az.instance_of(connection)
    assert old == lab.writer.id
    lab.kill(old)
    lab.promote_later(0.2, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        multi_az.run(connection, "SELECT 1")
    assert multi_az.instance_of(connection) == lab.writer.id != old


@pytest.mark.slow
def test_endpoints_lead_to_their_roles(multi_az: Flavoured) -> None:
    lab = multi_az.lab
    multi_az.watched()
    for _ in range(2):
        writer = multi_az.connect(plugins="initial_connection,failover_v2")
        assert multi_az.instance_of(writer) == lab.writer.id
        reader = multi_az.connect(host=lab.reader_endpoint, plugins="initial_connection,failover_v2")
        assert multi_az.instance_of(reader) != lab.writer.id
        lab.failover()
        eventually(partial(multi_az.is_superseded, writer), "the new writer to be known")
