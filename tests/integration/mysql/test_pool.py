"""MySQL connections from a pool inside the wrapper go back as they came."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wrapper.providers.sqlalchemy_pool import SqlAlchemyPooledConnectionProvider
from wrapper.testing import LocalAurora

from .conftest import Connect, one


@pytest.fixture
def pool() -> Iterator[SqlAlchemyPooledConnectionProvider]:
    """Pools for whatever host."""
    provider = SqlAlchemyPooledConnectionProvider(accept_url_func=lambda *_: True)
    yield provider
    provider.release_resources()


def test_it_is_reused_without_what_was_set(
    aurora_mysql: LocalAurora, connect: Connect, pool: SqlAlchemyPooledConnectionProvider
) -> None:
    first = connect(aurora_mysql.writer.id, connection_provider=pool)
    session = one(first, "SELECT CONNECTION_ID()")
    was = one(first, "SELECT @@sql_mode"), one(first, "SELECT @@time_zone")
    first.time_zone = "+02:00"
    first.sql_mode = "ANSI_QUOTES"
    first.autocommit = False
    first.close()
    assert first.is_closed
    second = connect(aurora_mysql.writer.id, connection_provider=pool)
    assert one(second, "SELECT CONNECTION_ID()") == session
    assert (one(second, "SELECT @@sql_mode"), one(second, "SELECT @@time_zone")) == was
    assert one(second, "SELECT @@autocommit") == 1


@pytest.mark.parametrize("how", [{}, {"prepared": True}], ids=["plain", "prepared"])
@pytest.mark.parametrize("resets", [True, False])
def test_rows_that_nobody_fetched_are_nobodys(
    aurora_mysql: LocalAurora, connect: Connect, pool: SqlAlchemyPooledConnectionProvider, resets: bool, how: dict[str, bool]
) -> None:
    first = connect(aurora_mysql.writer.id, connection_provider=pool, reset_session_state_on_close=resets)
    cursor = first.cursor(**how)
    cursor.execute("SELECT 1 UNION SELECT 2")
    first.close()
    second = connect(aurora_mysql.writer.id, connection_provider=pool)
    assert one(second, "SELECT 3") == 3


def test_one_that_died_in_the_pool_is_not_handed_out(
    aurora_mysql: LocalAurora, connect: Connect, pool: SqlAlchemyPooledConnectionProvider
) -> None:
    writer = aurora_mysql.writer.id
    first = connect(writer, connection_provider=pool)
    first.cursor()
    first.close()
    aurora_mysql.drop_sessions(writer)
    second = connect(writer, connection_provider=pool, plugins="host_monitoring_v2")
    assert one(second, "SELECT 1") == 1
