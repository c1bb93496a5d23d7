"""Where connects by an endpoint's name end, with MySQL, whose servers do not say of themselves what they are."""

from __future__ import annotations

import pytest

import wrapper
from wrapper.hosts import HostRole
from wrapper.testing import LocalAurora

from .conftest import Connect, one

WHO = "SELECT @@aurora_server_id"


@pytest.mark.parametrize("plugins", ["initial_connection", "stale_dns"])
def test_the_writer_endpoint_is_the_writer(connect: Connect, aurora_mysql: LocalAurora, plugins: str) -> None:
    connect(plugins=plugins)
    for _ in range(2):
        connection = connect(plugins=plugins)
        assert connection.plugin_service.current_host_info.role is HostRole.WRITER
        assert one(connection, WHO) == aurora_mysql.writer.id
        aurora_mysql.failover()


def test_the_reader_endpoint_is_each_reader_in_turn(connect: Connect, aurora_mysql: LocalAurora) -> None:
    settings = {
        "plugins": "initial_connection",
        "host": aurora_mysql.reader_endpoint,
        "initial_connection_host_selector_strategy": "round_robin",
    }
    connect(**settings)
    readers = {one(connect(**settings), WHO) for _ in range(2)}
    assert readers == {reader.id for reader in aurora_mysql.readers}


@pytest.mark.parametrize("failover", ["failover", "failover_v2"])
def test_the_whole_list(connect: Connect, aurora_mysql: LocalAurora, failover: str) -> None:
    connection = connect(plugins=f"initial_connection,aurora_connection_tracker,stale_dns,{failover}")
    old = aurora_mysql.writer.id
    aurora_mysql.kill(old)
    aurora_mysql.promote_later(0.2, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        one(connection, "SELECT 1")
    assert one(connection, WHO) == aurora_mysql.writer.id != old
