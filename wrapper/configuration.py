"""What a connection is made by, worked out from the text and the keyword arguments that it is asked for with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from wrapper import pipeline, profiles
from wrapper.cluster import KnownCluster
from wrapper.conninfo import ENVIRONMENT, extract
from wrapper.drivers import driver_dialect_for
from wrapper.effects import tell
from wrapper.environment import variable
from wrapper.errors import AwsWrapperError
from wrapper.pipeline import factories, parse_plugins, sort_codes
from wrapper.profiles import ConfigurationProfile, DriverConfigurationProfiles, apply, chosen_plugins, provider_of
from wrapper.settings import Settings, is_foreign_to_driver, merge, split

if TYPE_CHECKING:
    from wrapper.drivers.base import DriverDialect
    from wrapper.plugin import PluginFactory
    from wrapper.providers.base import ConnectionProvider


@dataclass(frozen=True, slots=True)
class Configuration:
    """The wrapper's settings, the driver's parameters, the factories of the plugins, outermost first, and the cluster that it all
    leads to.

    Connections that are made alike share one.
    """

    driver_dialect: DriverDialect
    settings: Settings
    parameters: Mapping[str, Any]
    plugins: Sequence[type[PluginFactory]]
    profile: ConfigurationProfile | None
    cluster: KnownCluster

    @property
    def connection_provider(self) -> ConnectionProvider | None:
        """The connection's own provider, None for that of the process. A forked child has another one than its parent."""
        own: ConnectionProvider | None = self.settings["connection_provider"]
        return own or (None if self.profile is None else provider_of(self.profile))


def configuration_of(target: Callable[..., Any] | None, conninfo: str, keywords: Mapping[str, Any]) -> Configuration:
    """Return the configuration of a connection. Raises `AwsWrapperError` for a parameter that is unknown or not valid."""
    # An application opens many connections in the same way: most of what opening one costs us is spared by remembering. Equal
    # values of different types do not mean the same (1 and True), hence the types.
    arguments = tuple(zip(keywords, map(type, keywords.values()), keywords.values(), strict=True))
    try:
        hash((target, arguments))
    except TypeError:
        return _configure.__wrapped__(target, conninfo, arguments, None)
    # Where host and port are given, libpq's environment has no say in which endpoint is meant: each look costs a microsecond.
    is_named = ("host" in keywords or "host=" in conninfo) and ("port" in keywords or "port=" in conninfo)
    environment = () if is_named else tuple(map(variable, ENVIRONMENT))
    return _configure(target, conninfo, arguments, (profiles.version, pipeline.registry_version, environment))


@lru_cache(maxsize=64)
def _configure(
    target: Callable[..., Any] | None, conninfo: str, arguments: Sequence[tuple[str, type, Any]], _surroundings: object
) -> Configuration:
    driver_dialect = driver_dialect_for(target)
    ours, text = extract(conninfo, is_foreign_to_driver)
    given = merge({**driver_dialect.parse_conninfo(text), **ours}, {name: value for name, _, value in arguments})
    tell(given)
    profile = DriverConfigurationProfiles.get_profile(given["profile_name"]) if given.get("profile_name") else None
    if profile is not None:
        given = apply(profile, given)
    settings, parameters = split(given, driver_dialect.knows_parameter)
    forced = settings["wrapper_driver_dialect"]
    if forced not in (None, driver_dialect.code):
        raise AwsWrapperError(f"wrapper_driver_dialect={forced!r} does not fit {target!r}: expected {driver_dialect.code}")
    plugins = parse_plugins(chosen_plugins(settings["plugins"], profile, driver_dialect.default_plugins))
    if settings["auto_sort_wrapper_plugin_order"]:
        plugins = sort_codes(plugins)
    cluster = KnownCluster(driver_dialect, parameters, settings, is_followed=bool(plugins))
    return Configuration(driver_dialect, settings, parameters, factories(plugins), profile, cluster)
