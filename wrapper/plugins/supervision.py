"""What the `dev` plugin finds out about the plugins beside it: that one blocks, or opens database connections of its own.

Each thread knows whose code it runs: a plugin's, or anybody else's. Time counts for the plugin whose turn it is, so that what the
rest of the chain takes is not its fault; a connection object of the driver that is made during a plugin's turn is the plugin's own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import wraps
from typing import TYPE_CHECKING, Any

from wrapper.drivers.base import DriverDialect
from wrapper.hosts import HostInfo, HostRole
from wrapper.plugin import ALL_METHODS, PIPELINES, Call, ConnectionEvent, HostEvent, OldConnectionSuggestedAction, Plugin

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

logger = logging.getLogger(__name__)

# Seconds that the code of a plugin may take in one call.
BLOCKING = 0.05


class _PluginCall:
    """A call of a plugin. `own`: the seconds for which the plugin's own code has run."""

    __slots__ = ("may_open", "method", "own", "plugin")

    def __init__(self, plugin: str, method: str, may_open: bool) -> None:
        self.plugin = plugin
        self.method = method
        self.may_open = may_open
        self.own = 0.0


class _Turn(threading.local):
    """Whose code the thread runs, None where it is no plugin's, and since when."""

    call: _PluginCall | None = None
    since = 0.0

    def pass_to(self, call: _PluginCall | None) -> _PluginCall | None:
        """Make it the turn of `call`; return whose it was."""
        now = time.perf_counter()
        before = self.call
        if before is not None:
            before.own += now - self.since
        self.call, self.since = call, now
        return before


_turn = _Turn()


def elsewhere(rest: Callable[..., Any]) -> Callable[..., Any]:
    """Return `rest`, the rest of a chain, so that it runs on nobody's account."""

    def run(*args: Any, **kwargs: Any) -> Any:
        before = _turn.pass_to(None)
        try:
            return rest(*args, **kwargs)
        finally:
            _turn.pass_to(before)

    return run


_watched: set[type] = set()


def watch_connections(connect: Callable[..., Any]) -> None:
    """Have every connection object of a driver tell, while it is made, whose turn it is. `connect`: the driver's function.

    This changes the driver's class, once and for the life of the process: a plugin that wants a connection of its own imports the
    driver, and no other way in is common to all of these.
    """
    owner = getattr(connect, "__self__", None)
    if not isinstance(owner, type):
        return
    base = next(parent for parent in reversed(owner.__mro__[:-1]) if "__init__" in vars(parent))
    if base in _watched:
        return
    _watched.add(base)
    initialise = base.__init__  # type: ignore[misc]

    @wraps(initialise)
    def watched(self: Any, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        call = _turn.call
        if call is not None and not call.may_open:
            logger.warning(
                "plugin %s opened a database connection of its own in %s: it is not watched and does not fail over; "
                "use PluginService.connect",
                call.plugin,
                call.method,
            )

    base.__init__ = watched  # type: ignore[misc]


def note_subscriptions(plugin: Plugin, driver_dialect: DriverDialect) -> None:
    """Log what a plugin subscribed to and will never see."""
    unknown = set(plugin.subscribed_methods) - PIPELINES - driver_dialect.network_bound_methods - {ALL_METHODS}
    if unknown:
        logger.warning(
            "plugin %s subscribed to %s, which never comes with %s: its methods that come are %s",
            type(plugin).__qualname__,
            ", ".join(sorted(unknown)),
            driver_dialect.code,
            ", ".join(sorted(driver_dialect.network_bound_methods)),
        )


class Supervised(Plugin):
    """Runs a plugin in its place in the chain and logs what it should not have done. `may_open`: connections of its own."""

    def __init__(self, plugin: Plugin, may_open: bool) -> None:
        self._plugin = plugin
        self._may_open = may_open

    def _run(self, method: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = _PluginCall(type(self._plugin).__qualname__, method, self._may_open)
        before = _turn.pass_to(call)
        try:
            return function(*args, **kwargs)
        finally:
            _turn.pass_to(before)
            if call.own > BLOCKING:
                logger.warning(
                    "plugin %s blocked its caller for %.0f ms in %s, without what the rest of the chain took",
                    call.plugin,
                    call.own * 1000,
                    call.method,
                )

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        return self._plugin.subscribed_methods

    def connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Any:
        arguments = (target_driver_func, driver_dialect, host_info, props, is_initial_connection)
        return self._run("connect", self._plugin.connect, *arguments, elsewhere(connect_func))

    def force_connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        force_connect_func: Callable[[], Any],
    ) -> Any:
        arguments = (target_driver_func, driver_dialect, host_info, props, is_initial_connection)
        return self._run("force_connect", self._plugin.force_connect, *arguments, elsewhere(force_connect_func))

    def bind(self, method_name: str, call: Call) -> Call:
        bound = self._plugin.bind(method_name, elsewhere(call))

        def run(target: Any, /, *args: Any, **kwargs: Any) -> Any:
            return self._run(method_name, bound, target, *args, **kwargs)

        return run

    def init_host_provider(self, props: Mapping[str, Any], service: PluginService, init_func: Callable[[], None]) -> None:
        self._run("init_host_provider", self._plugin.init_host_provider, props, service, elsewhere(init_func))

    def notify_connection_changed(self, changes: set[ConnectionEvent]) -> OldConnectionSuggestedAction:
        action: OldConnectionSuggestedAction = self._run(
            "notify_connection_changed", self._plugin.notify_connection_changed, changes
        )
        return action

    def notify_host_list_changed(self, changes: Mapping[str, set[HostEvent]]) -> None:
        self._run("notify_host_list_changed", self._plugin.notify_host_list_changed, changes)

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        return bool(self._run("accepts_strategy", self._plugin.accepts_strategy, role, strategy))

    def get_host_info_by_strategy(
        self, role: HostRole, strategy: str, host_list: Sequence[HostInfo] | None = None
    ) -> HostInfo | None:
        chosen: HostInfo | None = self._run(
            "get_host_info_by_strategy", self._plugin.get_host_info_by_strategy, role, strategy, host_list
        )
        return chosen

    def shared_state_changed(self) -> None:
        self._run("shared_state_changed", self._plugin.shared_state_changed)
