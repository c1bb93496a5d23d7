"""Logins that are refused while everything runs: by the hosts of a failover, and to the monitor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import wrapper
from tests.drivers import ask
from tests.integration.conftest import client, drivers, eventually
from wrapper.drivers.classify import ErrorKind
from wrapper.plugins import failover_v2
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
MYSQL = ("mysql-pure", "mysql-extension")


@drivers("psycopg", slow=MYSQL)
def test_a_failover_that_nobody_lets_in_ends_with_the_login_error(
    watched: Connect, lab: LocalAurora, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover_v2, "LOGIN_PATIENCE", 0.5)
    connection = watched(failover_timeout_sec=600.0)
    driver = connection.plugin_service.driver_dialect
    for instance in lab.instances:
        lab.refuse_logins(instance.id)
    # The monitor is logged out, too: no host can prove anything to anybody.
    for instance in lab.instances:
        lab.drop_sessions(instance.id)
    with pytest.raises(wrapper.FailoverFailedError, match="no host that answers accepts the login: ") as caught:
        ask(connection, "SELECT 1")
    assert isinstance(caught.value, driver.operational_error())
    assert isinstance(caught.value.driver_error, Exception)
    assert driver.classify(caught.value.driver_error) is ErrorKind.LOGIN
    eventually(
        lambda: not any(health.is_failing for cluster in client().state.clusters.values() for health in cluster.health.values()),
        "no host to be called failing",
    )
    for instance in lab.instances:
        lab.refuse_logins(instance.id, False)
    assert ask(watched(), "SELECT 1") == [(1,)]


@pytest.mark.slow
@drivers("psycopg", *MYSQL)
def test_a_login_error_is_told_when_the_time_is_over_first(watched: Connect, lab: LocalAurora) -> None:
    connection = watched(failover_timeout_sec=8.0)
    for instance in lab.instances:
        lab.refuse_logins(instance.id)
    for instance in lab.instances:
        lab.drop_sessions(instance.id)
    with pytest.raises(wrapper.FailoverFailedError, match="no host that answers accepts the login: "):
        ask(connection, "SELECT 1")
