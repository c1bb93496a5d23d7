"""The `dev` plugin: errors to order, and what it finds out about plugins that do what a plugin must not do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import Connect
from tests.integration.test_plugin_service import factory_of
from wrapper.errors import AwsWrapperError
from wrapper.pipeline import _REGISTRY, register_plugin
from wrapper.plugin import EveryConnectPlugin, OldConnectionSuggestedAction
from wrapper.plugin_service import PluginService
from wrapper.plugins import supervision
from wrapper.plugins.dev import ExceptionSimulatorManager
from wrapper.testing import LocalAurora

Warnings = Callable[[], list[str]]


@pytest.fixture
def simulator() -> Iterator[type[ExceptionSimulatorManager]]:
    yield ExceptionSimulatorManager
    ExceptionSimulatorManager.reset()


def test_the_dev_plugin_raises_what_it_is_told(connect: Connect, simulator: type[ExceptionSimulatorManager]) -> None:
    connection = connect(plugins="dev")
    simulator.raise_exception_on_next_method(ValueError("simulated"), "Connection.commit")
    connection.execute("SELECT 1")
    with pytest.raises(ValueError, match="simulated"):
        connection.commit()
    connection.commit()
    simulator.raise_exception_on_next_connect(psycopg.OperationalError("no"))
    with pytest.raises(psycopg.OperationalError, match="no"):
        connect(plugins="dev")
    connect(plugins="dev")
    with pytest.raises(AwsWrapperError, match="method_name"):
        simulator.raise_exception_on_next_method(ValueError(), "")


class Refusing:
    """Decides by what it is asked about."""

    def get_exception_to_raise(self, *args: Any, **kwargs: Any) -> Exception | None:
        return ValueError("refused") if "SELECT 2" in args or any(isinstance(value, dict) for value in args) else None


def test_callbacks_decide_about_each_call_and_connect(connect: Connect, simulator: type[ExceptionSimulatorManager]) -> None:
    connection = connect(plugins="dev")
    simulator.set_method_callback(Refusing())
    connection.execute("SELECT 1")
    for _ in range(2):
        with pytest.raises(ValueError, match="refused"):
            connection.execute("SELECT 2")
    simulator.set_method_callback(None)
    connection.execute("SELECT 2")
    simulator.set_connect_callback(Refusing())
    with pytest.raises(ValueError, match="refused"):
        connect(plugins="dev")


# -- supervision -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def supervised(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warnings]:
    """Call the result for what was found out so far."""
    caplog.set_level(logging.WARNING)
    # Far more than a busy machine makes of the nothing that most plugins here do.
    monkeypatch.setattr(supervision, "BLOCKING", 0.5)
    yield lambda: [record.getMessage() for record in caplog.records if record.name == supervision.__name__]
    for code in ("first", "second"):
        _REGISTRY.pop(code, None)


def install(plugin_class: type[Misbehaving], code: str = "first") -> None:
    """Register a plugin class under a code."""
    register_plugin(code, factory_of(plugin_class))


class Misbehaving(EveryConnectPlugin):
    """Subscribes to everything, and does nothing wrong yet."""

    def __init__(self, service: PluginService) -> None:
        self.service = service

    @property
    def subscribed_methods(self) -> set[str]:
        return {"*"}


class OwnConnection(Misbehaving):
    """Opens a connection with the driver, and is done with it before anybody could see its socket."""

    def execute(self, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        props = self.service.driver_dialect.connect_arguments(self.service.props, self.service.settings)
        assert self.service.current_host_info is not None
        props = self.service.driver_dialect.prepare_connect_info(self.service.current_host_info, props)
        with psycopg.connect(**props) as own:
            own.execute("SELECT 1")
        return execute_func()


class ByTheFunction(Misbehaving):
    """Calls the driver's connect function instead of the rest of the chain."""

    def connect(
        self, target: Any, dialect: Any, host_info: Any, props: dict[str, Any], initial: bool, connect_func: Callable[[], Any]
    ) -> Any:
        own = dialect.connect_arguments(dialect.prepare_connect_info(host_info, props), self.service.settings)
        target(**own).close()
        return connect_func()


class Slow(Misbehaving):
    """Holds its caller, in everything it is asked."""

    def execute(self, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        time.sleep(supervision.BLOCKING)
        return execute_func()

    def notify_connection_changed(self, changes: Any) -> OldConnectionSuggestedAction:
        time.sleep(supervision.BLOCKING)
        return OldConnectionSuggestedAction.NO_OPINION


class Misspelt(Misbehaving):
    """Subscribes to what never comes, beside what does."""

    @property
    def subscribed_methods(self) -> set[str]:
        return {"connect", "Cursor.execute", "Cursor.exceute", "Connection.close"}


class ThroughTheService(Misbehaving):
    """Opens a second connection as it should."""

    def execute(self, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        for open_one in (self.service.connect, self.service.force_connect):
            other = open_one(self.service.current_host_info, dict(self.service.props), self)
            other.execute("SELECT pg_sleep(0)")
            self.service.discard(other)
        return execute_func()


def test_a_plugin_that_opens_connections_of_its_own_is_named(connect: Connect, supervised: Warnings) -> None:
    install(OwnConnection)
    connection = connect(plugins="first,dev,failover_v2")
    assert supervised() == []
    connection.execute("SELECT 1")
    (warning,) = [text for text in supervised() if "connection of its own" in text]
    assert f"plugin {OwnConnection.__qualname__} opened" in warning
    assert " in Cursor.execute:" in warning


@pytest.mark.parametrize("plugins", ["first,dev,failover_v2", "dev,first,failover_v2", "failover_v2,dev,first"])
def test_it_is_named_wherever_it_stands_in_the_chain(connect: Connect, supervised: Warnings, plugins: str) -> None:
    install(ByTheFunction)
    connect(plugins=plugins, auto_sort_wrapper_plugin_order=False)
    (warning,) = [text for text in supervised() if "connection of its own" in text]
    assert f"plugin {ByTheFunction.__qualname__} opened a database connection of its own in connect" in warning


def test_subscriptions_to_what_never_comes_are_named(connect: Connect, supervised: Warnings) -> None:
    install(Misspelt)
    connect(plugins="first,dev")
    (warning,) = [text for text in supervised() if "subscribed" in text]
    assert f"plugin {Misspelt.__qualname__} subscribed to Connection.close, Cursor.exceute, which never comes" in warning
    assert "Cursor.executemany" in warning


def test_a_plugin_that_blocks_is_named_with_the_time_it_took(connect: Connect, supervised: Warnings) -> None:
    install(Slow)
    connection = connect(plugins="first,dev")
    connection.execute("SELECT 1")
    connection.commit()
    found = [text.split(" blocked its caller for ") for text in supervised()]
    assert [name for name, _ in found] == [f"plugin {Slow.__qualname__}"] * 3
    methods = [text.partition(" in ")[2].partition(",")[0] for _, text in found]
    assert methods == ["notify_connection_changed", "Cursor.execute", "Connection.commit"]
    assert all(float(text.partition(" ms")[0]) >= supervision.BLOCKING * 1000 for _, text in found)


def test_the_rest_of_the_chain_is_nobodys_fault(connect: Connect, supervised: Warnings) -> None:
    install(Misbehaving)
    install(Slow, "second")
    connection = connect(plugins="first,second,dev")
    connection.execute(f"SELECT pg_sleep({supervision.BLOCKING + 0.1})")
    assert {text.split(" blocked ")[0] for text in supervised()} == {f"plugin {Slow.__qualname__}"}


def test_connections_through_the_plugin_service_are_in_order(connect: Connect, supervised: Warnings) -> None:
    install(ThroughTheService)
    connection = connect(plugins="first,dev,failover_v2")
    connection.execute("SELECT 1")
    assert [text for text in supervised() if "connection of its own" in text] == []


def test_connections_that_lead_to_no_single_endpoint_are_in_order(
    connect: Connect, supervised: Warnings, aurora: LocalAurora
) -> None:
    install(ThroughTheService)
    hosts = ",".join([aurora.writer.address] * 2)
    ports = ",".join([str(aurora.port)] * 2)
    connection = connect(plugins="first,dev", host=hosts, hostaddr=hosts, port=ports)
    assert connection.plugin_service.watch is None
    connection.execute("SELECT 1")
    assert [text for text in supervised() if "connection of its own" in text] == []


def test_a_failover_may_wait(connect: Connect, supervised: Warnings, aurora: LocalAurora) -> None:
    connection = connect(plugins="dev,failover_v2", monitor_mode="off")
    aurora.kill("writer")
    aurora.promote_later(0.3, rejoin=False)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    assert supervised() == []


def test_nobody_is_supervised_without_the_dev_plugin(connect: Connect, supervised: Warnings) -> None:
    install(Slow)
    install(OwnConnection, "second")
    connect(plugins="dev").execute("SELECT 1")
    connect(plugins="first,second").execute("SELECT 1")
    assert supervised() == []
