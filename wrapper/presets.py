"""The presets of the AWS Advanced JDBC and NodeJS Wrappers, as profiles: ready-made answers to three questions.

Who pools connections (nobody, the wrapper, the application)? How soon should a dead host be noticed? And by what: a limit for every
call, TCP keepalive, or probes?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

from wrapper.profiles import ConfigurationProfile

Pool = Literal["none", "internal", "external"]
Sensitivity = Literal["easy", "normal", "aggressive"]

# JDBC's presets use failover v1; here the old and the new one are one engine, which is called failover_v2.
_PROBES = ("host_monitoring_v2",)
_POOLED_HERE = ("initial_connection", "aurora_connection_tracker", "read_write_splitting", "failover_v2")
_POOLED_BY_YOU = ("aurora_connection_tracker", "stale_dns", "failover_v2")

# Where JDBC's preset has keepalive off, nothing is set: the wrapper's own keepalive is what ends a connection to a vanished host
# when no monitor runs, and no preset was meant to take that away. A socket time-out of 0 is the default, which is none.
_LIMITED = {"connect_timeout": 10, "socket_timeout": 5}
_LIMITED_EASILY = {"connect_timeout": 30, "socket_timeout": 30}
_LIMITED_TIGHTLY = {"connect_timeout": 3, "socket_timeout": 3}
_KEPT_ALIVE = {"connect_timeout": 10, "tcp_keepalive": True}
_PROBED = {
    "connect_timeout": 10,
    "failure_detection_time_ms": 60_000,
    "failure_detection_count": 5,
    "failure_detection_interval_ms": 15_000,
    "monitoring-connect_timeout": 10,
    "monitoring-socket_timeout": 5,
}
_PROBED_OFTEN = {
    "connect_timeout": 10,
    "failure_detection_time_ms": 30_000,
    "failure_detection_count": 3,
    "failure_detection_interval_ms": 5_000,
    "monitoring-connect_timeout": 3,
    "monitoring-socket_timeout": 3,
}

# JDBC's pool in SQLAlchemy's words: at most 30 connections, 10 s to wait for one, renewed after a day. What it has beyond that (an
# idle minimum, an idle time limit, validation) QueuePool does not know.
POOL_ARGUMENTS: Mapping[str, Any] = MappingProxyType({"pool_size": 30, "max_overflow": 0, "timeout": 10, "recycle": 86_400})


@dataclass(frozen=True)
class Preset:
    """One row of the table: `pool` says who pools, `sensitivity` how soon a dead host is noticed."""

    code: str
    pool: Pool
    sensitivity: Sensitivity
    plugins: tuple[str, ...]
    parameters: Mapping[str, Any]

    def profile(self) -> ConfigurationProfile:
        """Return the preset as a profile."""
        provider = internal_pool if self.pool == "internal" else None
        return ConfigurationProfile(self.code, self.plugins, self.parameters, provider)


def internal_pool() -> Any:
    """Make the provider that pools connections inside the wrapper; needs SQLAlchemy."""
    module = import_module("wrapper.providers.sqlalchemy_pool")
    return module.SqlAlchemyPooledConnectionProvider(pool_configurator=lambda host_info, props: dict(POOL_ARGUMENTS))


TABLE = (
    Preset("A0", "none", "normal", (), _LIMITED),
    Preset("A1", "none", "easy", (), _LIMITED_EASILY),
    Preset("A2", "none", "aggressive", (), _LIMITED_TIGHTLY),
    Preset("B", "none", "normal", (), _KEPT_ALIVE),
    Preset("C0", "none", "normal", _PROBES, _PROBED),
    Preset("C1", "none", "aggressive", _PROBES, _PROBED_OFTEN),
    Preset("D0", "internal", "normal", _POOLED_HERE, _LIMITED),
    Preset("D1", "internal", "easy", _POOLED_HERE, _LIMITED_EASILY),
    Preset("E", "internal", "normal", _POOLED_HERE, _KEPT_ALIVE),
    Preset("F0", "internal", "normal", _POOLED_HERE + _PROBES, _PROBED),
    Preset("F1", "internal", "aggressive", _POOLED_HERE + _PROBES, _PROBED_OFTEN),
    Preset("G0", "external", "normal", _POOLED_BY_YOU, _LIMITED),
    Preset("G1", "external", "easy", _POOLED_BY_YOU, _LIMITED_EASILY),
    Preset("H", "external", "normal", _POOLED_BY_YOU, _KEPT_ALIVE),
    Preset("I0", "external", "normal", _POOLED_BY_YOU + _PROBES, _PROBED),
    Preset("I1", "external", "aggressive", _POOLED_BY_YOU + _PROBES, _PROBED_OFTEN),
)

PRESETS: Mapping[str, ConfigurationProfile] = MappingProxyType({preset.code: preset.profile() for preset in TABLE})
