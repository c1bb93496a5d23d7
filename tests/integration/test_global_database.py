"""Global Databases of real servers, both engines: who is recognised, and where connections end up when the writer moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mysql.connector
import psycopg
import pytest

import wrapper
from tests.integration.conftest import client, eventually, own_monitor
from tests.integration.test_failover import FAST
from wrapper import AwsWrapperConnection
from wrapper.hosts import HostRole
from wrapper.testing import LocalGlobalDatabase
from wrapper.testing.global_database import REGIONS

Connect = Callable[..., Any]
HOME, AWAY = REGIONS
DIALECTS = {"postgresql": "global-aurora-pg", "mysql": "global-aurora-mysql"}
WHO = {"postgresql": "SELECT aurora_db_instance_identifier()", "mysql": "SELECT @@aurora_server_id"}


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def lab_of_two_regions(request: pytest.FixtureRequest) -> Iterator[LocalGlobalDatabase]:
    with LocalGlobalDatabase(engine=request.param) as lab:
        yield lab


@pytest.fixture
def lab(lab_of_two_regions: LocalGlobalDatabase, monkeypatch: pytest.MonkeyPatch) -> LocalGlobalDatabase:
    """Two regions, all instances up, the writer at home; its names resolve."""
    lab_of_two_regions.restore()
    for name, value in lab_of_two_regions.environment().items():
        monkeypatch.setenv(name, value)
    return lab_of_two_regions


@pytest.fixture
def connect(lab: LocalGlobalDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Connects through the wrapper, to the home region's writer endpoint by default; closes everything at the end."""
    opened: list[Any] = []

    def connect(**parameters: Any) -> Any:
        given = {
            **lab.parameters(),
            "autocommit": True,
            "plugins": "gdb_failover,host_monitoring_v2",
            "global_cluster_instance_host_patterns": lab.instance_host_pattern,
            "failover_timeout_sec": 20,
            **({"use_pure": True} if lab.engine == "mysql" else {}),
            **parameters,
        }
        driver: Any = mysql.connector.connect if lab.engine == "mysql" else psycopg.Connection.connect
        connection = AwsWrapperConnection.connect(driver, **given)
        opened.append(connection)
        return connection

    with own_monitor(monkeypatch):
        yield connect
        for connection in opened:
            connection.close()


@pytest.fixture
def watched(connect: Connect) -> Connect:
    """Connects, and returns once the monitor has published the roles of all hosts that it may reach."""

    def watched(*, hosts: int = 4, **parameters: Any) -> Any:
        connection = connect(**parameters)
        key = connection.plugin_service.watch.key

        def is_known() -> bool:
            found = client().state.by_watch(key)
            return (
                client().is_live
                and found is not None
                and len(found.health) == hosts
                and all(health.proved_at is not None for health in found.health.values())
            )

        eventually(is_known, f"the monitor to publish the roles of {hosts} hosts")
        return connection

    return watched


def ask(connection: Any, sql: str) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    cursor.execute(sql)
    rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
    cursor.close()
    return rows


def instance_of(connection: Any, lab: LocalGlobalDatabase) -> str:
    return str(ask(connection, WHO[lab.engine])[0][0])


def region_of(connection: Any, lab: LocalGlobalDatabase) -> str:
    identity = instance_of(connection, lab)
    return next(str(entry["region"]) for entry in lab.status()["instances"] if entry["id"] == identity)


def moved(connection: Any, lab: LocalGlobalDatabase) -> tuple[str, str]:
    """Use a connection that has to fail over; return the region that it leads to then, and the role of its host."""
    with pytest.raises(wrapper.FailoverSuccessError):
        instance_of(connection, lab)
    role = "writer" if instance_of(connection, lab) == lab.writer.id else "reader"
    return region_of(connection, lab), role


def reader_at(lab: LocalGlobalDatabase, region: str) -> str:
    """The endpoint of a reader in a region."""
    writer = lab.writer
    return next(instance.endpoint for instance in lab.in_region(region) if instance != writer)


def test_it_is_recognised_with_all_its_regions(connect: Connect, lab: LocalGlobalDatabase) -> None:
    connection = connect(host=lab.endpoint(AWAY, "reader"), monitor_mode="off")
    service = connection.plugin_service
    assert service.database_dialect.code == DIALECTS[lab.engine]
    hosts = service.cluster.topology.hosts
    assert {host.id: host.region for host in hosts} == {one.id: region for region in REGIONS for one in lab.in_region(region)}
    assert {host.host for host in hosts} == {instance.endpoint for instance in lab.instances}
    assert {host.id for host in hosts if host.role == "writer"} == {lab.writer.id}
    assert service.current_host_info.role is HostRole.READER


def test_without_patterns_the_other_region_is_left_alone(connect: Connect, lab: LocalGlobalDatabase) -> None:
    connection = connect(plugins="failover_v2", global_cluster_instance_host_patterns=None, monitor_mode="off")
    topology = connection.plugin_service.cluster.topology
    assert {host.id for host in topology.hosts} == {instance.id for instance in lab.in_region(HOME)}
    assert {host.id for host in topology.elsewhere} == {instance.id for instance in lab.in_region(AWAY)}


@pytest.mark.parametrize("mode", ["auto", pytest.param("off", marks=pytest.mark.slow)])
def test_failover_in_the_region(watched: Connect, connect: Connect, lab: LocalGlobalDatabase, mode: str) -> None:
    connection = watched() if mode == "auto" else connect(monitor_mode=mode)
    lab.kill("writer")
    lab.promote_later(0.1)
    assert moved(connection, lab) == (HOME, "writer")


@pytest.mark.parametrize("mode", ["auto", pytest.param("off", marks=pytest.mark.slow)])
def test_the_writers_region_is_lost(watched: Connect, connect: Connect, lab: LocalGlobalDatabase, mode: str) -> None:
    connection = watched() if mode == "auto" else connect(monitor_mode=mode)
    old = lab.writer.id
    lab.fail_over_region(AWAY)
    assert moved(connection, lab) == (AWAY, "writer")
    # What is left of the old region comes back as a cluster of its own, with a writer of its own.
    lab.start(old)
    new = connect(host=lab.global_endpoint, failover_home_region=HOME, plugins="initial_connection,gdb_failover", monitor_mode=mode)
    assert region_of(new, lab) == AWAY
    assert region_of(connection, lab) == AWAY
    if mode == "auto":
        key = connection.plugin_service.watch.key
        eventually(lambda: len(client().state.by_watch(key).topology.hosts) == 2, "the lost region to be forgotten")  # type: ignore[union-attr]


def test_a_switchover_loses_nothing(watched: Connect, lab: LocalGlobalDatabase) -> None:
    connection = watched(active_home_failover_mode="strict-writer", inactive_home_failover_mode="strict-writer")
    ask(connection, "DROP TABLE IF EXISTS numbers")
    ask(connection, "CREATE TABLE numbers (x INT PRIMARY KEY)")
    for number in range(50):
        ask(connection, f"INSERT INTO numbers VALUES ({number})")
    report = lab.switchover(AWAY)
    assert moved(connection, lab) == (AWAY, "writer")
    assert instance_of(connection, lab) == report.new_writer
    assert ask(connection, "SELECT COUNT(*) FROM numbers") == [(50,)]
    ask(connection, "INSERT INTO numbers VALUES (50)")
    # The old region follows.
    lab.switchover(HOME)
    assert moved(connection, lab) == (HOME, "writer")
    assert ask(connection, "SELECT COUNT(*) FROM numbers") == [(51,)]


@pytest.mark.parametrize(
    ("active", "inactive", "expected"),
    [
        ("strict_writer", "home-reader-or-writer", (HOME, "reader")),
        pytest.param("home-reader-or-writer", "strict-writer", (AWAY, "writer"), marks=pytest.mark.slow),
        pytest.param("strict_writer", "strict_any_reader", (None, "reader"), marks=pytest.mark.slow),
    ],
)
def test_a_home_that_has_lost_the_writer(
    watched: Connect, lab: LocalGlobalDatabase, active: str, inactive: str, expected: tuple[str | None, str]
) -> None:
    lab.switchover(AWAY)
    host = lab.in_region(HOME)[0]
    connection = watched(host=host.endpoint, active_home_failover_mode=active, inactive_home_failover_mode=inactive)
    lab.kill(host.id)
    region, role = moved(connection, lab)
    assert role == expected[1]
    assert region == expected[0] or expected[0] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "lost", "expected"),
    [
        ("strict_home_reader", "writer", {(HOME, "reader")}),
        ("strict-home-reader", HOME, None),
        ("strict_out_of_home_reader", "writer", {(AWAY, "reader")}),
        ("STRICT-ANY-READER", "writer", {(HOME, "reader"), (AWAY, "reader")}),
        ("home_reader_or_writer", HOME, {(HOME, "writer")}),
        ("out-of-home-reader-or-writer", HOME, {(AWAY, "reader")}),
        ("any_reader_or_writer", "writer", {(HOME, "reader"), (AWAY, "reader")}),
    ],
)
def test_modes_of_an_active_home(
    watched: Connect, lab: LocalGlobalDatabase, mode: str, lost: str, expected: set[tuple[str, str]] | None
) -> None:
    """`lost`: the writer, which starts again in its place, or the reader in a region."""
    host = lab.writer.endpoint if lost == "writer" else reader_at(lab, lost)
    timeout = 20 if expected else 1
    modes = {"active_home_failover_mode": mode, "inactive_home_failover_mode": "strict_writer"}
    connection = watched(host=host, failover_timeout_sec=timeout, **modes)
    identity = next(instance.id for instance in lab.instances if instance.endpoint == host)
    lab.kill(identity)
    if lost == "writer":
        lab.start(identity)
    if expected is None:
        with pytest.raises(wrapper.FailoverFailedError, match="no home reader proved itself within 1 s"):
            instance_of(connection, lab)
    else:
        assert moved(connection, lab) in expected


def test_regions_that_must_not_be_reached_are_left_alone(watched: Connect, connect: Connect, lab: LocalGlobalDatabase) -> None:
    limited = {"gdb_accessible_regions": HOME, "hosts": 2}
    modes = {"active_home_failover_mode": "strict_writer", "inactive_home_failover_mode": "home_reader_or_writer"}
    writing, reading = watched(**limited), watched(host=reader_at(lab, HOME), **limited, **modes)
    away = [instance.id for instance in lab.in_region(AWAY)]
    lab.switchover(AWAY)
    # Where the writer is, its own table says; nobody goes there.
    with pytest.raises(
        wrapper.FailoverFailedError, match=f"the writer is in {AWAY}, which this connection must not or cannot reach"
    ):
        ask(writing, "CREATE TABLE never (x INT)")
    if lab.engine == "mysql":
        lab.drop_sessions(lab.in_region(HOME)[1].id)
    assert instance_of(reading, lab) not in away
    assert {name: count for name, count in lab.monitoring_sessions().items() if name in away} == dict.fromkeys(away, 0)
    topology = reading.plugin_service.cluster.topology
    assert topology.writer is None
    assert {host.id for host in topology.elsewhere} == set(away)
    with pytest.raises(wrapper.AwsWrapperError, match=f"gdb_accessible_regions='{HOME}' leaves out {AWAY}"):
        connect(host=lab.endpoint(AWAY), gdb_accessible_regions=HOME)


def test_a_region_that_wakes_up_after_it_was_replaced_is_not_believed(watched: Connect, lab: LocalGlobalDatabase) -> None:
    connection = watched(**FAST)
    service = connection.plugin_service
    old = lab.writer
    for instance in lab.in_region(HOME):
        lab.hang(instance.id)
    lab.fail_over_region(AWAY, detach=False)
    assert moved(connection, lab) == (AWAY, "writer")
    for instance in lab.in_region(HOME):
        lab.resume(instance.id)
    key = f"{old.endpoint}:{old.port}"

    def both_claim() -> bool:
        found = client().state.by_watch(service.watch.key)
        assert found is not None
        assert found.topology.writer in (None, f"{lab.writer.endpoint}:{lab.port}")
        return found.health[key].role == "writer" and not found.health[key].is_failing

    eventually(both_claim, "the old writer to claim that it is one")
    assert instance_of(connection, lab) == lab.writer.id
    assert client().state.by_watch(service.watch.key).proved(key) is None  # type: ignore[union-attr]


def test_endpoints_lead_to_the_writer_wherever_it_is(connect: Connect, lab: LocalGlobalDatabase) -> None:
    settings = {"plugins": "initial_connection", "monitor_mode": "off"}
    lab.switchover(AWAY)
    writer = lab.writer.id
    # Of a region without a writer, the writer endpoint stands for that of the other; unless told otherwise.
    for host in (lab.global_endpoint, lab.endpoint(HOME), lab.endpoint(AWAY)):
        assert instance_of(connect(host=host, **settings), lab) == writer
    kept = connect(
        host=lab.endpoint(HOME),
        inactive_cluster_writer_endpoint_substitution_role="none",
        verify_inactive_cluster_writer_endpoint_connection_type="none",
        **settings,
    )
    assert region_of(kept, lab) == HOME
    for region in REGIONS:
        assert region_of(connect(host=lab.endpoint(region, "reader"), **settings), lab) == region
