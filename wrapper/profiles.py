"""Configuration profiles: plugins, parameters, a connection provider and dialects under one name, chosen by `profile_name`.

A profile is a value. What the application gives for a connection wins over it, and it wins over the defaults. Presets are profiles
that exist from the start (`wrapper.presets`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from wrapper.dialects import DIALECTS
from wrapper.effects import tell
from wrapper.errors import AwsWrapperError
from wrapper.pipeline import PluginReference, parse_plugins, registration_of
from wrapper.plugin import PluginFactory
from wrapper.settings import REGISTRY, canonical, merge, one_name, split

# What a profile says in a field of its own rather than among its parameters.
_FIELDS = {
    "plugins": "plugins",
    "wrapper_dialect": "database_dialect",
    "wrapper_driver_dialect": "driver_dialect",
    "profile_name": "name",
}


@dataclass(frozen=True)
class ConfigurationProfile:
    """What connections that choose the profile by its name get.

    `plugins` are codes or factory classes, empty for none, None for the driver's default list; comma-separated text is accepted.
    `parameters` are the wrapper's and the driver's, used where the application gives none. `connection_provider` is an object, or a
    callable without arguments that makes it when it is first needed (see `provider_of`). The dialects are codes, None to recognise
    them.
    """

    name: str
    plugins: Sequence[PluginReference] | None = None
    # May hold a password: not shown.
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    connection_provider: Any = field(default=None, hash=False)
    database_dialect: str | None = None
    driver_dialect: str | None = None

    def __post_init__(self) -> None:
        put = object.__setattr__
        if self.plugins is not None:
            given = self.plugins.split(",") if isinstance(self.plugins, str) else self.plugins
            plain = (plugin.strip() if isinstance(plugin, str) else plugin for plugin in given)
            put(self, "plugins", tuple(plugin for plugin in plain if plugin))
        parameters = {name: value for name, value in self.parameters.items() if value is not None}
        put(self, "parameters", MappingProxyType(parameters))

    def derive(self, name: str, *, parameters: Mapping[str, Any] | None = None, **fields: Any) -> ConfigurationProfile:
        """Return a profile like this one under another name.

        `parameters` are added to this profile's and win over them, a value of None takes one out; other fields are replaced.
        """
        changes = parameters or {}
        removed = {one_name(parameter) for parameter, value in changes.items() if value is None}
        merged = {key: value for key, value in merge(self.parameters, changes).items() if key not in removed}
        return replace(self, name=name, parameters=merged, **fields)


def apply(profile: ConfigurationProfile, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a connection: those given, and the profile's where none is given under any of its spellings.

    Plugins are not among them, since factories are no text: see `chosen_plugins`.
    """
    dialects = {"wrapper_dialect": profile.database_dialect, "wrapper_driver_dialect": profile.driver_dialect}
    return merge(profile.parameters, {name: code for name, code in dialects.items() if code is not None}, given)


def chosen_plugins(
    given: str | None, profile: ConfigurationProfile | None, default: str
) -> str | Sequence[PluginReference]:  # what `PluginManager` takes
    """Return the plugins of a connection: the parameter `plugins` if given, else the profile's, else the driver's default list."""
    if given is not None:
        return given
    return default if profile is None or profile.plugins is None else profile.plugins


def check(profile: ConfigurationProfile) -> None:
    """Raise `AwsWrapperError` for what can be known to be wrong without a driver.

    The driver's parameters are checked when somebody connects; a name that looks like a misspelt one of ours is refused here.
    """
    try:
        if profile.plugins is not None:
            parse_plugins(profile.plugins)
        if profile.database_dialect is not None and profile.database_dialect not in DIALECTS:
            raise AwsWrapperError(
                f"database_dialect={profile.database_dialect!r} is not valid: expected one of {', '.join(sorted(DIALECTS))}"
            )
        _check_parameters(profile.parameters)
    except AwsWrapperError as error:
        raise AwsWrapperError(f"profile {profile.name!r}: {error}") from None


def _check_parameters(parameters: Mapping[str, Any]) -> None:
    for name in parameters:
        own_field = _FIELDS.get(canonical(name) or name)
        if own_field is not None:
            raise AwsWrapperError(f"{name} is no parameter of a profile: it is the profile's {own_field}")
    split(parameters, _may_be_the_drivers)


def _may_be_the_drivers(name: str) -> bool:
    return not _near(name, REGISTRY, cutoff=0.9)


def _near(name: str, candidates: Iterable[str], cutoff: float) -> list[str]:
    import difflib  # for errors, and for names that are not ours

    return difflib.get_close_matches(name, list(candidates), n=3, cutoff=cutoff)


# -- providers -----------------------------------------------------------------------------------------------------------------

_locks: dict[int, threading.Lock] = {}
_made: dict[tuple[int, str, Callable[[], Any]], Any] = {}


def provider_of(profile: ConfigurationProfile) -> Any:
    """Return the profile's connection provider, None when it has none.

    One that is to be made is made once per profile and process: pooled connections must not be shared with a forked child, which
    leaves what it inherited alone and makes its own.
    """
    provider = profile.connection_provider
    if provider is None or not _makes_provider(provider):
        return provider
    pid = os.getpid()
    key = (pid, profile.name, provider)
    if key not in _made:
        # A lock of this process: a thread that held the parent's during the fork would hold it for ever.
        with _locks.setdefault(pid, threading.Lock()):
            if key not in _made:
                _made[key] = provider()
    return _made[key]


def release_providers() -> None:
    """Let the providers that were made for profiles in this process go of what they hold: pooled ones close their idle
    connections."""
    for (pid, *_), provider in list(_made.items()):
        if pid == os.getpid() and hasattr(provider, "release_resources"):
            provider.release_resources()


def _makes_provider(provider: Any) -> bool:
    """Whether this is a callable that makes a provider, such as a class, rather than one itself."""
    return isinstance(provider, type) or (callable(provider) and not hasattr(provider, "connect"))


# -- the profiles of the process -----------------------------------------------------------------------------------------------

_profiles: Mapping[str, ConfigurationProfile] = {}  # replaced as a whole


def _presets() -> Mapping[str, ConfigurationProfile]:
    from wrapper.presets import PRESETS  # which are profiles; loaded when first asked for

    return PRESETS


class DriverConfigurationProfiles:
    """The profiles of this process by name. Your own come before a preset of the same name; presets cannot be removed."""

    @staticmethod
    def add_or_replace_profile(name: str, profile: ConfigurationProfile | Sequence[PluginReference]) -> None:
        """Store a profile, or a list of plugin factories or codes as one, under a name.

        Raises `AwsWrapperError` when it could not work: an unknown plugin, a wrong value, a parameter that does not exist.
        """
        if not isinstance(name, str) or not name.strip():
            raise AwsWrapperError(f"a profile cannot be called {name!r}: expected text that is not empty")
        if not isinstance(profile, ConfigurationProfile):
            profile = ConfigurationProfile(name, plugins=profile)
        profile = replace(profile, name=name)
        check(profile)
        tell(profile.parameters)
        _replace_all({**_profiles, name: profile})

    @staticmethod
    def get_profile(name: str) -> ConfigurationProfile:
        """Return a profile or preset. Raises `AwsWrapperError` when there is none of this name."""
        profile = _profiles.get(name) or _presets().get(name)
        if profile is None:
            raise _unknown(name)
        return profile

    @staticmethod
    def contains_profile(name: str) -> bool:
        """Whether there is a profile or preset of this name."""
        return name in _profiles or name in _presets()

    @staticmethod
    def get_plugin_factories(name: str) -> list[type[PluginFactory]] | None:
        """Return the plugin factories of a profile, None when it leaves them to the driver's default list."""
        plugins = DriverConfigurationProfiles.get_profile(name).plugins
        return None if plugins is None else [registration_of(plugin).load() for plugin in parse_plugins(plugins)]

    @staticmethod
    def remove_profile(name: str) -> None:
        """Forget a profile; a preset that it stood in front of is there again. Raises `AwsWrapperError` for a preset."""
        if name in _profiles:
            _replace_all({other: profile for other, profile in _profiles.items() if other != name})
            return
        if name in _presets():
            raise AwsWrapperError(f"the preset {name} cannot be removed; a profile of yours with this name would come before it")
        raise _unknown(name)

    @staticmethod
    def clear_profiles() -> None:
        """Forget all profiles but the presets."""
        _replace_all({})


# Another object after every change.
version = object()


def _replace_all(profiles: Mapping[str, ConfigurationProfile]) -> None:
    global _profiles, version
    _profiles, version = profiles, object()


def _unknown(name: str) -> AwsWrapperError:
    names = [*_profiles, *_presets()]
    near = _near(str(name), names, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return AwsWrapperError(f"profile_name={name!r}: there is no such profile; {hint}known: {', '.join(names)}")
