"""Failovers in which more goes wrong than a writer's end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import client, eventually
from wrapper import AwsWrapperConnection
from wrapper.monitor.state import ClusterState
from wrapper.testing import LocalAurora

from .conftest import FAST, Flavoured

pytestmark = pytest.mark.slow


def state_of(connection: Any) -> ClusterState:
    found = client().state.by_watch(connection.plugin_service.watch.key)
    assert found is not None
    return found


def assert_moved(flavoured: Flavoured, connection: Any, old: str) -> None:
    with pytest.raises(wrapper.FailoverSuccessError):
        flavoured.run(connection, "SELECT 1")
    assert flavoured.instance_of(connection) == flavoured.lab.writer.id != old


def test_every_host_restarts_while_the_writer_is_searched_for(multi_az: Flavoured) -> None:
    """A session that was opened before its host restarted is no reader's for ever: it is opened anew."""
    lab = multi_az.lab
    connection = multi_az.watched(**FAST)
    old, *readers = lab.writer.id, *(reader.id for reader in lab.readers)
    lab.kill(old)
    eventually(lambda: state_of(connection).health[f"{lab.instance(old).endpoint}:{lab.port}"].is_failing, "the search to begin")
    for reader in readers:
        lab.drop_sessions(reader)
        lab.kill(reader)
        lab.start(reader)
    lab.promote_later(0.3, rejoin=False)
    assert_moved(multi_az, connection, old)


@pytest.mark.parametrize("drop_sessions", [True, False], ids=["promoted with a restart", "promoted in place"])
def test_logins_are_refused_in_the_middle(multi_az: Flavoured, drop_sessions: bool) -> None:
    """Neither the monitor nor the connection gives a host up for it. In the second case the monitor's old session proves the writer
    while nobody can log in there."""
    lab = multi_az.lab
    connection = multi_az.watched(**FAST)
    old, new = lab.writer.id, lab.readers[0].id
    lab.refuse_logins(new)
    lab.kill(old)
    lab.promote_later(0.0, target=new, rejoin=False, drop_sessions=drop_sessions)
    lab.wait_for_promotion()
    key = f"{lab.instance(new).endpoint}:{lab.port}"
    if drop_sessions:
        eventually(lambda: not state_of(connection).health[key].accepting, "the monitor to be refused")
    else:
        eventually(lambda: state_of(connection).topology.writer == key, "the new writer to be known")
    permit = threading.Timer(1.0, lab.refuse_logins, (new, False))
    permit.start()
    assert_moved(multi_az, connection, old)
    permit.join()


def test_two_failovers_in_a_row(multi_az: Flavoured) -> None:
    """The second comes as soon as the first was published, while connections still move."""
    lab = multi_az.lab
    connection = multi_az.watched(**FAST)
    first = lab.writer.id
    lab.failover()
    lab.failover()
    if lab.writer.id != first:
        eventually(lambda: multi_az.is_superseded(connection), "the new writer to be known")
    with pytest.raises(wrapper.FailoverSuccessError):
        multi_az.run(connection, "SELECT 1")
    eventually(lambda: _on_writer(multi_az, connection), "the connection to lead to the last writer")


def _on_writer(flavoured: Flavoured, connection: Any) -> bool:
    try:
        return flavoured.instance_of(connection) == flavoured.lab.writer.id
    except wrapper.FailoverSuccessError:
        return False


def test_a_refresh_that_nobody_answers_forgets_nobody(multi_az: Flavoured) -> None:
    lab = multi_az.lab
    service = multi_az.watched().plugin_service
    before = {host.host for host in service.all_hosts}
    for instance in lab.instances:
        lab.hang(instance.id)
    assert service.force_monitoring_refresh_host_list(True, 0.5) is False
    assert {host.host for host in service.all_hosts} == before
    assert len(before) == len(lab.instances)


def test_the_others_are_known_before_the_first_failure(multi_az: Flavoured) -> None:
    """With a dialect that the application names, and an endpoint that is an address: nothing there says that there is a cluster."""
    lab = multi_az.lab
    code = {"postgresql": "multi-az-pg", "mysql": "multi-az-mysql"}[lab.engine]
    old = lab.writer
    connection = multi_az.connect(host=old.address, wrapper_dialect=code, monitor_mode="off")
    lab.kill(old.id)
    lab.promote_later(0.2, rejoin=False)
    assert_moved(multi_az, connection, old.id)


@pytest.mark.timeout(300)
def test_more_hosts_than_a_machine_has_threads_for(monkeypatch: pytest.MonkeyPatch, monitor_directory: Path) -> None:
    """Every host is asked, however many there are, and the last one may be the new writer; with the monitor and without."""
    with LocalAurora(instances=8) as lab:
        for name, value in lab.environment().items():
            monkeypatch.setenv(name, value)
        old, target = lab.writer.id, lab.readers[-1].id
        connections = [
            AwsWrapperConnection.connect(psycopg.Connection.connect, **lab.parameters(old, autocommit=True, monitor_mode=mode))
            for mode in ("auto", "off")
        ]
        lab.kill(old)
        lab.promote_later(0.2, target=target, rejoin=False)
        for connection in connections:
            with pytest.raises(wrapper.FailoverSuccessError):
                connection.execute("SELECT 1")
            host = connection.plugin_service.current_host_info
            assert host is not None
            assert host.host_id == target
            connection.close()
