"""The extension API: what a plugin is, and by which names it subscribes.

A plugin instance belongs to one wrapper connection. Its methods form pipelines: *nested* ones (`connect`, `force_connect`,
`execute`, `init_host_provider`), where each plugin receives a callable that runs the rest of the chain and may act before and
after it, call it several times, never, or raise; and *broadcast* ones (the notifications and the two about strategies). The
plugin with the lowest weight is outermost. Everything runs on the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum, auto
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from wrapper.errors import UnsupportedOperationError
from wrapper.hosts import HostInfo, HostRole

if TYPE_CHECKING:
    from wrapper.drivers.base import DriverDialect
    from wrapper.plugin_service import PluginService

# Names of the pipelines that are not methods of a driver's object.
CONNECT = "connect"
FORCE_CONNECT = "force_connect"
INIT_HOST_PROVIDER = "init_host_provider"
NOTIFY_CONNECTION_CHANGED = "notify_connection_changed"
NOTIFY_HOST_LIST_CHANGED = "notify_host_list_changed"
ACCEPTS_STRATEGY = "accepts_strategy"
GET_HOST_INFO_BY_STRATEGY = "get_host_info_by_strategy"
PIPELINES = frozenset(
    {
        CONNECT,
        FORCE_CONNECT,
        INIT_HOST_PROVIDER,
        NOTIFY_CONNECTION_CHANGED,
        NOTIFY_HOST_LIST_CHANGED,
        ACCEPTS_STRATEGY,
        GET_HOST_INFO_BY_STRATEGY,
    }
)
ALL_METHODS = "*"
# What most plugins subscribe to.
CONNECTS = frozenset({CONNECT, FORCE_CONNECT})
EVERYTHING = frozenset({ALL_METHODS})
NO_METHODS: frozenset[str] = frozenset()
# The driver methods whose target is a cursor; that of all others is the connection.
CURSOR_METHODS = frozenset(
    {"Cursor.callproc", "Cursor.execute", "Cursor.executemany", "Cursor.fetch", "Cursor.nextset", "ServerCursor.fetch"}
)

# A call into the driver: the driver's connection or cursor, then the caller's arguments.
Call = Callable[..., Any]


class ConnectionEvent(Enum):
    """Why the current connection changed."""

    # Members are what they are: Enum's own would hash the name, in Python, at every connect.
    __hash__ = object.__hash__

    INITIAL_CONNECTION = auto()
    CONNECTION_OBJECT_CHANGED = auto()


class HostEvent(Enum):
    """What happened to a host in the host list."""

    HOST_ADDED = auto()
    HOST_DELETED = auto()
    HOST_CHANGED = auto()
    CONVERTED_TO_WRITER = auto()
    CONVERTED_TO_READER = auto()
    WENT_UP = auto()
    WENT_DOWN = auto()


class OldConnectionSuggestedAction(Enum):
    """What a plugin wants done with the old connection after a switch; `PRESERVE` by anyone wins."""

    NO_OPINION = auto()
    DISPOSE = auto()
    PRESERVE = auto()


@cache
def with_names(methods: frozenset[str], *names: str) -> frozenset[str]:
    """Return a driver's methods and these names, each time the same set."""
    return methods.union(names)


class Plugin:
    """Base class of plugins: every method passes on and changes nothing."""

    # Whether the plugin wants `shared_state_changed`, before a call, when the shared state has a new generation.
    reads_shared_state = False

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        """The pipelines and driver methods (such as `Cursor.execute`) that should come through this plugin; `*` for all.

        Asked once for every connection: the same frozenset each time costs the least.
        """
        return NO_METHODS

    def connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Any:
        """Open a connection to `host_info`. `connect_func()` runs the rest of the chain with `props`, which may be changed."""
        return connect_func()

    def force_connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        force_connect_func: Callable[[], Any],
    ) -> Any:
        """As `connect`, but the end of the chain uses the driver itself, whatever connection provider is installed."""
        return force_connect_func()

    def execute(self, target: Any, method_name: str, execute_func: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
        """Run a driver method. `args` and `kwargs` are for information: changing them does not change the call."""
        return execute_func()

    def bind(self, method_name: str, call: Call) -> Call:
        """Return `call` with this plugin around it. Called once per connection and method.

        The default goes through `execute`. Override it where the cost of a call matters: the result is invoked for every call.
        """

        def around(target: Any, /, *args: Any, **kwargs: Any) -> Any:
            return self.execute(target, method_name, lambda: call(target, *args, **kwargs), *args, **kwargs)

        return around

    def init_host_provider(self, props: Mapping[str, Any], service: PluginService, init_func: Callable[[], None]) -> None:
        """Set up the host list, once per wrapper connection, before the first connect."""
        init_func()

    def notify_connection_changed(self, changes: set[ConnectionEvent]) -> OldConnectionSuggestedAction:
        """Learn that the current connection is another one."""
        return OldConnectionSuggestedAction.NO_OPINION

    def notify_host_list_changed(self, changes: Mapping[str, set[HostEvent]]) -> None:
        """Learn that the host list changed; keys are `HostInfo.url`."""

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        """Whether `get_host_info_by_strategy` of this plugin knows `strategy`."""
        return False

    def get_host_info_by_strategy(
        self, role: HostRole, strategy: str, host_list: Sequence[HostInfo] | None = None
    ) -> HostInfo | None:
        """Return a host of the role, chosen by the strategy. Raise `UnsupportedOperationError` for an unknown strategy."""
        raise UnsupportedOperationError(f"{type(self).__name__} does not know the strategy {strategy!r}")

    def shared_state_changed(self) -> None:
        """Look at the shared state, which changed since the last call through this connection; may raise instead of the call."""


class EveryConnectPlugin(Plugin):
    """A plugin whose `connect` serves forced connects too, as most do."""

    def force_connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        force_connect_func: Callable[[], Any],
    ) -> Any:
        return self.connect(target_driver_func, driver_dialect, host_info, props, is_initial_connection, force_connect_func)


class PluginFactory(Protocol):
    """Makes a plugin for one wrapper connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin: ...


class CanReleaseResources(Protocol):
    """A plugin that holds something to let go of when its connection closes."""

    def release_resources(self) -> None: ...


class SupervisesPlugins(Protocol):
    """A plugin that looks over the shoulders of the others in its chain."""

    def supervise(self, plugin: Plugin) -> Plugin:
        """Return what the pipelines are to run for a plugin of the chain: the plugin itself, or one that runs it."""
        ...
