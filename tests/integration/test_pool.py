"""Connections from `SqlAlchemyPooledConnectionProvider`, on real servers and under real faults."""

from __future__ import annotations

import gc
import textwrap
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row, namedtuple_row
from sqlalchemy.exc import DisconnectionError

import wrapper
from tests.integration.conftest import Connect, client, eventually
from tests.integration.test_failover import FAST
from tests.integration.test_fork import run
from wrapper.drivers.classify import ErrorKind
from wrapper.drivers.psycopg_errors import classify
from wrapper.errors import AwsConnectError, AwsWrapperError, PoolTimeoutError
from wrapper.hosts import HostRole
from wrapper.profiles import ConfigurationProfile, DriverConfigurationProfiles
from wrapper.providers import ConnectionProviderManager, SqlAlchemyPooledConnectionProvider
from wrapper.session_state import SessionStateTransferHandlers
from wrapper.testing import LocalAurora

NAME = "pooled"


def sized(size: int, overflow: int = 0, timeout: float = 0.05) -> Callable[..., dict[str, Any]]:
    return lambda host_info, props: {"pool_size": size, "max_overflow": overflow, "timeout": timeout}


@pytest.fixture
def make_pool() -> Iterator[Callable[..., SqlAlchemyPooledConnectionProvider]]:
    """Makes providers, and closes their connections at the end."""
    made: list[SqlAlchemyPooledConnectionProvider] = []

    def make(*args: Any, **kwargs: Any) -> SqlAlchemyPooledConnectionProvider:
        made.append(SqlAlchemyPooledConnectionProvider(*args, **kwargs))
        return made[-1]

    yield make
    ConnectionProviderManager.reset_provider()
    for provider in made:
        provider.release_resources()


MakePool = Callable[..., SqlAlchemyPooledConnectionProvider]


@pytest.fixture
def provider(make_pool: MakePool) -> SqlAlchemyPooledConnectionProvider:
    return make_pool(sized(2))


@pytest.fixture
def pooled(connect: Connect, provider: SqlAlchemyPooledConnectionProvider, aurora: LocalAurora) -> Connect:
    """Connects through the provider, by default to the writer's instance endpoint."""
    return partial(connect, instance=aurora.writer.id, connection_provider=provider, application_name=NAME)


@pytest.fixture
def unheld(provider: SqlAlchemyPooledConnectionProvider, aurora: LocalAurora, monitor_directory: Path) -> Connect:
    """The same, but nobody else holds the connections."""
    dsn = aurora.dsn(aurora.writer.id, application_name=NAME)
    return partial(wrapper.connect, psycopg.Connection.connect, dsn, connection_provider=provider, autocommit=True)


def backend(connection: Any) -> int:
    return int(connection.execute("SELECT pg_backend_pid()").fetchone()[0])


def sessions(lab: LocalAurora, instance: str | None = None) -> list[int]:
    """The server's side of pooled connections, by default the writer's."""
    return [session["pid"] for session in lab.sessions(instance or lab.writer.id) if session["application_name"] == NAME]


def value(connection: Any, name: str) -> Any:
    return connection.execute("SELECT current_setting(%s)", (name,)).fetchone()[0]


# -- lending and giving back -------------------------------------------------------------------------------------------------------


def test_a_closed_connection_serves_the_next_one(pooled: Connect) -> None:
    first = pooled()
    session = backend(first)
    cursor = first.cursor()
    first.close()
    assert first.closed
    with pytest.raises(psycopg.OperationalError, match="closed"):
        first.execute("SELECT 1")
    with pytest.raises(AwsWrapperError, match="replaced"):
        cursor.execute("SELECT 1")
    second = pooled()
    assert backend(second) == session
    first.close()  # once more: it is the second one's now
    assert backend(second) == session
    assert backend(pooled()) != session


def test_a_with_block_gives_back(pooled: Connect) -> None:
    with pooled(autocommit=False) as connection:
        session = backend(connection)
        connection.execute("CREATE TEMP TABLE t AS SELECT 1")
    with pooled(autocommit=False) as connection:
        assert backend(connection) == session
        assert connection.execute("SELECT * FROM t").fetchone() == (1,), "leaving the block did not commit"


def test_session_state_is_put_back(pooled: Connect) -> None:
    connection = pooled()
    session, timezone, style = backend(connection), value(connection, "TimeZone"), value(connection, "IntervalStyle")
    connection.row_factory = dict_row
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.read_only = True
    connection.prepare_threshold = None
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    connection.execute("SET IntervalStyle = 'iso_8601'")
    connection.execute("SET application_name = 'somebody else'")
    connection.autocommit = False
    connection.close()
    connection = pooled()
    assert backend(connection) == session
    assert (connection.autocommit, connection.isolation_level, connection.read_only) == (True, None, None)
    assert connection.prepare_threshold == 5
    assert [value(connection, name) for name in ("TimeZone", "IntervalStyle", "application_name")] == [timezone, style, NAME]


def test_an_open_transaction_is_rolled_back(pooled: Connect, aurora: LocalAurora) -> None:
    connection = pooled()
    session = backend(connection)
    connection.execute("CREATE TEMP TABLE kept (x int)")
    connection.autocommit = False
    connection.execute("INSERT INTO kept VALUES (1)")
    connection.close()
    states = [entry["state"] for entry in aurora.sessions(aurora.writer.id) if entry["pid"] == session]
    assert states == ["idle"], "a transaction is open on the idle connection"
    connection = pooled()
    assert backend(connection) == session
    assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_what_is_asked_for_in_connect_holds_for_a_used_connection(
    pooled: Connect, provider: SqlAlchemyPooledConnectionProvider
) -> None:
    """Row factories are often made for one call: they need no pool of their own."""
    first = pooled(row_factory=lambda cursor: dict_row(cursor), autocommit=True)
    session = first.execute("SELECT pg_backend_pid() AS pid").fetchone()["pid"]
    first.close()
    second = pooled(row_factory=lambda cursor: namedtuple_row(cursor), autocommit=False)
    assert second.execute("SELECT pg_backend_pid() AS pid").fetchone().pid == session
    assert second.autocommit is False
    second.close()
    assert provider.num_pools == 1
    assert pooled().execute("SELECT 1").fetchone() == (1,)
    assert provider.num_pools == 2, "without a row factory it must be the driver's default again"


def test_a_connection_that_cannot_be_reset_leaves_the_pool(pooled: Connect, aurora: LocalAurora) -> None:
    connection = pooled(autocommit=False)
    session = backend(connection)
    handle = connection.plugin_service.physical(connection.target_connection).handle
    handle.shut_down()
    connection.close()
    assert backend(pooled(autocommit=False)) != session
    eventually(lambda: session not in sessions(aurora), "the lost session to end")


def test_exhaustion_says_what_to_do(pooled: Connect) -> None:
    held = [pooled(), pooled()]
    with pytest.raises(PoolTimeoutError, match=r"2 pooled connections to instance-\d\.\S+:\d+ .* 0.05 s.*pool_size") as caught:
        pooled()
    assert isinstance(caught.value, psycopg.OperationalError)
    assert classify(caught.value) is ErrorKind.OTHER, "a full pool is no failure of the host"
    held[0].close()
    pooled()


def test_a_connection_that_is_forgotten_frees_its_place_at_once(unheld: Connect, pooled: Connect, aurora: LocalAurora) -> None:
    gc.disable()
    try:
        for _ in range(5):
            connection = unheld()
            connection.execute("SELECT 1")
            with pytest.warns(ResourceWarning, match="deleted while still open"):
                del connection
    finally:
        gc.enable()
    mine = sorted(backend(connection) for connection in [pooled(), pooled()])
    eventually(lambda: sorted(sessions(aurora)) == mine, "the forgotten sessions to end")


def test_a_cursor_keeps_a_forgotten_connection_alive(unheld: Connect, pooled: Connect) -> None:
    """As it does with the driver's own."""
    connection = unheld()
    session, cursor = backend(connection), connection.cursor()
    del connection
    assert cursor.execute("SELECT pg_backend_pid()").fetchone() == (session,)
    with pytest.warns(ResourceWarning, match="deleted while still open"):
        del cursor
    assert backend(pooled()) != backend(pooled())


def test_threads_share_a_provider(connect: Connect, make_pool: MakePool, aurora: LocalAurora) -> None:
    provider = make_pool(sized(3, timeout=20))
    in_use: set[int] = set()
    errors: list[BaseException] = []
    ready = threading.Barrier(8)
    writer = aurora.writer.id

    def work() -> None:
        try:
            ready.wait(10)
            for _ in range(20):
                with connect(writer, connection_provider=provider, application_name=NAME) as connection:
                    session = backend(connection)
                    assert session not in in_use, "two threads have the same session"
                    in_use.add(session)
                    connection.execute("SELECT pg_sleep(0.001)")
                    in_use.remove(session)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)
    assert provider.num_pools == 1
    assert 1 <= len(sessions(aurora)) <= 3


# -- which pool --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def another_user(aurora: LocalAurora) -> Iterator[str]:
    writer = aurora.writer.id
    with psycopg.connect(aurora.admin_dsn(writer), autocommit=True) as admin:
        admin.execute("CREATE ROLE other LOGIN PASSWORD 'first'")
        admin.execute("CREATE DATABASE other OWNER other")
        try:
            yield "other"
        finally:
            admin.execute("DROP DATABASE other WITH (FORCE)")
            admin.execute("DROP OWNED BY other")
            admin.execute("DROP ROLE other")


def test_users_and_databases_never_share(
    pooled: Connect, provider: SqlAlchemyPooledConnectionProvider, another_user: str, aurora: LocalAurora
) -> None:
    seen = set()
    for user, password in ((aurora.user, aurora.password), ("other", "first")):
        for database in (aurora.database, "other"):
            for _ in range(2):
                with pooled(user=user, password=password, dbname=database) as connection:
                    row = connection.execute("SELECT current_user::text, current_database()::text").fetchone()
                    assert row == (user, database)
                    seen.add(backend(connection))
    keys = provider.keys()
    assert len(seen) == provider.num_pools == len(keys) == 4
    assert {(key.extra, key.database) for key in keys} == {
        (user, database) for user in (aurora.user, "other") for database in (aurora.database, "other")
    }
    assert provider.pool_urls == {f"{aurora.writer.endpoint}:{aurora.port}/"}
    assert aurora.password not in repr(keys)


def test_a_new_password_is_used_for_new_connections(
    pooled: Connect, provider: SqlAlchemyPooledConnectionProvider, another_user: str, aurora: LocalAurora
) -> None:
    first = pooled(user="other", password="first", dbname="other")
    with psycopg.connect(aurora.admin_dsn(aurora.writer.id), autocommit=True) as admin:
        admin.execute("ALTER ROLE other PASSWORD 'second'")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        pooled(user="other", password="first", dbname="other")
    second = pooled(user="other", password="second", dbname="other")
    assert provider.num_pools == 1
    assert backend(first) != backend(second)


def test_other_arguments_have_pools_of_their_own(pooled: Connect) -> None:
    with pooled(options="-c work_mem=5MB") as connection:
        assert value(connection, "work_mem") == "5MB"
    with pooled() as connection:
        assert value(connection, "work_mem") != "5MB"


def test_users_with_the_same_mapping_share(connect: Connect, make_pool: MakePool, another_user: str, aurora: LocalAurora) -> None:
    asked: list[str] = []

    def mapping(host_info: Any, props: Any) -> str:
        asked.append(host_info.host)
        return "everybody"

    provider = make_pool(pool_mapping=mapping)
    with connect(aurora.writer.id, connection_provider=provider) as connection:
        session = backend(connection)
    with connect(aurora.writer.id, connection_provider=provider, user="other", password="first") as connection:
        assert backend(connection) == session
    assert asked == [aurora.writer.endpoint] * 2


def test_only_instances_are_pooled_unless_a_function_says_so(connect: Connect, make_pool: MakePool, aurora: LocalAurora) -> None:
    provider = make_pool()
    with connect(connection_provider=provider) as connection:
        assert backend(connection)
    assert provider.num_pools == 0, "the writer endpoint leads to another host one day"
    with connect("instance-2", connection_provider=provider) as connection:
        assert backend(connection)
    assert provider.pool_urls == {f"{aurora.instance('instance-2').endpoint}:{aurora.port}/"}
    everywhere = make_pool(accept_url_func=lambda host_info, props: True)
    with connect(connection_provider=everywhere, plugins="failover_v2") as connection:
        assert backend(connection)
    assert everywhere.pool_urls == {f"{aurora.writer_endpoint}:{aurora.port}/"}


def test_the_process_wide_provider_and_the_connections_own(connect: Connect, make_pool: MakePool) -> None:
    everybodys, own = make_pool(), make_pool()
    ConnectionProviderManager.set_connection_provider(everybodys)
    with connect("instance-1") as connection:
        session = backend(connection)
    with connect("instance-1", connection_provider=own) as connection:
        assert backend(connection) != session
    with connect("instance-1") as connection:
        assert backend(connection) == session
    assert (everybodys.num_pools, own.num_pools) == (1, 1)
    ConnectionProviderManager.reset_provider()
    with connect("instance-1") as connection:
        assert backend(connection) != session


def test_a_profile_has_a_pool_of_its_own(connect: Connect, aurora: LocalAurora) -> None:
    profile = ConfigurationProfile(
        "p", parameters={"application_name": NAME}, connection_provider=SqlAlchemyPooledConnectionProvider
    )
    DriverConfigurationProfiles.add_or_replace_profile("p", profile)
    try:
        with connect(aurora.writer.id, profile_name="p") as connection:
            session = backend(connection)
        with connect(aurora.writer.id, profile_name="p") as connection:
            assert backend(connection) == session
    finally:
        DriverConfigurationProfiles.clear_profiles()
        wrapper.release_resources()
    eventually(lambda: not sessions(aurora), "the pool of the profile to be closed")


def test_least_connections(connect: Connect, make_pool: MakePool, aurora: LocalAurora) -> None:
    provider = make_pool()
    writer, first, second = aurora.writer.id, *(reader.id for reader in aurora.readers)
    held = {
        host: [connect(host, connection_provider=provider) for _ in range(n)] for host, n in ((writer, 2), (first, 3), (second, 1))
    }
    service = held[writer][0].plugin_service

    def chosen(role: HostRole) -> Any:
        return service.get_host_info_by_strategy(role, "least_connections").host_id

    assert (chosen(HostRole.UNKNOWN), chosen(HostRole.READER), chosen(HostRole.WRITER)) == (second, second, writer)
    held[first].pop().close()
    held[first].pop().close()
    held[second].append(connect(second, connection_provider=provider))
    assert (chosen(HostRole.UNKNOWN), chosen(HostRole.READER)) == (first, first)
    held[second].pop().close()
    assert {chosen(HostRole.READER) for _ in range(100)} == {first, second}, "equals take turns"
    assert service.accepts_strategy(HostRole.READER, "round_robin")


# -- the end of pools --------------------------------------------------------------------------------------------------------------


def test_releasing_closes_what_is_idle_now_and_what_is_given_back_later(
    pooled: Connect, provider: SqlAlchemyPooledConnectionProvider, aurora: LocalAurora
) -> None:
    idle, lent = pooled(), pooled()
    idle.close()
    ConnectionProviderManager.set_connection_provider(provider)
    wrapper.release_resources()
    session = backend(lent)
    eventually(lambda: sessions(aurora) == [session], "the idle connection to be closed")
    lent.close()
    eventually(lambda: not sessions(aurora), "the other one to be closed when it is given back")
    assert provider.num_pools == 0
    assert backend(pooled()) != session


def test_pools_that_nobody_uses_are_closed_by_a_later_connect(connect: Connect, make_pool: MakePool, aurora: LocalAurora) -> None:
    provider = make_pool(pool_expiration_check_ns=1, pool_cleanup_interval_ns=1)
    used = connect("instance-1", connection_provider=provider, application_name=NAME)
    with connect("instance-2", connection_provider=provider, application_name=NAME):
        pass
    with connect("instance-3", connection_provider=provider, application_name=NAME):
        assert {url.partition(".")[0] for url in provider.pool_urls} == {"instance-1", "instance-3"}
    eventually(lambda: not sessions(aurora, "instance-2"), "the expired pool's connection to be closed")
    assert backend(used), "a pool in use does not expire"


def test_listeners_of_the_pool_see_the_drivers_connection(connect: Connect, make_pool: MakePool) -> None:
    seen: list[Any] = []
    options = {"events": [(lambda slot, record: seen.append(slot.driver_connection), "connect")]}
    with connect("instance-1", connection_provider=make_pool(lambda host_info, props: options)) as connection:
        assert seen == [connection.target_connection]


def test_a_listener_that_refuses_every_connection(connect: Connect, make_pool: MakePool) -> None:
    def refuse(*_: Any) -> None:
        raise DisconnectionError

    provider = make_pool(
        lambda host_info, props: {"pool_size": 1, "max_overflow": 0, "timeout": 0.05, "events": [(refuse, "checkout")]}
    )
    for _ in range(2):
        with pytest.raises(AwsConnectError, match="instance-1") as caught:
            connect("instance-1", connection_provider=provider)
        assert isinstance(caught.value, psycopg.OperationalError)


# -- faults ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plugins", ["failover_v2,host_monitoring_v2", ""])
def test_a_dead_connection_is_never_handed_out(connect: Connect, make_pool: MakePool, aurora: LocalAurora, plugins: str) -> None:
    provider = make_pool()
    held = [connect("instance-2", connection_provider=provider, plugins=plugins) for _ in range(5)]
    old = set(map(backend, held))
    for connection in held:
        connection.close()
    aurora.kill("instance-2")
    with pytest.raises(psycopg.OperationalError):
        connect("instance-2", connection_provider=provider, plugins=plugins)
    aurora.start("instance-2")
    held = [connect("instance-2", connection_provider=provider, plugins=plugins) for _ in range(6)]
    assert old.isdisjoint(map(backend, held))


def test_a_hung_hosts_pool_gives_nothing(connect: Connect, make_pool: MakePool, aurora: LocalAurora) -> None:
    """An idle connection to a hung host looks well to the kernel; the evidence says otherwise."""
    provider = make_pool()
    fast = {**FAST, "connection_provider": provider}
    connection = connect("instance-2", **fast)
    service = connection.plugin_service
    eventually(lambda: client().is_live and client().state.confirmed, "the monitor to watch the cluster")
    connection.close()
    key = f"{aurora.instance('instance-2').endpoint}:{aurora.port}"
    aurora.hang("instance-2")
    try:
        eventually(lambda: service.known_cluster.evidence(key).is_failing, "the monitor to find the host silent")
        with pytest.raises(psycopg.OperationalError, match="does not answer"):
            connect("instance-2", **fast)
    finally:
        aurora.resume("instance-2")
    eventually(lambda: not service.known_cluster.evidence(key).is_failing, "the host to answer again")
    assert backend(connect("instance-2", **fast))


def test_failover_with_a_pool(pooled: Connect, provider: SqlAlchemyPooledConnectionProvider, aurora: LocalAurora) -> None:
    old = aurora.writer
    connection, idle = pooled(), pooled()
    idle.close()
    aurora.kill(old.id)
    aurora.promote_later(0.3, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    new = aurora.writer
    assert connection.execute("SELECT aurora_db_instance_identifier()").fetchone() == (new.id,)
    assert provider.pool_urls == {f"{host.endpoint}:{aurora.port}/" for host in (old, new)}
    session = backend(connection)
    connection.close()
    with pooled(instance=new.id) as connection:
        assert backend(connection) == session, "the connection to the new writer went to another pool"
    # The dead host comes back as a reader: nobody gets what was idle in its pool, and no place in it was lost.
    aurora.start(old.id)
    mine = sorted(backend(connection) for connection in [pooled(instance=old.id), pooled(instance=old.id)])
    eventually(lambda: sorted(sessions(aurora, old.id)) == mine, "other sessions to end")


# -- forks -------------------------------------------------------------------------------------------------------------------------

WARM = """
from wrapper.providers import ConnectionProviderManager, SqlAlchemyPooledConnectionProvider
provider = SqlAlchemyPooledConnectionProvider(lambda host_info, props: {"pool_size": 2, "max_overflow": 0, "timeout": 1})
ConnectionProviderManager.set_connection_provider(provider)
idle, lent = connect(), connect()
before = [pid_of(idle), pid_of(lent)]
idle.close()
read, write = os.pipe()
def tell(value):
    os.write(write, json.dumps(value).encode())
def told():
    return json.loads(os.read(read, 10000))
"""


def run_warm(script: str, lab: LocalAurora) -> Any:
    """Run a script with a pool of two connections, one of them lent."""
    return run(f"writer['host'] = {lab.writer.endpoint!r}\n" + WARM + textwrap.dedent(script), lab)


def test_a_child_has_a_pool_of_its_own(aurora: LocalAurora, monitor_directory: Path) -> None:
    status, before, (pools, sessions, again), after = run_warm(
        """
        def child():
            pools = provider.num_pools
            mine = [connect(), connect()]
            sessions = [pid_of(connection) for connection in mine]
            for connection in mine:
                connection.close()
            again = pid_of(connect())
            import gc; gc.collect()
            provider.release_resources()
            wrapper.release_resources()
            tell([pools, sessions, again])
        status = in_child(child)
        after = [pid_of(connect()), pid_of(lent)]
        print(json.dumps([status, before, told(), after]))
        """,
        aurora,
    )
    assert (status, pools) == (0, 0)
    assert set(sessions).isdisjoint(before)
    assert again in sessions
    assert after == before, "the parent lost its sessions to the child"


@pytest.mark.parametrize("end", ["used()", "connection.close()", "forgotten()"])
def test_what_a_child_does_to_a_lent_connection_does_not_reach_the_parent(
    aurora: LocalAurora, monitor_directory: Path, end: str
) -> None:
    status, rows, before, after = run_warm(
        f"""
        lent.autocommit = False
        lent.execute("CREATE TEMP TABLE mine AS SELECT 1 AS x")
        inherited = [lent]
        def child():
            global lent
            connection = inherited.pop()
            del lent
            def used():
                try:
                    connection.execute("SELECT 1")
                except wrapper.TransactionResolutionUnknownError:
                    assert pid_of(connection) not in before
                    connection.close()
            def forgotten():
                nonlocal connection
                connection = None
                import gc; gc.collect()
            {end}
            assert provider.num_pools <= 1
        status = in_child(child)
        rows = lent.execute("SELECT x FROM mine").fetchall()
        lent.close()
        print(json.dumps([status, rows, before, sorted(pid_of(c) for c in [connect(), connect()])]))
        """,
        aurora,
    )
    assert status == 0
    assert rows == [[1]]
    assert after == sorted(before)


# -- the document ------------------------------------------------------------------------------------------------------------------


def test_the_examples_of_the_page_work(connect: Connect, make_pool: MakePool, aurora: LocalAurora) -> None:
    page = (Path(__file__).parents[2] / "docs" / "providers.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"conninfo": aurora.dsn(aurora.writer.id)}
    try:
        for block in page.split("```python\n")[1:]:
            exec(block.partition("```")[0], names)
        connection = connect(aurora.writer.id)
        session = backend(connection)
        connection.execute("CREATE TEMP TABLE gone ()")
        connection.close()
        connection = connect(aurora.writer.id)
        assert backend(connection) == session
        assert connection.execute("SELECT to_regclass('gone')").fetchone() == (None,), "the hook did not discard it"
    finally:
        SessionStateTransferHandlers.clear_reset_session_state_on_close_func()
        names["provider"].release_resources()
