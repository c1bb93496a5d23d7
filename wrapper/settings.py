"""The parameters of one connection: whose each is, what it is in its own type, and which of them may be shown.

The parameters themselves are declared in `wrapper.parameters`. From there come the conversion of values, the error texts, the
masking of secrets, and the stripping of our names before the driver is called. Text, numbers and booleans are accepted alike,
wherever they come from (conninfo, URL, keyword arguments).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from wrapper.errors import AwsWrapperError
from wrapper.parameters import SETTINGS, Setting

# In front of any parameter: its value for the connections of one monitor. `monitoring_x` is accepted for `monitoring-x`.
MONITORING_PREFIXES = (
    "topology-monitoring-",
    "blue-green-monitoring-",
    "limitless-router-monitor-",
    "monitoring-",
    "frt-",
)

REGISTRY: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}
_NAMES: dict[str, str] = {alias: setting.name for setting in SETTINGS for alias in (setting.name, *setting.aliases)}
_OURS: dict[str, Setting] = {name: setting for name, setting in REGISTRY.items() if not setting.keyword}

HIDDEN = "(hidden)"
# What the names of drivers' secrets hold or, for a key, end in. An sslkey (libpq) or ssl_key (MySQL) is the path of a file.
_SECRET_WORDS = ("password", "passwd", "pwd", "secret", "token", "credential")
_PATHS_OF_KEYS = ("sslkey", "ssl_key")


_DEFAULTS: dict[str, Any] = {name: setting.default for name, setting in _OURS.items()}


class Settings(dict[str, Any]):
    """The wrapper's parameters of one connection, converted and checked. Absent ones, and None, read as their default.

    What goes to the driver (user, password, host, port, database) is not among them. `monitoring` holds, per prefix, what was
    given for the connections of monitors, the driver's parameters included. Connections that are made alike share one: it cannot
    be changed. A real dict, because a connect looks into it dozens of times.
    """

    __slots__ = ("_given", "monitoring")

    def __init__(self, given: Mapping[str, Any], monitoring: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._given = {name: _OURS[name].parse(value) for name, value in given.items() if value is not None}
        self.monitoring: Mapping[str, Mapping[str, Any]] = {
            prefix: {name: _checked(name, value, prefix) for name, value in overrides.items() if value is not None}
            for prefix, overrides in (monitoring or {}).items()
        }
        super().__init__(_DEFAULTS | self._given)

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("settings cannot be changed: connections share them")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __repr__(self) -> str:
        overrides = {prefix: mask(given) for prefix, given in self.monitoring.items()}
        return f"Settings({mask(self._given)}, {overrides})"

    def is_given(self, name: str) -> bool:
        """Whether the user set the parameter."""
        return name in self._given

    def seconds(self, name: str) -> float:
        """Return a time parameter in seconds, whatever its unit."""
        value = float(self[name])
        return value / 1000 if REGISTRY[name].unit == "ms" else value


def canonical(name: str) -> str | None:
    """Return the registered name of a parameter or alias, None when it is not ours."""
    return _NAMES.get(name)


def monitoring_prefix(name: str) -> tuple[str, str] | None:
    """Return (prefix, parameter) of a prefixed parameter, None for others, such as `monitoring_connection_priority`."""
    if name not in _NAMES:
        for prefix in MONITORING_PREFIXES:
            if len(name) > len(prefix) and name[: len(prefix)].replace("_", "-") == prefix:
                return prefix, name[len(prefix) :]
    return None


def is_foreign_to_driver(name: str) -> bool:
    """Whether the driver's own parser of connection text must not see a parameter of this name."""
    known = _NAMES.get(name)
    return monitoring_prefix(name) is not None or (known is not None and name != REGISTRY[known].keyword)


def one_name(name: str) -> str:
    """Return the one name for all spellings of a parameter; names that are not ours are returned as they are."""
    prefixed = monitoring_prefix(name)
    if prefixed is not None:
        prefix, parameter = prefixed
        return prefix + _NAMES.get(parameter, parameter)
    return _NAMES.get(name, name)


def merge(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of all sources under one name each; later sources win, however they spell it, except with None.

    Raises `AwsWrapperError` when one source gives a parameter twice.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        spelled: dict[str, str] = {}
        for name, value in source.items():
            known = one_name(name)
            if known in spelled:
                raise AwsWrapperError(f"{name} is given twice (it is another name of {spelled[known]})")
            spelled[known] = name
            if value is not None or known not in merged:
                merged[known] = value
    return merged


def split(parameters: Mapping[str, Any], driver_names: Callable[[str], bool]) -> tuple[Settings, dict[str, Any]]:
    """Split parameters into the wrapper's settings and what is left for the driver.

    `driver_names` says whether the driver knows a name. Raises `AwsWrapperError` for a name that neither knows, and for a value
    that is not allowed.
    """
    ours: dict[str, Any] = {}
    monitoring: dict[str, dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for name, value in merge(parameters).items():
        prefix, parameter = monitoring_prefix(name) or ("", name)
        if parameter not in REGISTRY and not driver_names(parameter):
            raise unknown(parameter, _NAMES, shown=name)
        if prefix:
            monitoring.setdefault(prefix, {})[parameter] = value
        elif parameter in _OURS:
            ours[name] = value
        else:
            rest[name] = _checked(name, value)
    return Settings(ours, monitoring), rest


def _checked(name: str, value: Any, prefix: str = "") -> Any:
    """Return a value of ours in its type, one of the driver's as it was given; both are checked where they are declared."""
    setting = REGISTRY.get(name)
    if setting is None:
        return value
    parsed = setting.parse(value, shown=prefix + name)
    return value if setting.keyword else parsed


def unknown(name: str, candidates: Iterable[str], shown: str | None = None) -> AwsWrapperError:
    """Return the error for a name that nobody knows, with the nearest names as a hint. The value may be a secret: not shown."""
    import difflib  # for errors only

    # The JDBC and NodeJS wrappers write failureDetectionTime.
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    near = difflib.get_close_matches(snake, list(candidates), n=3, cutoff=0.7)
    hint = f"; did you mean {', '.join(near)}?" if near else "; see the parameter table in docs/parameters.md"
    return AwsWrapperError(f"unknown parameter {shown or name!r}: neither the wrapper nor the driver knows it{hint}")


def mask(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters as they may be logged: secrets hidden, ours by their declaration, the driver's by their names."""
    return {name: HIDDEN if value is not None and _is_secret(name) else value for name, value in parameters.items()}


def _is_secret(name: str) -> bool:
    _, parameter = monitoring_prefix(name) or ("", name)
    known = _NAMES.get(parameter)
    if known is not None:
        return REGISTRY[known].secret
    text = parameter.lower()
    return any(word in text for word in _SECRET_WORDS) or (text.endswith("key") and text not in _PATHS_OF_KEYS)


__all__ = [
    "HIDDEN",
    "MONITORING_PREFIXES",
    "REGISTRY",
    "SETTINGS",
    "Setting",
    "Settings",
    "canonical",
    "is_foreign_to_driver",
    "mask",
    "merge",
    "monitoring_prefix",
    "one_name",
    "split",
    "unknown",
]
