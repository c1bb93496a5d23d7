"""Which parameters have no effect in this version, and why: for the documentation, and for whoever gives one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from wrapper.pipeline import PLANNED
from wrapper.settings import REGISTRY, Setting, monitoring_prefix, one_name

logger = logging.getLogger(__name__)

# Subjects, beside the plugins of the pipeline's list, that nothing in this version is built for.
_PLANNED_SUBJECTS = {"aws": "no AWS service is called", "telemetry": "there is no telemetry"}
# Whose sessions a prefix is for, where these do not exist yet.
_PLANNED_PREFIXES = {
    "frt-": "fastest_response_strategy",
    "blue-green-monitoring-": "bg",
    "limitless-router-monitor-": "limitless",
}
# What of the wrapper's own the monitor's sessions take from behind a prefix; the driver's login parameters beside them.
_OF_MONITORS = frozenset({"connect_timeout"})


def is_planned(owner: str) -> bool:
    """Whether nothing of what owns a parameter (a subject, or codes of plugins with commas) exists in this version."""
    return owner in _PLANNED_SUBJECTS or PLANNED.issuperset(owner.split(", "))


def why_idle(name: str) -> str:
    """Return why a parameter, given with or without a prefix, has no effect; empty where it has one."""
    prefix, parameter = monitoring_prefix(name) or ("", name)
    setting = REGISTRY.get(parameter)
    plugin = _PLANNED_PREFIXES.get(prefix)
    if plugin in PLANNED:
        return f"it is for the plugin {plugin}, which does not exist in this version"
    if prefix and setting is not None and not setting.keyword and parameter not in _OF_MONITORS:
        return f"a monitor's sessions take login parameters and {', '.join(_OF_MONITORS)} alone"
    return "" if setting is None or prefix else _why(setting)


def _why(setting: Setting) -> str:
    if setting.plugin in _PLANNED_SUBJECTS:
        return f"{_PLANNED_SUBJECTS[setting.plugin]} in this version"
    if is_planned(setting.plugin):
        codes = setting.plugin.split(", ")
        subject = f"plugin {codes[0]}, which does" if len(codes) == 1 else f"plugins {', '.join(codes)}, which do"
        return f"it is for the {subject} not exist in this version"
    return setting.idle


def idle(given: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Return the given parameters that have no effect, and why. A default has none to have."""
    for spelled, value in given.items():
        name = one_name(spelled)
        reason = why_idle(name)
        if reason and not _is_default(name, value):
            yield name, reason


def _is_default(name: str, value: Any) -> bool:
    setting = REGISTRY.get(name)
    return value is None or (setting is not None and setting.parse(value) == setting.default)


def tell(given: Mapping[str, Any]) -> None:
    """Log a WARNING, once in a process, for each of the given parameters that has no effect. Values are not shown."""
    for name, reason in idle(given):
        _tell(name, reason)


@cache
def _tell(name: str, reason: str) -> None:
    logger.warning("the parameter %s has no effect: %s", name, reason)
