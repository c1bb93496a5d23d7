"""Connection providers: which hosts they take, which connections are the same, and what bad input gets."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import wrapper
from wrapper.drivers import driver_dialect_for
from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.hosts import HostAvailability, HostInfo, HostRole
from wrapper.presets import POOL_ARGUMENTS, internal_pool
from wrapper.providers import ConnectionProviderManager, DriverConnectionProvider, SqlAlchemyPooledConnectionProvider
from wrapper.session_state import SessionState

HOST = HostInfo("i-1.xyz.us-east-2.rds.amazonaws.com", 5432)


class Connection(psycopg.Connection[Any]):
    """A connection that was never opened, for what concerns the pool alone."""

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Any:
        opened.append(kwargs)
        connection = cls(psycopg.pq.PGconn.connect_start(b"not_a_keyword="))
        connection._autocommit = kwargs.get("autocommit", False)
        return connection


opened: list[dict[str, Any]] = []
dialect: Any = driver_dialect_for(Connection.connect)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    opened.clear()
    ConnectionProviderManager.reset_provider()


def lend(provider: SqlAlchemyPooledConnectionProvider, host: HostInfo = HOST, **props: Any) -> Any:
    return provider.connect(Connection.connect, dialect, None, host, {"host": host.host, "user": "u", "dbname": "d", **props})


# -- which hosts -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "host_id", "accepted"),
    [
        ("i-1.xyz.us-east-2.rds.amazonaws.com", None, True),
        ("instance-1.c13e172b.local-1.rds.test", None, True),
        ("db.cluster-xyz.us-east-2.rds.amazonaws.com", None, False),
        ("db.cluster-ro-xyz.us-east-2.rds.amazonaws.com", None, False),
        ("db.cluster-custom-xyz.us-east-2.rds.amazonaws.com", None, False),
        ("p.proxy-xyz.us-east-2.rds.amazonaws.com", None, False),
        ("g.global-xyz.global.rds.amazonaws.com", None, False),
        ("db.cluster-xyz.us-east-2.rds.amazonaws.com", "i-1", False),
        ("db.example.com", None, False),
        ("10.0.0.1", None, False),
        ("i-1.example.com", "i-1", True),
        ("10.0.0.1", "1", True),
    ],
)
def test_instances_are_pooled(host: str, host_id: str | None, accepted: bool) -> None:
    assert SqlAlchemyPooledConnectionProvider().accepts_host_info(HostInfo(host, 5432, host_id=host_id), {}) is accepted


def test_a_function_decides_instead() -> None:
    provider = SqlAlchemyPooledConnectionProvider(accept_url_func=lambda host_info, props: props["user"] == "u")
    assert provider.accepts_host_info(HostInfo("db.example.com"), {"user": "u"})
    assert not provider.accepts_host_info(HOST, {"user": "v"})


def test_a_host_that_is_not_accepted_is_the_drivers() -> None:
    provider = SqlAlchemyPooledConnectionProvider()
    manager = ConnectionProviderManager(provider)
    assert manager.get_connection_provider(HOST, {}) is provider
    assert manager.get_connection_provider(HostInfo("db.example.com"), {}) is manager.default_provider


def test_strategies() -> None:
    provider = SqlAlchemyPooledConnectionProvider()
    hosts = [HostInfo(f"i-{n}.xyz.us-east-2.rds.amazonaws.com", 5432, HostRole.READER) for n in range(3)]
    lent = [lend(provider, host) for host in (hosts[0], hosts[0], hosts[1], hosts[2], hosts[2])]

    def chosen(hosts: list[HostInfo], role: HostRole = HostRole.READER, strategy: str = "least_connections") -> HostInfo | None:
        return provider.get_host_info_by_strategy(hosts, role, strategy, {})

    assert chosen(hosts) == chosen(hosts, HostRole.UNKNOWN) == hosts[1]
    lost = HostInfo(hosts[1].host, 5432, HostRole.READER, HostAvailability.UNAVAILABLE)
    assert chosen([hosts[0], lost]) == hosts[0]
    assert chosen([lost]) is None
    assert chosen(hosts, HostRole.WRITER) is None
    assert {chosen(hosts, strategy="round_robin") for _ in range(3)} == set(hosts)
    assert provider.accepts_strategy(HostRole.READER, "weighted_random")
    assert not provider.accepts_strategy(HostRole.READER, "fastest_response")
    with pytest.raises(UnsupportedOperationError, match="fastest_response"):
        chosen(hosts, strategy="fastest_response")
    for pooled in lent:
        pooled.invalidate()


# -- which connections are the same ------------------------------------------------------------------------------------------------


def made_for_this_call() -> Any:
    return lambda cursor: None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, True),
        ({"password": "a"}, {"password": "b"}, True),
        ({"row_factory": made_for_this_call()}, {"row_factory": made_for_this_call()}, True),
        ({"autocommit": True}, {"autocommit": False}, True),
        ({"autocommit": True}, {}, False),
        ({"prepare_threshold": None}, {"prepare_threshold": 5}, False),
        ({"user": "a"}, {"user": "b"}, False),
        ({"dbname": "a"}, {"dbname": "b"}, False),
        ({"sslmode": "require"}, {}, False),
        ({"options": "-c x=1"}, {"options": "-c x=2"}, False),
        ({"options": ["unhashable"]}, {"options": ["unhashable"]}, True),
    ],
)
def test_keys(one: dict[str, Any], other: dict[str, Any], same: bool) -> None:
    provider = SqlAlchemyPooledConnectionProvider()
    for props in (one, other):
        lend(provider, **props).invalidate()
    assert provider.num_pools == (1 if same else 2)


def test_a_key_shows_no_secrets() -> None:
    provider = SqlAlchemyPooledConnectionProvider()
    lend(provider, password="geheim", sslpassword="geheim").invalidate()
    (key,) = provider.keys()
    assert "geheim" not in repr(key)
    assert (key.url, key.extra, key.database) == (HOST.url, "u", "d")


def test_a_connect_function_has_pools_of_its_own() -> None:
    class Special(Connection):
        """Another class of connections."""

    provider = SqlAlchemyPooledConnectionProvider()
    lend(provider).invalidate()
    pooled = provider.connect(Special.connect, dialect, None, HOST, {"host": HOST.host, "user": "u", "dbname": "d"})
    assert isinstance(pooled.driver_connection, Special | None)
    assert provider.num_pools == 2


def test_each_physical_connection_is_opened_with_the_arguments_of_who_asked() -> None:
    provider = SqlAlchemyPooledConnectionProvider()
    lent = [lend(provider, password=password) for password in ("a", "b")]
    assert [arguments["password"] for arguments in opened] == ["a", "b"]
    assert opened[0] == {"host": HOST.host, "port": 5432, "user": "u", "dbname": "d", "password": "a"}
    for pooled in lent:
        pooled.invalidate()


def test_what_the_driver_raises_passes_through_and_takes_no_place() -> None:
    error = psycopg.OperationalError("connection failed")

    def refuse(**arguments: Any) -> Any:
        raise error

    provider = SqlAlchemyPooledConnectionProvider(lambda host_info, props: {"pool_size": 1, "max_overflow": 0, "timeout": 0.01})
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError) as caught:
            provider.connect(refuse, dialect, None, HOST, {"host": HOST.host, "user": "u"})
        assert caught.value is error


# -- what is lent ------------------------------------------------------------------------------------------------------------------


def test_giving_back_and_throwing_away_more_than_once_is_harmless() -> None:
    provider = SqlAlchemyPooledConnectionProvider(lambda host_info, props: {"pool_size": 1, "max_overflow": 0, "timeout": 0.01})
    first = lend(provider)
    connection = first.driver_connection
    first.close()
    second = lend(provider)
    assert second.driver_connection is connection
    for end in (first.close, first.invalidate, first.detach):
        end()
    with pytest.raises(wrapper.OperationalError, match="1 pooled connections"):
        lend(provider)
    second.invalidate()
    second.close()
    third = lend(provider)
    assert third.driver_connection is not connection
    third.detach()
    assert len(opened) == 2
    lend(provider).invalidate()


def test_a_used_connection_that_cannot_be_set_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = SqlAlchemyPooledConnectionProvider(lambda host_info, props: {"pool_size": 1, "max_overflow": 0, "timeout": 0.01})

    def fail(connection: Any, state: SessionState) -> None:
        raise psycopg.ProgrammingError("not now")

    with monkeypatch.context() as context:
        context.setattr(dialect, "set_session_state", fail)
        with pytest.raises(psycopg.ProgrammingError):
            lend(provider)
    lend(provider).invalidate()


# -- bad input ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pool_expiration_check_ns", "pool_cleanup_interval_ns"])
@pytest.mark.parametrize("value", [0, -2, "soon", 1.5])
def test_durations(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(AwsWrapperError, match=rf"{name}={value!r}.*at least 1.* minutes"):
        SqlAlchemyPooledConnectionProvider(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (None, "NoneType: expected a dict"),
        ({"size": 5}, "size"),
        ({"pool_size": "5"}, "QueuePool does not take"),
        ({"pre_ping": True}, "pre_ping"),
    ],
)
def test_what_the_configurator_returns(options: Any, message: str) -> None:
    provider = SqlAlchemyPooledConnectionProvider(lambda host_info, props: options)
    with pytest.raises(AwsWrapperError, match=f"pool_configurator returned.*{message}"):
        lend(provider)
    assert provider.num_pools == 0


def test_a_pool_is_somebodys() -> None:
    with pytest.raises(AwsWrapperError, match="user is not given"):
        lend(SqlAlchemyPooledConnectionProvider(), user="")
    mapping: Any = lambda host_info, props: 7  # noqa: E731
    with pytest.raises(AwsWrapperError, match="pool_mapping returned a value of type int"):
        lend(SqlAlchemyPooledConnectionProvider(pool_mapping=mapping))


# -- the process -------------------------------------------------------------------------------------------------------------------


def test_releasing_the_wrappers_resources_releases_the_installed_provider() -> None:
    provider = SqlAlchemyPooledConnectionProvider()
    ConnectionProviderManager.set_connection_provider(provider)
    connection = provider.connect(Connection.connect, dialect, None, HOST, {"host": HOST.host, "user": "u"})
    connection.close()
    wrapper.release_resources()
    assert provider.num_pools == 0


def test_a_child_does_not_touch_the_pool_that_its_parent_lent_from() -> None:
    """Its locks may have been held by a thread of the parent's that does not exist in the child."""
    script = """
import os
from tests.unit.test_providers import SqlAlchemyPooledConnectionProvider, lend

provider = SqlAlchemyPooledConnectionProvider()
pooled = lend(provider)
connection = pooled.driver_connection
(pool,) = provider._pools.copy().values()
child = os.fork()
if child == 0:
    for end in (pooled.detach, pooled.close, pooled.invalidate):
        end()
    del connection
    provider.release_resources()
    os._exit(0 if pool.queue.checkedout() == 1 and provider.num_pools == 0 else 1)
_, status = os.waitpid(child, 0)
pooled.close()
assert pool.queue.checkedout() == 0
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_the_pool_of_the_presets_has_their_size() -> None:
    provider = internal_pool()
    lend(provider).invalidate()
    (pool,) = provider._pools.copy().values()
    assert (pool.queue.size(), pool.queue.timeout()) == (POOL_ARGUMENTS["pool_size"], POOL_ARGUMENTS["timeout"])


def test_the_drivers_provider_lends_nothing() -> None:
    connection = DriverConnectionProvider().connect(Connection.connect, dialect, None, HOST, {"host": "elsewhere", "user": "u"})
    assert isinstance(connection, Connection)
    assert opened == [{"host": HOST.host, "port": 5432, "user": "u"}]


def test_sqlalchemy_is_loaded_by_those_who_use_it() -> None:
    script = "import sys, wrapper.connection, wrapper.providers; raise SystemExit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
