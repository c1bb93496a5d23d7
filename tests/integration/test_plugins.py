"""Plugins of the user's own: what they see, what they may change, and how they are ordered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import wrapper
from tests.integration.conftest import eventually
from tests.integration.test_failover import instance_of, is_superseded
from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostInfo, HostRole
from wrapper.pipeline import _REGISTRY
from wrapper.plugin import ConnectionEvent, HostEvent, OldConnectionSuggestedAction, Plugin
from wrapper.plugins.timing import ConnectTimePlugin, ExecuteTimePlugin
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
seen: list[tuple[Any, ...]] = []


class Observer(Plugin):
    """Subscribes to everything and writes down what it sees."""

    @property
    def subscribed_methods(self) -> set[str]:
        return {"*"}

    def connect(
        self, target: Any, dialect: Any, host_info: HostInfo, props: dict[str, Any], initial: bool, connect_func: Any
    ) -> Any:
        seen.append(("connect", host_info.host, initial))
        props["application_name"] = "observed"
        return connect_func()

    def execute(self, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        seen.append((method_name, *args))
        return execute_func()

    def init_host_provider(self, props: Mapping[str, Any], service: Any, init_func: Callable[[], None]) -> None:
        seen.append(("init_host_provider",))
        init_func()

    def notify_connection_changed(self, changes: set[ConnectionEvent]) -> OldConnectionSuggestedAction:
        seen.append(("connection", *changes))
        return OldConnectionSuggestedAction.NO_OPINION

    def notify_host_list_changed(self, changes: Mapping[str, set[HostEvent]]) -> None:
        seen.append(("hosts", dict(changes)))

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        return strategy == "first"

    def get_host_info_by_strategy(
        self, role: HostRole, strategy: str, host_list: Sequence[HostInfo] | None = None
    ) -> HostInfo | None:
        if strategy != "first":
            return super().get_host_info_by_strategy(role, strategy, host_list)
        return (host_list or [None])[0]  # type: ignore[list-item]


class ObserverFactory:
    @staticmethod
    def get_instance(plugin_service: Any, props: Mapping[str, Any]) -> Plugin:
        return Observer()


@pytest.fixture(autouse=True)
def observer() -> Iterator[None]:
    seen.clear()
    wrapper.register_plugin("observer", ObserverFactory, weight=1)
    yield
    del _REGISTRY["observer"]


def test_a_plugin_sees_calls_and_may_change_the_connect(connect: Connect) -> None:
    connection = connect(plugins="failover_v2,observer")
    assert connection.execute("SELECT current_setting('application_name')").fetchone() == ("observed",)
    connection.cursor().executemany("SELECT %s", [(1,)])
    connection.commit()
    names = [event[0] for event in seen]
    assert names[:2] == ["init_host_provider", "connect"]
    assert ("connection", ConnectionEvent.INITIAL_CONNECTION) in seen
    assert ("Cursor.execute", "SELECT current_setting('application_name')") in seen
    assert {"Cursor.executemany", "Connection.commit"} <= set(names)
    connection.execute("SELECT 1")
    with connection.transaction():
        pass
    assert "Connection.transaction" in [event[0] for event in seen]


def test_a_plugin_sees_connections_that_lead_to_no_single_endpoint(connect: Connect, aurora: LocalAurora) -> None:
    hosts = ",".join([aurora.writer.address] * 2)
    ports = ",".join([str(aurora.port)] * 2)
    connection = connect(plugins="observer", host=hosts, hostaddr=hosts, port=ports)
    assert ("connect", hosts, True) in seen
    assert connection.execute("SELECT current_setting('application_name')").fetchone() == ("observed",)


def test_notifications_after_a_failover(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(plugins="observer,failover_v2")
    old, new = aurora.writer, aurora.readers[0]
    aurora.failover(new.id)
    eventually(lambda: is_superseded(connection), "the new writer to be known")
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == new.id
    assert ("connection", ConnectionEvent.CONNECTION_OBJECT_CHANGED) in seen
    changes = [event[1] for event in seen if event[0] == "hosts"]
    # The news of one failover may come in one notice or in several.
    assert any(HostEvent.CONVERTED_TO_WRITER in change.get(f"{new.endpoint}:{new.port}/", ()) for change in changes)
    assert any(HostEvent.CONVERTED_TO_READER in change.get(f"{old.endpoint}:{old.port}/", ()) for change in changes)
    assert any(HostEvent.HOST_ADDED in events for change in changes for events in change.values())


def test_strategies_of_plugins_come_first(watched: Connect) -> None:
    service = watched(plugins="observer,failover_v2").plugin_service
    hosts = service.all_hosts
    assert len(hosts) == 3
    assert sorted(host.role.value for host in hosts) == ["reader", "reader", "writer"]
    assert service.accepts_strategy(HostRole.READER, "first")
    assert service.accepts_strategy(HostRole.READER, "random")
    assert not service.accepts_strategy(HostRole.READER, "fastest_response")
    assert service.get_host_info_by_strategy(HostRole.READER, "first", hosts) is hosts[0]
    assert service.get_host_info_by_strategy(HostRole.READER, "random").role is HostRole.READER
    assert service.get_host_info_by_strategy(HostRole.WRITER, "highest_weight").role is HostRole.WRITER


@pytest.mark.parametrize("code", ["", "a,b", " a"])
def test_a_code_that_could_not_be_written_in_a_list_is_refused(code: str) -> None:
    with pytest.raises(AwsWrapperError, match="plugin code"):
        wrapper.register_plugin(code, ObserverFactory)


class NoConnection(Observer):
    def connect(self, *args: Any) -> Any:
        args[-1]().close()  # and forgets to return it


class NoProperty(Observer):
    def subscribed_methods(self) -> set[str]:  # type: ignore[override]
        return {"connect"}


class OneName(Observer):
    @property
    def subscribed_methods(self) -> Any:
        return "connect"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (NoConnection, "NoConnection.connect returned no connection"),
        (NoProperty, "NoProperty.subscribed_methods is not valid: expected a property"),
        (OneName, "OneName.subscribed_methods is not valid: expected a property"),
        (lambda: None, "get_instance returned None: expected a wrapper.Plugin"),
    ],
)
def test_a_mistake_of_a_plugin_is_named(connect: Connect, make: Any, expected: str) -> None:
    factory = type("Factory", (), {"get_instance": staticmethod(lambda plugin_service, props: make())})
    wrapper.register_plugin("observer", factory)
    for plugins in ("observer", "failover_v2,observer,dev"):
        with pytest.raises(AwsWrapperError, match=expected):
            connect(plugins=plugins)


@pytest.mark.parametrize(("factory", "weight"), [(object, 1), (None, 1), (ObserverFactory, "1")])
def test_what_cannot_make_plugins_is_refused(factory: Any, weight: Any) -> None:
    with pytest.raises(AwsWrapperError, match="plugin mine: "):
        wrapper.register_plugin("mine", factory, weight)


def test_a_plugin_that_finds_no_host_leaves_the_choice_to_the_next_one(connect: Connect) -> None:
    class Undecided(Observer):
        def get_host_info_by_strategy(self, *args: Any, **kwargs: Any) -> HostInfo | None:
            return None

    wrapper.register_plugin("undecided", type("Factory", (), {"get_instance": staticmethod(lambda service, props: Undecided())}), 0)
    try:
        service = connect(plugins="undecided,observer").plugin_service
        assert service.get_host_info_by_strategy(HostRole.READER, "first", [HostInfo("a", 1)]) == HostInfo("a", 1)
    finally:
        del _REGISTRY["undecided"]


def test_the_example_plugins(connect: Connect) -> None:
    from examples.plugins import application_name, slow_statements

    try:
        slow_statements.SlowStatementsPlugin.slow.clear()
        connection = connect(plugins="failover_v2,application_name,slow_statements")
        (name,) = connection.execute("SELECT current_setting('application_name')").fetchone()
        assert name.endswith(f":{os.getpid()}")
        connection.execute("SELECT pg_sleep(0.15)")
        # On a busy machine the other one may have been slow, too.
        (*others, (seconds, statement)) = slow_statements.SlowStatementsPlugin.slow
        assert seconds >= 0.15
        assert statement == "SELECT pg_sleep(0.15)"
        assert all(seconds > slow_statements.SlowStatementsPlugin.limit for seconds, _ in others)
        assert application_name.ApplicationNamePlugin().subscribed_methods == {"connect"}
    finally:
        for code in ("application_name", "slow_statements"):
            _REGISTRY.pop(code, None)


def test_the_time_plugins_add_up(connect: Connect) -> None:
    ConnectTimePlugin.reset_connect_time()
    ExecuteTimePlugin.reset_execute_time()
    connection = connect(plugins="connect_time,execute_time")
    connection.execute("SELECT pg_sleep(0.05)")
    assert ConnectTimePlugin.connect_time > 0
    assert ExecuteTimePlugin.execute_time >= 50_000_000


def test_a_plugin_of_an_installed_distribution_is_found_by_its_code(
    connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "found_plugin.py").write_text(
        "from wrapper import Plugin\n"
        "class Factory:\n"
        "    weight = 7\n"
        "    @staticmethod\n"
        "    def get_instance(plugin_service, props):\n"
        "        return Plugin()\n"
    )
    metadata = tmp_path / "found_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: found-plugin\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[aws_wrapper.plugins]\nfound = found_plugin:Factory\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        connection = connect(plugins="failover_v2,found")
        assert type(connection.plugin_service.manager.plugins[0]) is Plugin
    finally:
        _REGISTRY.pop("found", None)
