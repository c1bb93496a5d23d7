"""Every connection parameter of the wrapper, declared once: name, type, unit, default, allowed values, plugin, help.

From this registry come the conversion of values, the error texts, the masking of secrets, and the stripping of our names before the
driver is called. Text, numbers and booleans are accepted alike, wherever they come from (conninfo, URL, keyword arguments).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from wrapper.errors import AwsWrapperError

# In front of any parameter: its value for the connections of one monitor. `monitoring_x` is accepted for `monitoring-x`.
MONITORING_PREFIXES = (
    "topology-monitoring-",
    "blue-green-monitoring-",
    "limitless-router-monitor-",
    "monitoring-",
    "frt-",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One parameter. `unit` and `plugin` are for documentation; `choices` are lower-case; bounds are inclusive."""

    name: str
    type: type
    default: Any
    help: str
    unit: str = ""
    plugin: str = "core"
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    secret: bool = False
    differs: str = ""  # why the default is not the reference's

    def parse(self, value: Any) -> Any:
        """Return `value` in this setting's type. Raises `AwsWrapperError` naming the parameter, the value and what is allowed."""
        if value is None:
            return self.default
        try:
            parsed = _PARSERS[self.type](value)
        except (TypeError, ValueError):
            raise self._error(value, _TYPE_TEXTS[self.type]) from None
        if self.choices:
            # The reference documents hyphens in some places and understands underscores only; both mean the same here.
            parsed = parsed.strip().lower().replace("-", "_")
            if parsed not in self.choices:
                raise self._error(value, f"one of {', '.join(self.choices)}")
        if self.minimum is not None and parsed < self.minimum:
            raise self._error(value, f"at least {self.minimum:g}{self._unit}")
        if self.maximum is not None and parsed > self.maximum:
            raise self._error(value, f"at most {self.maximum:g}{self._unit}")
        return parsed

    @property
    def _unit(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def _error(self, value: Any, allowed: str) -> AwsWrapperError:
        shown = "(hidden)" if self.secret else repr(value)
        return AwsWrapperError(f"{self.name}={shown} is not valid: expected {allowed}")


def _parse_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError(text)


def _parse_int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _parse_float(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or number != number:
        raise ValueError(value)
    return number


_PARSERS: dict[type, Callable[[Any], Any]] = {
    bool: _parse_bool,
    int: _parse_int,
    float: _parse_float,
    str: str,
    object: lambda value: value,
}
_TYPE_TEXTS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", object: "an object"}

_FAILOVER_MODES = ("strict_writer", "strict_reader", "reader_or_writer")
_STRATEGIES = ("random", "round_robin", "weighted_random", "highest_weight")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "plugins",
        str,
        None,
        "Comma-separated plugin codes; empty for none. Default: the driver's list.",
        aliases=("wrapper_plugins",),
    ),
    Setting("auto_sort_wrapper_plugin_order", bool, True, "Sort the plugins into their documented order."),
    Setting("wrapper_dialect", str, None, "Force a database dialect instead of asking the database."),
    Setting("wrapper_driver_dialect", str, None, "Force a driver dialect instead of recognising the driver's connect function."),
    Setting(
        "auxiliary_query_timeout_sec",
        float,
        5.0,
        "Limit for each of the wrapper's own queries.",
        unit="s",
        minimum=0.05,
    ),
    Setting(
        "connect_timeout",
        float,
        5.0,
        "Limit for opening a connection, given to the driver.",
        unit="s",
        minimum=0,
        aliases=("connection_timeout",),
        differs="the driver's own default is 130 s (psycopg), which no failover can afford",
    ),
    Setting("tcp_keepalive", bool, None, "TCP keepalive on or off; off also disables the keepalive floor.", plugin="driver"),
    Setting(
        "tcp_keepalive_time",
        int,
        10,
        "Idle time before the first keepalive.",
        unit="s",
        plugin="driver",
        minimum=1,
        differs="a floor for when no monitor runs; the kernel's default is 2 hours",
    ),
    Setting("tcp_keepalive_interval", int, 3, "Time between keepalives.", unit="s", plugin="driver", minimum=1, differs="as above"),
    Setting(
        "tcp_keepalive_probes",
        int,
        3,
        "Keepalives lost before the kernel gives up.",
        plugin="driver",
        minimum=1,
        differs="as above",
    ),
    Setting("socket_timeout", float, None, "Limit for each wait for the server's answer; off by default."),
    Setting("rollback_on_switch", bool, True, "Roll an open transaction of the old connection back in a switch."),
    Setting("reset_session_state_on_close", bool, True, "Put session settings back before a connection returns to its pool."),
    Setting("connection_provider", object, None, "A connection provider for this connection, instead of the process-wide one."),
    Setting("profile_name", str, None, "A configuration profile."),
    Setting("default_host_availability_strategy", str, "", "How long a host that failed counts as unavailable."),
    Setting("host_availability_strategy_max_retries", int, 5, "Failures before it does for good."),
    Setting("host_availability_strategy_initial_backoff_time", float, 30.0, "First back-off."),
    Setting("transfer_session_state_on_switch", bool, True, "Carry session settings over to the new connection."),
    Setting("cluster_id", str, "1", "A name of yours for the cluster; only needed where two clusters would look alike."),
    Setting(
        "cluster_instance_host_pattern",
        str,
        None,
        "Endpoint of the cluster's instances with '?' for the instance's name, optionally ':port'. Needed for IP addresses and "
        "custom domains.",
        plugin="topology",
    ),
    Setting("topology_refresh_ms", int, 30000, "How often the list of members is read.", unit="ms", plugin="topology", minimum=50),
    Setting(
        "cluster_topology_high_refresh_rate_ms",
        int,
        100,
        "How often it is read for a while after a failover.",
        unit="ms",
        plugin="topology",
        minimum=10,
    ),
    Setting(
        "failover_mode",
        str,
        None,
        "Which host to fail over to. Default: reader_or_writer for a reader cluster endpoint, else strict_writer.",
        plugin="failover_v2",
        choices=_FAILOVER_MODES,
    ),
    Setting("failover_timeout_sec", float, 300.0, "Limit for one whole failover.", unit="s", plugin="failover_v2", minimum=0),
    Setting(
        "failover_reader_host_selector_strategy",
        str,
        "random",
        "How a reader is chosen in failover.",
        plugin="failover_v2",
        choices=_STRATEGIES,
    ),
    Setting(
        "enable_connect_failover",
        bool,
        False,
        "Fail over also when opening the connection fails because of the network.",
        plugin="failover_v2",
    ),
    Setting("failure_detection_enabled", bool, True, "Switch of failure detection.", plugin="host_monitoring_v2"),
    Setting(
        "failure_detection_time_ms",
        int,
        0,
        "Grace before a running call is watched. Accepted for compatibility.",
        unit="ms",
        plugin="host_monitoring_v2",
        minimum=0,
        differs="probing is continuous, no call has to wait for it to begin",
    ),
    Setting(
        "failure_detection_interval_ms",
        int,
        1000,
        "Time between probes of a host; a probe unanswered for 60 % of it is silent.",
        unit="ms",
        plugin="host_monitoring_v2",
        minimum=50,
        differs="one shared session per host makes short intervals cheap",
    ),
    Setting(
        "failure_detection_count",
        int,
        3,
        "Silent probes in a row before a host's connections are given up.",
        plugin="host_monitoring_v2",
        minimum=1,
    ),
    Setting("round_robin_host_weight_pairs", str, "", "`host:weight,…` for round_robin.", plugin="selection"),
    Setting("round_robin_default_weight", int, 1, "Weight of hosts not listed.", plugin="selection", minimum=1),
    Setting("weighted_random_host_weight_pairs", str, "", "`host:weight,…` for weighted_random.", plugin="selection"),
    Setting("weighted_random_default_weight", int, 1, "Weight of hosts not listed.", plugin="selection", minimum=1),
    Setting(
        "monitor_mode",
        str,
        "auto",
        "auto: use this host's shared monitor and start one if there is none. attach: use it, never start one. off: work without.",
        plugin="monitor",
        choices=("auto", "attach", "off"),
    ),
)

REGISTRY: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}
_NAMES: dict[str, str] = {alias: setting.name for setting in SETTINGS for alias in (setting.name, *setting.aliases)}


class Settings(Mapping[str, Any]):
    """The wrapper's parameters of one connection, converted and checked. Absent ones read as their default."""

    __slots__ = ("_given", "monitoring")

    def __init__(self, given: Mapping[str, Any], monitoring: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._given = {name: REGISTRY[name].parse(value) for name, value in given.items()}
        self.monitoring: Mapping[str, Mapping[str, Any]] = monitoring or {}

    def __getitem__(self, name: str) -> Any:
        if name in self._given:
            return self._given[name]
        return REGISTRY[name].default

    def __iter__(self) -> Any:
        return iter(REGISTRY)

    def __len__(self) -> int:
        return len(REGISTRY)

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
    """Return (prefix, parameter) of a prefixed parameter, None for others."""
    for prefix in MONITORING_PREFIXES:
        for spelling in (prefix, prefix.replace("-", "_")):
            if name.startswith(spelling) and len(name) > len(spelling):
                return prefix, name[len(spelling) :]
    return None


def split(parameters: Mapping[str, Any], driver_names: Callable[[str], bool]) -> tuple[Settings, dict[str, Any]]:
    """Split parameters into the wrapper's settings and what is left for the driver.

    `driver_names` says whether the driver knows a name. Raises `AwsWrapperError` for a name that neither knows.
    """
    ours: dict[str, Any] = {}
    monitoring: dict[str, dict[str, Any]] = {}
    rest: dict[str, Any] = {}
    for name, value in parameters.items():
        prefixed = monitoring_prefix(name)
        known = canonical(name)
        if prefixed is not None:
            prefix, parameter = prefixed
            if canonical(parameter) is None and not driver_names(parameter):
                raise unknown(parameter, [*_NAMES], shown=name)
            monitoring.setdefault(prefix, {})[canonical(parameter) or parameter] = value
        elif known is not None:
            if known in ours:
                raise AwsWrapperError(f"{name} is given twice (it is another name of {known})")
            ours[known] = value
        elif driver_names(name):
            rest[name] = value
        else:
            raise unknown(name, _NAMES)
    return Settings(ours, monitoring), rest


def unknown(name: str, candidates: Iterable[str], shown: str | None = None) -> AwsWrapperError:
    """Return the error for a name that nobody knows, with the nearest names as a hint. The value may be a secret: not shown."""
    import difflib  # for errors only

    near = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.7)
    hint = f"; did you mean {', '.join(near)}?" if near else "; see the parameter table in docs/parameters.md"
    return AwsWrapperError(f"unknown parameter {shown or name!r}: neither the wrapper nor the driver knows it{hint}")
