"""The plugin chain of one connection: which plugins it has, in which order, and the compiled callables that run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.hosts import HostInfo, HostRole
from wrapper.plugin import (
    ACCEPTS_STRATEGY,
    ALL_METHODS,
    CONNECT,
    FORCE_CONNECT,
    GET_HOST_INFO_BY_STRATEGY,
    INIT_HOST_PROVIDER,
    NOTIFY_CONNECTION_CHANGED,
    NOTIFY_HOST_LIST_CHANGED,
    Call,
    ConnectionEvent,
    HostEvent,
    OldConnectionSuggestedAction,
    Plugin,
    PluginFactory,
)
from wrapper.settings import Settings

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

# How a chain names a plugin: by its code, or by its factory itself.
PluginReference = str | type[PluginFactory]

RELATIVE_WEIGHT = -1
# Distributions offer plugins under this group: the code as the name, the factory class as the object.
ENTRY_POINT_GROUP = "aws_wrapper.plugins"


@dataclass(frozen=True, slots=True)
class Registration:
    """A plugin code: where its factory is, and its weight (lower is outer; `RELATIVE_WEIGHT`: right after the one before it)."""

    factory: type[PluginFactory] | str
    weight: int = RELATIVE_WEIGHT

    def load(self) -> type[PluginFactory]:
        """Return the factory; built-in ones are imported on first use."""
        return _imported(self.factory) if isinstance(self.factory, str) else self.factory


@cache
def _imported(place: str) -> type[PluginFactory]:
    module, _, name = place.partition(":")
    factory: type[PluginFactory] = getattr(import_module(module), name)
    return factory


_REGISTRY: dict[str, Registration] = {
    "initial_connection": Registration("wrapper.plugins.initial_connection:InitialConnectionPluginFactory", 50),
    "aurora_connection_tracker": Registration(
        "wrapper.plugins.aurora_connection_tracker:AuroraConnectionTrackerPluginFactory", 100
    ),
    "stale_dns": Registration("wrapper.plugins.stale_dns:StaleDnsPluginFactory", 200),
    "failover": Registration("wrapper.plugins.failover_v2:FailoverPluginFactory", 400),
    "failover_v2": Registration("wrapper.plugins.failover_v2:FailoverV2PluginFactory", 410),
    "gdb_failover": Registration("wrapper.plugins.gdb_failover:GdbFailoverPluginFactory", 420),
    "host_monitoring_v2": Registration("wrapper.plugins.host_monitoring_v2:HostMonitoringV2PluginFactory", 510),
    "connect_time": Registration("wrapper.plugins.timing:ConnectTimePluginFactory"),
    "execute_time": Registration("wrapper.plugins.timing:ExecuteTimePluginFactory"),
    "dev": Registration("wrapper.plugins.dev:DeveloperPluginFactory"),
}

# Another object after every change.
registry_version = object()

# Codes of the AWS Advanced Python Wrapper that this version does not have yet: refused by name rather than as a typing error.
PLANNED = frozenset(
    {
        "custom_endpoint",
        "read_write_splitting",
        "srw",
        "gdb_rw",
        "host_monitoring",
        "bg",
        "fastest_response_strategy",
        "iam",
        "aws_secrets_manager",
        "federated_auth",
        "limitless",
        "okta",
    }
)

# Of these a chain may have one.
_ALTERNATIVES = frozenset({"failover", "failover_v2", "gdb_failover"})


def register_plugin(plugin_code: str, plugin_factory_class: type[PluginFactory], weight: int = RELATIVE_WEIGHT) -> None:
    """Make a plugin available under a code, for all later connections of this process."""
    if not plugin_code or "," in plugin_code or plugin_code != plugin_code.strip():
        raise AwsWrapperError(f"plugin code {plugin_code!r} is not usable: expected text without commas and outer blanks")
    if not callable(getattr(plugin_factory_class, "get_instance", None)):
        raise AwsWrapperError(f"plugin {plugin_code}: {plugin_factory_class!r} is no factory class with get_instance")
    if not isinstance(weight, int):
        raise AwsWrapperError(f"plugin {plugin_code}: weight={weight!r} is not valid: expected a whole number")
    global registry_version
    _REGISTRY[plugin_code] = Registration(plugin_factory_class, weight)
    registry_version = object()


def plugin_codes() -> list[str]:
    """Return the codes of all plugins that are registered in this process."""
    return sorted(_REGISTRY)


def _find_installed(code: str) -> bool:
    """Register the plugin that an installed distribution offers under a code; return whether one does."""
    from importlib.metadata import entry_points  # for codes that are not built in only

    for entry in entry_points(group=ENTRY_POINT_GROUP, name=code):
        factory = entry.load()
        register_plugin(code, factory, getattr(factory, "weight", RELATIVE_WEIGHT))
        return True
    return False


def parse_codes(text: str) -> list[str]:
    """Return the plugin codes of a comma-separated list. Raises `AwsWrapperError` for unknown and repeated ones."""
    codes = [code.strip() for code in text.split(",") if code.strip()]
    for code in codes:
        if code in _REGISTRY or _find_installed(code):
            continue
        if code in PLANNED:
            raise AwsWrapperError(
                f"plugins={text!r}: the plugin {code!r} of the AWS Advanced Python Wrapper does not exist here yet; available: "
                f"{', '.join(plugin_codes())}"
            )
        import difflib  # for errors only

        near = difflib.get_close_matches(code, _REGISTRY, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise AwsWrapperError(f"plugins={text!r}: unknown plugin code {code!r}; {hint}available: {', '.join(plugin_codes())}")
    repeated = {code for code in codes if codes.count(code) > 1}
    if repeated:
        raise AwsWrapperError(f"plugins={text!r}: {', '.join(sorted(repeated))} given more than once")
    return codes


def parse_plugins(plugins: str | Sequence[PluginReference]) -> list[PluginReference]:
    """Return the plugins of a chain that is given as comma-separated codes, or as codes and factories.

    Raises `AwsWrapperError` for what is unknown, repeated or no factory.
    """
    found: list[PluginReference] = []
    for plugin in (plugins,) if isinstance(plugins, str) else plugins:
        if isinstance(plugin, str):
            found += parse_codes(plugin)
        elif callable(getattr(plugin, "get_instance", None)):
            found.append(_code_of(plugin) or plugin)
        else:
            raise AwsWrapperError(f"plugins: {plugin!r} is neither a plugin code nor a factory class with get_instance")
    repeated = {str(getattr(plugin, "__name__", plugin)) for plugin in found if found.count(plugin) > 1}
    if repeated:
        raise AwsWrapperError(f"plugins: {', '.join(sorted(repeated))} given more than once")
    alternatives = [plugin for plugin in found if plugin in _ALTERNATIVES]
    if len(alternatives) > 1:
        raise AwsWrapperError(f"plugins: {' and '.join(map(str, alternatives))} do the same work: give one of them")
    return found


def _code_of(factory: type[PluginFactory]) -> str | None:
    """Return the code under which a factory is registered."""
    place = f"{factory.__module__}:{getattr(factory, '__qualname__', '')}"
    return next((code for code, registration in _REGISTRY.items() if registration.factory in (factory, place)), None)


def registration_of(plugin: PluginReference) -> Registration:
    """Return what is registered for a plugin; a factory without a code may have its weight as an attribute."""
    if isinstance(plugin, str):
        return _REGISTRY[plugin]
    return Registration(plugin, getattr(plugin, "weight", RELATIVE_WEIGHT))


_R = TypeVar("_R", bound=PluginReference)


def sort_codes(codes: Sequence[_R]) -> list[_R]:
    """Return the plugins in chain order, outermost first; a relative one stays behind the one it followed."""
    weighted: list[tuple[int, _R]] = []
    last = 0
    for code in codes:
        weight = registration_of(code).weight
        last = last + 1 if weight == RELATIVE_WEIGHT else weight
        weighted.append((last, code))
    return [code for _, code in sorted(weighted, key=lambda pair: pair[0])]


def factories(chain: Sequence[PluginReference]) -> tuple[type[PluginFactory], ...]:
    """Return the factories of the plugins that `parse_plugins` returned."""
    return tuple(registration_of(plugin).load() for plugin in chain)


def _not_a_plugin(factory: type[PluginFactory], made: Any) -> AwsWrapperError:
    return AwsWrapperError(f"{factory!r}.get_instance returned {made!r}: expected a wrapper.Plugin")


def _checked(names: Any, plugin: Plugin) -> Iterable[str]:
    if callable(names) or isinstance(names, str):
        kind = type(plugin).__qualname__
        raise AwsWrapperError(f"{kind}.subscribed_methods is not valid: expected a property that returns a set of names")
    found: Iterable[str] = names
    return found


@lru_cache(maxsize=1024)
def _positions(subscriptions: tuple[frozenset[str], ...], method: str) -> tuple[int, ...]:
    """Return which plugins of a chain want to see a method. Connections that are made alike ask for the same."""
    return tuple(at for at, methods in enumerate(subscriptions) if method in methods or ALL_METHODS in methods)


class PluginManager:
    """The plugins of one connection and the pipelines that run through them."""

    def __init__(self, service: PluginService, settings: Settings, chain: Iterable[type[PluginFactory]]) -> None:
        """`chain`: the factories of the plugins, in the order in which these are to run, outermost first."""
        self.plugins: list[Plugin] = []
        subscriptions: list[frozenset[str]] = []
        # No functions of its own: this is done for every plugin of every connection.
        for factory in chain:
            plugin = factory.get_instance(service, settings)
            if not isinstance(plugin, Plugin):
                raise _not_a_plugin(factory, plugin)
            names = plugin.subscribed_methods
            self.plugins.append(plugin)
            subscriptions.append(names if isinstance(names, frozenset) else frozenset(_checked(names, plugin)))
        self._subscriptions = tuple(subscriptions)
        # What the pipelines run for each plugin: itself, unless another one supervises it.
        self._links = self.plugins
        for plugin in self.plugins:
            supervise = getattr(plugin, "supervise", None)
            if supervise is not None:
                self._links = [supervise(link) for link in self._links]

    def _subscribed(self, method: str) -> list[Plugin]:
        return [self._links[at] for at in _positions(self._subscriptions, method)]

    def is_subscribed(self, method: str) -> bool:
        """Whether any plugin wants to see the method; if none does, the driver's own is called."""
        return bool(_positions(self._subscriptions, method))

    def compile(self, method: str, call: Call) -> Call:
        """Fold the plugins subscribed to a driver method around the driver's call, outermost first."""
        for plugin in reversed(self._subscribed(method)):
            call = plugin.bind(method, call)
        return call

    def connect(
        self,
        pipeline: str,
        service: PluginService,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        open_connection: Callable[[HostInfo, dict[str, Any]], Any],
        skip: Plugin | None = None,
    ) -> Any:
        """Run the connect or force_connect pipeline; `open_connection` is its end. `skip` is left out of this one walk."""
        target, dialect = service.target_driver_func, service.driver_dialect
        run: Callable[[], Any] = partial(open_connection, host_info, props)
        for at in reversed(_positions(self._subscriptions, pipeline)):
            if self.plugins[at] is not skip:
                plugin = self._links[at]
                step = plugin.connect if pipeline == CONNECT else plugin.force_connect
                run = partial(step, target, dialect, host_info, props, is_initial_connection, run)
        found = run()
        if found is None:
            raise self._no_connection(pipeline)
        return found

    def _no_connection(self, pipeline: str) -> AwsWrapperError:
        kinds = [type(self.plugins[at]) for at in _positions(self._subscriptions, pipeline)]
        # Ours always return one or raise.
        suspects = [kind for kind in kinds if not kind.__module__.startswith("wrapper.plugins.")] or kinds
        return AwsWrapperError(f"{' or '.join(f'{kind.__qualname__}.{pipeline}' for kind in suspects)} returned no connection")

    def init_host_provider(self, service: PluginService, props: Mapping[str, Any], default: Callable[[], None]) -> None:
        """Run the host list provider pipeline; `default` is its end."""
        run = default
        for plugin in reversed(self._subscribed(INIT_HOST_PROVIDER)):
            run = partial(plugin.init_host_provider, props, service, run)
        run()

    def notify_connection_changed(self, changes: set[ConnectionEvent]) -> OldConnectionSuggestedAction:
        """Tell the subscribed plugins; any `PRESERVE` wins, then any `DISPOSE`."""
        positions = _positions(self._subscriptions, NOTIFY_CONNECTION_CHANGED)
        answers = [self._links[at].notify_connection_changed(changes) for at in positions]
        for action in (OldConnectionSuggestedAction.PRESERVE, OldConnectionSuggestedAction.DISPOSE):
            if action in answers:
                return action
        return OldConnectionSuggestedAction.NO_OPINION

    def notify_host_list_changed(self, changes: Mapping[str, set[HostEvent]]) -> None:
        """Tell the subscribed plugins what changed in the host list."""
        for plugin in self._subscribed(NOTIFY_HOST_LIST_CHANGED):
            plugin.notify_host_list_changed(changes)

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        """Whether a plugin knows the strategy."""
        return any(plugin.accepts_strategy(role, strategy) for plugin in self._subscribed(ACCEPTS_STRATEGY))

    def get_host_info_by_strategy(
        self, role: HostRole, strategy: str, host_list: Sequence[HostInfo] | None = None
    ) -> HostInfo | None:
        """Return the first plugin's choice; None when no plugin knows the strategy, or none finds a host by it."""
        for plugin in self._subscribed(GET_HOST_INFO_BY_STRATEGY):
            try:
                chosen = plugin.get_host_info_by_strategy(role, strategy, host_list)
            except UnsupportedOperationError:
                continue
            if chosen is not None:
                return chosen
        return None

    def readers_of_shared_state(self) -> list[Plugin]:
        """The plugins that look at the shared state before a call when it has a new generation."""
        return [link for plugin, link in zip(self.plugins, self._links, strict=True) if plugin.reads_shared_state]

    def release_resources(self) -> None:
        """Let every plugin that holds something let go of it."""
        for plugin in self.plugins:
            release = getattr(plugin, "release_resources", None)
            if release is not None:
                release()


__all__ = [
    "FORCE_CONNECT",
    "PLANNED",
    "PluginManager",
    "PluginReference",
    "Registration",
    "parse_codes",
    "parse_plugins",
    "register_plugin",
    "registration_of",
    "sort_codes",
]
