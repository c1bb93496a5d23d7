"""Which host a new connection leads to, told without asking the server: a session that was never asked has an empty last query."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import wrapper
from tests.integration.conftest import client, eventually
from tests.integration.test_failover import instance_of
from wrapper.hosts import HostRole
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
NAME = "under-test"


def queries(lab: LocalAurora, instance: str) -> list[str]:
    """The last query of each session under test."""
    return [session["query"] for session in lab.sessions(instance) if session["application_name"] == NAME]


def found(connection: Any) -> tuple[str | None, HostRole]:
    host = connection.plugin_service.current_host_info
    return host.host_id, host.role


def test_the_first_connection_asks(connect: Connect, aurora: LocalAurora) -> None:
    """Also shows that a question would be seen."""
    connection = connect(application_name=NAME)
    assert found(connection) == (aurora.writer.id, HostRole.WRITER)
    assert "aurora_replica_status" in queries(aurora, aurora.writer.id)[0]


def test_by_the_clusters_endpoint(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    watched()
    assert found(connect(application_name=NAME)) == (aurora.writer.id, HostRole.WRITER)
    assert queries(aurora, aurora.writer.id) == [""]


def test_by_the_endpoint_of_an_instance(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    watched()
    for instance in aurora.instances:
        connection = connect(instance.id, application_name=NAME)
        role = HostRole.WRITER if instance == aurora.writer else HostRole.READER
        assert found(connection) == (instance.id, role)
        assert queries(aurora, instance.id) == [""]
        assert instance_of(connection) == instance.id


def test_failover_of_a_connection_that_never_asked(connect: Connect, aurora: LocalAurora) -> None:
    """Without a monitor, all that it has to go by is what another connection of the process read."""
    connect(monitor_mode="off")
    old = aurora.writer.id
    connection = connect(old, monitor_mode="off", application_name=NAME)
    assert queries(aurora, old) == [""]
    aurora.kill(old)
    aurora.promote_later(0.2, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert found(connection) == (aurora.writer.id, HostRole.WRITER)
    assert instance_of(connection) == aurora.writer.id != old


def test_by_the_reader_endpoint(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    watched()
    connect(host=aurora.reader_endpoint)
    connection = connect(host=aurora.reader_endpoint, application_name=NAME)
    instance, role = found(connection)
    assert role is HostRole.READER
    assert instance is not None
    assert queries(aurora, instance) == [""]
    assert instance_of(connection) == instance


def test_by_address(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    reader = aurora.readers[0]
    watched(host=reader.address)
    connection = connect(host=reader.address, application_name=NAME)
    assert found(connection) == (reader.id, HostRole.READER)
    assert queries(aurora, reader.id) == [""]


@pytest.mark.parametrize("by", ["reader_endpoint", "address"])
def test_by_an_endpoint_that_is_new_to_the_process(watched: Connect, connect: Connect, aurora: LocalAurora, by: str) -> None:
    """The cluster is known by another one of its endpoints, and the address is that of a member."""
    watched()
    host = aurora.reader_endpoint if by == "reader_endpoint" else aurora.readers[0].address
    connection = connect(host=host, application_name=NAME)
    assert connection.plugin_service.database_dialect.code == "aurora-pg"
    assert len(connection.plugin_service.all_hosts) == len(aurora.instances)
    instance, role = found(connection)
    assert role is HostRole.READER
    assert instance is not None
    assert queries(aurora, instance) == [""]
    assert instance_of(connection) == instance


def test_a_role_that_changed_is_noticed(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    """The process knows nothing of the failover yet when it connects; the server says of its own accord what it is."""
    watched()
    old, new = aurora.writer, aurora.readers[0]
    client().close()  # nothing published reaches this process any more
    aurora.failover(new.id)
    key = f"{old.endpoint}:{old.port}"
    known = client().state.by_host(key)
    assert known is not None
    assert known.topology.writer == key
    assert found(connect(old.id, application_name=NAME)) == (old.id, HostRole.READER)
    connection = connect(new.id, application_name=NAME)
    assert found(connection) == (new.id, HostRole.WRITER)
    # What contradicts what is known is not taken from the driver alone: the server was asked, and the process knows.
    assert "aurora_replica_status" in queries(aurora, new.id)[0]
    known = connection.plugin_service.known_cluster.local
    assert known is not None
    assert known.topology.writer == f"{new.endpoint}:{new.port}"


def test_an_endpoint_that_leads_to_another_role_is_asked_about(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    watched()
    client().close()
    aurora.failover()
    connection = connect(application_name=NAME)
    assert found(connection) == (instance_of(connection), HostRole.WRITER)
    assert found(connection)[0] == aurora.writer.id


def test_the_writers_old_name_leads_to_the_writer_at_the_first_write(
    watched: Connect, connect: Connect, aurora: LocalAurora
) -> None:
    watched()
    old = aurora.writer.id
    aurora.failover()
    connection = connect(old)
    assert found(connection) == (old, HostRole.READER)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("CREATE TABLE never (x int)")
    assert found(connection) == (aurora.writer.id, HostRole.WRITER)
    eventually(lambda: instance_of(connection) == aurora.writer.id, "the connection to lead to the writer")
