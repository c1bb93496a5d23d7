"""What a plugin may ask of its service and change through it, on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Connect, client, eventually
from tests.integration.test_failover import instance_of
from tests.integration.test_monitor_faults import monitor_status
from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.host_list import AllowedAndBlockedHosts
from wrapper.hosts import HostAvailability, HostInfo, HostRole
from wrapper.pipeline import _REGISTRY, register_plugin
from wrapper.plugin import ConnectionEvent, EveryConnectPlugin, HostEvent, OldConnectionSuggestedAction, Plugin
from wrapper.plugin_service import PluginService
from wrapper.plugins.failover_v2 import FailoverV2Plugin
from wrapper.plugins.host_monitoring_v2 import HostMonitoringV2Plugin
from wrapper.testing import LocalAurora


class Probing(EveryConnectPlugin):
    """Writes down what it is told, and votes as it was made to."""

    vote = OldConnectionSuggestedAction.NO_OPINION

    def __init__(self, service: PluginService) -> None:
        self.service = service
        self.connects: list[tuple[str, bool]] = []
        self.forced: list[str] = []
        self.host_events: list[Mapping[str, set[HostEvent]]] = []
        self.connection_events: list[set[ConnectionEvent]] = []

    @property
    def subscribed_methods(self) -> set[str]:
        return {"connect", "force_connect", "notify_connection_changed", "notify_host_list_changed", "init_host_provider"}

    def connect(
        self, target: Any, dialect: Any, host_info: HostInfo, props: dict[str, Any], initial: bool, connect_func: Callable[[], Any]
    ) -> Any:
        self.connects.append((host_info.host, initial))
        return connect_func()

    def force_connect(
        self, target: Any, dialect: Any, host_info: HostInfo, props: dict[str, Any], initial: bool, connect_func: Callable[[], Any]
    ) -> Any:
        self.forced.append(host_info.host)
        return connect_func()

    def notify_connection_changed(self, changes: set[ConnectionEvent]) -> OldConnectionSuggestedAction:
        self.connection_events.append(changes)
        return self.vote

    def notify_host_list_changed(self, changes: Mapping[str, set[HostEvent]]) -> None:
        self.host_events.append(changes)


class Preserving(Probing):
    vote = OldConnectionSuggestedAction.PRESERVE


class Disposing(Probing):
    vote = OldConnectionSuggestedAction.DISPOSE


class OwnList:
    """A host list of a plugin's own."""

    is_static = True

    def __init__(self, *hosts: HostInfo) -> None:
        self.known = hosts
        self.asked_on: list[Any] = []

    def refresh(self, connection: Any = None) -> tuple[HostInfo, ...]:
        return self.known

    def force_refresh(self, connection: Any = None) -> tuple[HostInfo, ...]:
        self.asked_on.append(connection)
        return self.known

    def force_monitoring_refresh(self, should_verify_writer: bool, timeout_sec: float) -> bool:
        return should_verify_writer

    def get_cluster_id(self) -> str:
        return "own"


class Listing(Probing):
    """Installs a host list of its own, after that of the plugins behind it."""

    def init_host_provider(self, props: Mapping[str, Any], service: PluginService, init_func: Callable[[], None]) -> None:
        init_func()
        service.host_list_provider = OwnList(HostInfo("a", 1), HostInfo("b", 1, HostRole.READER))


class Choosing(Probing):
    """Knows one strategy more."""

    @property
    def subscribed_methods(self) -> set[str]:
        return {"accepts_strategy", "get_host_info_by_strategy"}

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        return strategy == "last"

    def get_host_info_by_strategy(
        self, role: HostRole, strategy: str, host_list: Sequence[HostInfo] | None = None
    ) -> HostInfo | None:
        if strategy != "last":
            return super().get_host_info_by_strategy(role, strategy, host_list)
        return [host for host in host_list or self.service.hosts if host.role is role][-1]


PLUGINS: dict[str, type[Probing]] = {
    "probing": Probing,
    "preserving": Preserving,
    "disposing": Disposing,
    "listing": Listing,
    "choosing": Choosing,
}


@pytest.fixture(autouse=True)
def plugins() -> Iterator[None]:
    """The classes above under their codes."""
    for code, plugin_class in PLUGINS.items():
        register_plugin(code, factory_of(plugin_class))
    yield
    for code in PLUGINS:
        del _REGISTRY[code]


def factory_of(plugin_class: Callable[[PluginService], Plugin]) -> Any:
    """A factory for a plugin that wants nothing but its service."""

    class Factory:
        @staticmethod
        def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
            return plugin_class(plugin_service)

    return Factory


def plugin_of(connection: Any, plugin_class: type[Probing] = Probing) -> Probing:
    return next(plugin for plugin in connection.plugin_service.manager.plugins if type(plugin) is plugin_class)


def reader_of(service: PluginService) -> HostInfo:
    return next(host for host in service.all_hosts if host.role is HostRole.READER)


def journal() -> list[str]:
    """The events that the monitor remembers, but for those that a busy machine makes."""
    return [entry["event"] for entry in monitor_status()["journal"] if entry["event"] != "PAUSED"]


# -- opening connections ---------------------------------------------------------------------------------------------------------


def test_connect_runs_the_pipeline_and_leaves_one_plugin_out(watched: Connect) -> None:
    connection = watched(plugins="probing,failover_v2,disposing")
    first, second = plugin_of(connection), plugin_of(connection, Disposing)
    service = connection.plugin_service
    reader = reader_of(service)
    assert len(first.connects) == 1
    assert first.connects[0][1] is True
    for open_one, seen in ((service.connect, "connects"), (service.force_connect, "forced")):
        before = len(getattr(first, seen)), len(getattr(second, seen))
        opened = open_one(reader, dict(service.props), first)
        assert instance_of(opened) == reader.host_id
        assert (len(getattr(first, seen)), len(getattr(second, seen))) == (before[0], before[1] + 1)
        service.discard(opened)
        opened = open_one(reader, dict(service.props))
        assert (len(getattr(first, seen)), len(getattr(second, seen))) == (before[0] + 1, before[1] + 2)
        service.discard(opened)
    assert first.connects[-1] == (reader.host, False)
    assert first.forced == [reader.host]


def test_force_connect_passes_the_connection_provider_by(watched: Connect) -> None:
    used: list[str] = []

    class Provider:
        def accepts_host_info(self, host_info: HostInfo, props: Mapping[str, Any]) -> bool:
            return True

        def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
            return strategy == "never"

        def get_host_info_by_strategy(self, *arguments: Any) -> HostInfo | None:
            return None

        def connect(self, target: Any, dialect: Any, database: Any, host_info: HostInfo, props: dict[str, Any]) -> Any:
            used.append(host_info.host)
            return target(**dialect.prepare_connect_info(host_info, props))

    service = watched(plugins="failover_v2", connection_provider=Provider()).plugin_service
    reader = reader_of(service)
    assert len(used) == 1
    service.discard(service.force_connect(reader, dict(service.props)))
    assert len(used) == 1
    service.discard(service.connect(reader, dict(service.props)))
    assert used[1:] == [reader.host]
    # An answer of None is one: the strategy is the provider's.
    assert service.accepts_strategy(HostRole.READER, "never")
    assert service.get_host_info_by_strategy(HostRole.READER, "never") is None


# -- the current connection ------------------------------------------------------------------------------------------------------


def switch(connection: Any) -> tuple[Any, HostInfo]:
    """Lead the wrapper connection to a reader; return the driver's connection that it led to, and the reader."""
    service = connection.plugin_service
    old, reader = service.current_connection, reader_of(service)
    service.set_current_connection(service.connect(reader, dict(service.props)), reader)
    return old, reader


def test_a_switch_moves_session_state_refuses_cursors_and_rolls_back(watched: Connect) -> None:
    connection = watched(plugins="probing,failover_v2", autocommit=False)
    service = connection.plugin_service
    connection.execute("SET application_name = 'mine'")
    connection.commit()
    cursor = connection.execute("SELECT 1")
    assert service.is_in_transaction
    old, reader = switch(connection)
    assert old.closed
    assert not service.is_in_transaction
    assert service.current_host_info == reader
    assert service.current_connection is connection.target_connection is not old
    assert instance_of(connection) == reader.host_id
    assert connection.execute("SHOW application_name").fetchone() == ("mine",)
    with pytest.raises(AwsWrapperError, match="replaced"):
        cursor.fetchone()
    assert plugin_of(connection).connection_events == [
        {ConnectionEvent.INITIAL_CONNECTION},
        {ConnectionEvent.CONNECTION_OBJECT_CHANGED},
    ]
    # The same connection again is no switch.
    service.set_current_connection(service.current_connection, reader)
    assert len(plugin_of(connection).connection_events) == 2


@pytest.mark.parametrize(
    ("voters", "is_kept"),
    [("probing", False), ("disposing", False), ("preserving", True), ("probing,disposing,preserving", True)],
)
def test_any_vote_to_preserve_keeps_the_old_connection(watched: Connect, voters: str, is_kept: bool) -> None:
    connection = watched(plugins=f"failover_v2,{voters}", autocommit=False)
    connection.execute("SELECT 1")
    old, _ = switch(connection)
    assert old.closed is not is_kept
    if is_kept:
        # Without the transaction that was open on it.
        assert old.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert old.execute("SELECT 1").fetchone() == (1,)
        connection.plugin_service.discard(old)


# -- the cluster -----------------------------------------------------------------------------------------------------------------


def test_hosts_are_all_hosts_without_those_that_are_not_allowed(watched: Connect, connect: Connect, aurora: LocalAurora) -> None:
    service = watched(plugins="failover_v2").plugin_service
    everybody = [instance.id for instance in aurora.instances]
    assert sorted(host.host_id for host in service.all_hosts) == sorted(everybody)
    assert service.hosts == service.all_hosts
    assert service.original_url == f"{aurora.writer_endpoint}:{aurora.port}"
    first, *others = everybody
    try:
        for restriction, left in (
            (AllowedAndBlockedHosts.of(allowed_host_ids=[first]), [first]),
            (AllowedAndBlockedHosts.of(blocked_host_ids=[first]), others),
            (AllowedAndBlockedHosts.of([first], [first]), []),
            (AllowedAndBlockedHosts.of([], []), everybody),
        ):
            service.allowed_and_blocked_hosts = restriction
            assert sorted(host.host_id for host in service.hosts) == sorted(left)
            assert len(service.all_hosts) == len(everybody)
            # Other connections of the process to the same endpoint are meant too.
            assert connect(plugins="failover_v2").plugin_service.allowed_and_blocked_hosts == restriction
    finally:
        service.allowed_and_blocked_hosts = None
    assert service.hosts == service.all_hosts


def test_hosts_are_found_without_a_monitor_and_told_to_plugins(connect: Connect) -> None:
    connection = connect(plugins="probing,failover_v2", monitor_mode="off")
    service, plugin = connection.plugin_service, plugin_of(connection)
    assert len(service.all_hosts) == 3
    assert {frozenset(events) for change in plugin.host_events for events in change.values()} == {frozenset({HostEvent.HOST_ADDED})}
    told = len(plugin.host_events)
    service.refresh_host_list()
    service.force_refresh_host_list()
    assert len(plugin.host_events) == told
    assert not service.is_static_host_list_provider()


def test_a_forced_refresh_reads_the_members_anew(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(plugins="probing,failover_v2", monitor_mode="off")
    service, plugin = connection.plugin_service, plugin_of(connection)
    old, new = aurora.writer, aurora.readers[0]
    aurora.failover(new.id)
    told = len(plugin.host_events)
    service.refresh_host_list()
    assert plugin.host_events[told:] == []
    fresh = service.connect(service.host_by_key(f"{new.endpoint}:{new.port}"), dict(service.props))
    service.force_refresh_host_list(fresh)
    (changes,) = plugin.host_events[told:]
    assert changes[f"{new.endpoint}:{new.port}/"] == {HostEvent.CONVERTED_TO_WRITER, HostEvent.HOST_CHANGED}
    assert changes[f"{old.endpoint}:{old.port}/"] >= {HostEvent.CONVERTED_TO_READER, HostEvent.HOST_CHANGED}
    service.discard(fresh)


@pytest.mark.parametrize("should_verify_writer", [True, False])
def test_a_forced_monitoring_refresh_raises_no_alarm(watched: Connect, should_verify_writer: bool) -> None:
    # A monitor that would not ask by itself within the test.
    service = watched(plugins="failover_v2", failure_detection_interval_ms=60_000).plugin_service
    before = journal()
    assert service.force_monitoring_refresh_host_list(should_verify_writer, 10.0)
    assert journal() == before


def test_a_forced_monitoring_refresh_of_a_lone_host_raises_no_alarm(connect: Connect, aurora: LocalAurora) -> None:
    parameters = {"wrapper_dialect": "pg", "failure_detection_interval_ms": 60_000}
    service = connect(aurora.writer.id, plugins="failover_v2", **parameters).plugin_service
    assert service.is_static_host_list_provider()
    eventually(lambda: client().is_live and client().state.by_watch(service.watch.key), "the monitor to watch the host")
    assert service.force_monitoring_refresh_host_list(True, 10.0)
    before = journal()
    assert service.force_monitoring_refresh_host_list(True, 10.0)
    assert journal() == before


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_a_forced_monitoring_refresh_says_when_there_is_no_writer(
    watched: Connect, connect: Connect, aurora: LocalAurora, mode: str
) -> None:
    connection = watched(plugins="failover_v2") if mode == "auto" else connect(plugins="failover_v2", monitor_mode="off")
    service = connection.plugin_service
    assert service.force_monitoring_refresh_host_list(True, 10.0)
    aurora.kill("writer")
    assert not service.force_monitoring_refresh_host_list(True, 0.5)
    assert service.force_monitoring_refresh_host_list(False, 10.0)
    # Longer than one direct search lasts.
    aurora.promote_later(1.5, rejoin=False)
    assert service.force_monitoring_refresh_host_list(True, 15.0)
    assert [host.host_id for host in service.all_hosts if host.role is HostRole.WRITER] == [aurora.writer.id]


def test_a_connection_is_asked_who_it_is(watched: Connect, aurora: LocalAurora) -> None:
    service = watched(plugins="failover_v2").plugin_service
    assert service.get_host_role() is HostRole.WRITER
    found = service.identify_connection()
    assert found is not None
    assert (found.host_id, found.role) == (aurora.writer.id, HostRole.WRITER)
    reader = reader_of(service)
    other = service.connect(reader, dict(service.props))
    assert service.get_host_role(other) is HostRole.READER
    assert service.identify_connection(other) == reader
    # One that the driver opened is nobody's, and says who it is all the same.
    with psycopg.connect(aurora.dsn(reader.host_id, by_address=True)) as foreign:
        assert service.get_host_role(foreign) is HostRole.READER
        assert service.identify_connection(foreign) == reader
    service.discard(other)


def test_aliases_are_every_name_of_the_host(watched: Connect, aurora: LocalAurora) -> None:
    service = watched(plugins="failover_v2").plugin_service
    writer = aurora.writer
    endpoint = HostInfo(aurora.writer_endpoint, aurora.port)
    filled = service.fill_aliases(None, endpoint)
    assert filled is not None
    assert endpoint.aliases == frozenset()
    assert filled.aliases == {
        f"{aurora.writer_endpoint}:{aurora.port}",
        f"{writer.endpoint}:{writer.port}",
        f"{writer.address}:{writer.port}",
    }
    # Filled once is filled: nobody is asked again.
    assert service.fill_aliases(None, filled) is filled
    assert service.fill_aliases() == service.current_host_info


def test_availability_is_noted_for_the_process_and_told_to_plugins(watched: Connect, connect: Connect) -> None:
    connection = watched(plugins="probing,failover_v2", failure_detection_interval_ms=60_000)
    service, plugin = connection.plugin_service, plugin_of(connection)
    reader = reader_of(service)
    service.refresh_host_list()
    plugin.host_events.clear()
    service.set_availability(reader.all_aliases, HostAvailability.UNAVAILABLE)
    try:
        assert plugin.host_events == [{reader.url: {HostEvent.WENT_DOWN, HostEvent.HOST_CHANGED}}]
        assert service.host_by_key(reader.key).availability is HostAvailability.UNAVAILABLE
        other = connect(plugins="failover_v2").plugin_service
        assert other.host_by_key(reader.key).availability is HostAvailability.UNAVAILABLE
        for _ in range(20):
            chosen = service.get_host_info_by_strategy(HostRole.READER, "random")
            assert chosen is not None
            assert chosen.key != reader.key
    finally:
        service.set_availability(reader.all_aliases, HostAvailability.AVAILABLE)
    assert plugin.host_events[1:] == [{reader.url: {HostEvent.WENT_UP, HostEvent.HOST_CHANGED}}]


def test_a_host_that_cannot_be_connected_to_went_down(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(plugins="probing,failover_v2", monitor_mode="off")
    service, plugin = connection.plugin_service, plugin_of(connection)
    reader = reader_of(service)
    aurora.kill(str(reader.host_id))
    plugin.host_events.clear()
    with pytest.raises(psycopg.OperationalError):
        service.connect(reader, {**service.props, "connect_timeout": 5}, plugin)
    assert {reader.url: {HostEvent.WENT_DOWN, HostEvent.HOST_CHANGED}} in plugin.host_events
    aurora.start(str(reader.host_id))
    service.discard(service.connect(reader, dict(service.props)))
    assert {reader.url: {HostEvent.WENT_UP, HostEvent.HOST_CHANGED}} in plugin.host_events


# -- a host list of a plugin's own -----------------------------------------------------------------------------------------------


def test_a_plugin_may_install_its_own_host_list(connect: Connect) -> None:
    connection = connect(plugins="listing,failover_v2")
    service, plugin = connection.plugin_service, plugin_of(connection, Listing)
    provider = service.host_list_provider
    assert isinstance(provider, OwnList)
    assert [host.url for host in service.all_hosts] == ["a:1/", "b:1/"]
    assert plugin.host_events == [{"a:1/": {HostEvent.HOST_ADDED}, "b:1/": {HostEvent.HOST_ADDED}}]
    provider.known = (HostInfo("b", 1, HostRole.WRITER), HostInfo("c", 1, HostRole.READER))
    service.refresh_host_list()
    assert plugin.host_events[1:] == [
        {
            "a:1/": {HostEvent.HOST_DELETED},
            "b:1/": {HostEvent.CONVERTED_TO_WRITER, HostEvent.HOST_CHANGED},
            "c:1/": {HostEvent.HOST_ADDED},
        }
    ]
    service.force_refresh_host_list()
    assert provider.asked_on == [service.current_connection]
    assert service.force_monitoring_refresh_host_list(True, 0.0)
    assert not service.force_monitoring_refresh_host_list(False, 0.0)
    assert service.is_static_host_list_provider()


# -- strategies, plugins, methods ------------------------------------------------------------------------------------------------


def test_strategies_of_plugins_come_before_the_providers(watched: Connect) -> None:
    service = watched(plugins="choosing,failover_v2").plugin_service
    readers = [host for host in service.hosts if host.role is HostRole.READER]
    for strategy in ("last", "random", "round_robin", "weighted_random", "highest_weight"):
        assert service.accepts_strategy(HostRole.READER, strategy)
        assert service.get_host_info_by_strategy(HostRole.READER, strategy) in readers
    assert service.get_host_info_by_strategy(HostRole.READER, "last") == readers[-1]
    assert service.get_host_info_by_strategy(HostRole.READER, "last", readers[:1]) == readers[0]
    assert service.get_host_info_by_strategy(HostRole.WRITER, "random", readers) is None
    turns = [service.get_host_info_by_strategy(HostRole.READER, "round_robin") for _ in range(4)]
    assert turns[:2] == turns[2:]
    assert turns[0] != turns[1]
    assert not service.accepts_strategy(HostRole.READER, "nobodys")
    with pytest.raises(UnsupportedOperationError, match="'nobodys'"):
        service.get_host_info_by_strategy(HostRole.READER, "nobodys")


def test_a_plugin_learns_what_its_connection_is_made_of(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(plugins="probing,failover_v2", autocommit=False)
    service = connection.plugin_service
    assert service.is_plugin_in_use(Probing)
    assert service.is_plugin_in_use(FailoverV2Plugin)
    assert not service.is_plugin_in_use(HostMonitoringV2Plugin)
    assert not service.is_plugin_in_use(Preserving)
    assert service.props["host"] == service.initial_connection_host_info.host == aurora.writer_endpoint
    assert service.is_network_bound_method("Cursor.execute")
    assert not service.is_network_bound_method("Cursor.fetchone")
    assert service.database_dialect.code == "aurora-pg"
    assert not service.is_in_transaction
    connection.execute("SELECT 1")
    assert service.is_in_transaction
    connection.rollback()
    assert not service.is_in_transaction


def test_questions_before_the_first_connect_are_refused(connect: Connect) -> None:
    refused: list[str] = []

    class Hasty(Probing):
        def connect(self, *arguments: Any) -> Any:
            assert self.service.current_connection is None
            assert not self.service.is_in_transaction
            for ask in (self.service.get_host_role, self.service.identify_connection, self.service.fill_aliases):
                with pytest.raises(AwsWrapperError, match="no connection to ask on yet"):
                    ask()
                refused.append(ask.__name__)
            return arguments[-1]()

    register_plugin("probing", factory_of(Hasty))
    connect(plugins="probing,failover_v2", wrapper_dialect="aurora-pg")
    assert len(refused) == 3
