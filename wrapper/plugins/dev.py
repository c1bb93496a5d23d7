"""`dev`: raises errors of your choice where the driver would, to see what your application does with them, and supervises the
plugins that you wrote (`wrapper.plugins.supervision`).

from wrapper.plugins.dev import ExceptionSimulatorManager

ExceptionSimulatorManager.raise_exception_on_next_method(psycopg.OperationalError("gone"), "Cursor.execute")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from wrapper.drivers.base import DriverDialect
from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostInfo
from wrapper.plugin import ALL_METHODS, EVERYTHING, EveryConnectPlugin, Plugin
from wrapper.plugins.supervision import Supervised, elsewhere, note_subscriptions, watch_connections

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService


class ConnectCallback(Protocol):
    """Decides about each connect; returns the error to raise instead, or None."""

    def get_exception_to_raise(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Exception | None: ...


class MethodCallback(Protocol):
    """Decides about each routed call; returns the error to raise instead, or None."""

    def get_exception_to_raise(
        self, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any
    ) -> Exception | None: ...


class ExceptionSimulatorManager:
    """What the `dev` plugins of this process will raise. An error that was asked for comes once and before any callback."""

    _next_connect: ClassVar[Exception | None] = None
    _connect_callback: ClassVar[ConnectCallback | None] = None
    _next_method: ClassVar[tuple[str, Exception] | None] = None
    _method_callback: ClassVar[MethodCallback | None] = None

    @classmethod
    def raise_exception_on_next_connect(cls, error: Exception) -> None:
        """Have the next connect raise `error`."""
        cls._next_connect = error

    @classmethod
    def set_connect_callback(cls, callback: ConnectCallback | None) -> None:
        """Have `callback` decide about every connect; None ends that."""
        cls._connect_callback = callback

    @classmethod
    def raise_exception_on_next_method(cls, error: Exception, method_name: str = ALL_METHODS) -> None:
        """Have the next call of a routed method, such as `Cursor.execute`, raise `error`; `*` is any of them."""
        if not method_name:
            raise AwsWrapperError("method_name='' is not valid: expected a method such as 'Cursor.execute', or '*'")
        cls._next_method = (method_name, error)

    @classmethod
    def set_method_callback(cls, callback: MethodCallback | None) -> None:
        """Have `callback` decide about every routed call; None ends that."""
        cls._method_callback = callback

    @classmethod
    def reset(cls) -> None:
        """Raise nothing any more."""
        cls._next_connect = cls._connect_callback = cls._next_method = cls._method_callback = None

    @classmethod
    def take_for_connect(cls, *arguments: Any) -> Exception | None:
        """Return what a connect with these arguments is to raise."""
        error, cls._next_connect = cls._next_connect, None
        if error is None and cls._connect_callback is not None:
            error = cls._connect_callback.get_exception_to_raise(*arguments)
        return error

    @classmethod
    def take_for_method(
        cls, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any
    ) -> Exception | None:
        """Return what a call is to raise."""
        if cls._next_method is not None and cls._next_method[0] in (ALL_METHODS, method_name):
            _, error = cls._next_method
            cls._next_method = None
            return error
        if cls._method_callback is not None:
            return cls._method_callback.get_exception_to_raise(target, method_name, execute_func, *args, **kwargs)
        return None


class DeveloperPlugin(EveryConnectPlugin):
    """Raises what `ExceptionSimulatorManager` was told, and supervises the other plugins of its connection."""

    def __init__(self, service: PluginService) -> None:
        self._service = service
        watch_connections(service.target_driver_func)

    def supervise(self, plugin: Plugin) -> Plugin:
        """Have a plugin's calls watched. Those that come with the wrapper are left alone: a failover waits, and has to."""
        if type(plugin).__module__.startswith(f"{__package__}."):
            return plugin
        note_subscriptions(plugin, self._service.driver_dialect)
        # What leads to no single endpoint is opened outside of the chain, by the plugin service too.
        return Supervised(plugin, may_open=self._service.watch is None)

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        return EVERYTHING

    def connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Any:
        error = ExceptionSimulatorManager.take_for_connect(
            target_driver_func, driver_dialect, host_info, props, is_initial_connection, connect_func
        )
        if error is not None:
            raise error
        return elsewhere(connect_func)()

    def execute(self, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        error = ExceptionSimulatorManager.take_for_method(target, method_name, execute_func, *args, **kwargs)
        if error is not None:
            raise error
        return elsewhere(execute_func)()


class DeveloperPluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        return DeveloperPlugin(plugin_service)
