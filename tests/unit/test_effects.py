"""Every parameter either is read by something, or says that it has no effect, and why, to whoever gives one."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import psycopg
import pytest

import wrapper
from wrapper import effects
from wrapper.configuration import configuration_of
from wrapper.profiles import ConfigurationProfile, DriverConfigurationProfiles
from wrapper.settings import MONITORING_PREFIXES, REGISTRY

PACKAGE = Path(wrapper.__file__).parent
# Modules that name parameters without reading them.
NOT_READERS = ("parameters", "effects.py", "presets.py")


def texts(node: ast.AST) -> Iterator[str]:
    """What is written in a module. `f"{strategy}_default_weight"` is written as "*_default_weight"."""
    for found in ast.walk(node):
        if isinstance(found, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in found.values)
        elif isinstance(found, ast.Constant) and isinstance(found.value, str):
            yield found.value


@pytest.fixture(scope="module")
def read() -> set[str]:
    """The parameters that modules of the package name."""
    modules = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in NOT_READERS]
    written = {text for path in modules for text in texts(ast.parse(path.read_text(encoding="utf-8")))}
    # Only what has an end of its own says something: not f"ssl_{name}".
    families = [text for text in written if re.fullmatch(r"\*_[\w*]*\w", text)]
    return {name for name in REGISTRY if name in written or any(fnmatchcase(name, family) for family in families)}


@pytest.mark.parametrize("name", [name for name, setting in REGISTRY.items() if not setting.keyword])
def test_a_parameter_is_read_or_says_that_it_is_not(name: str, read: set[str]) -> None:
    assert (name in read) is not bool(effects.why_idle(name))


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log, with nobody told of anything yet."""
    effects._tell.cache_clear()
    caplog.set_level(logging.WARNING, "wrapper.effects")
    yield caplog
    effects._tell.cache_clear()
    DriverConfigurationProfiles.clear_profiles()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("gdb_rw_home_region", "eu-west-1", "it is for the plugin gdb_rw, which does not exist in this version"),
        ("iam_region", "eu-west-1", "it is for the plugins iam, federated_auth, okta, which do not exist in this version"),
        ("idp_password", "s3cret", "it is for the plugins federated_auth, okta, which do not exist in this version"),
        ("reader_response_strategy", "round_robin", "it is for the plugins read_write_splitting, gdb_rw, which do not"),
        ("gdb_monitoring_connection_priority", "us-east-1", "the shared monitor has a session on every host"),
        ("failure_detection_time_ms", 30000, "hosts are probed all the time"),
        ("enable_telemetry", True, "there is no telemetry in this version"),
        ("aws_profile", "me", "no AWS service is called in this version"),
        ("frt_connect_timeout", 1, "it is for the plugin fastest_response_strategy, which does not exist in this version"),
        ("monitoring-socket_timeout", 5, "a monitor's sessions take login parameters and connect_timeout alone"),
    ],
)
@pytest.mark.parametrize("place", ["keyword", "text", "profile"])
def test_who_gives_a_parameter_without_effect_is_told_once(
    name: str, value: object, reason: str, place: str, told: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        if place == "profile":
            DriverConfigurationProfiles.add_or_replace_profile("p", ConfigurationProfile("p", parameters={name: value}))
        else:
            text, keywords = ("host=a", {name: value}) if place == "keyword" else (f"host=a {name}={value}", {})
            # Something that cannot be hashed, so that the configuration is not remembered.
            configuration_of(psycopg.connect, text, {**keywords, "context": []})
    (line,) = told.messages
    assert line.startswith("the parameter ")
    assert f" has no effect: {reason}" in line
    assert "s3cret" not in line


@pytest.mark.parametrize("name", ["enable_telemetry", "bg_id", "failure_detection_time_ms", "ssl_secure"])
def test_the_default_has_no_effect_to_lack(name: str, told: pytest.LogCaptureFixture) -> None:
    configuration_of(psycopg.connect, "host=a", {name: str(REGISTRY[name].default)})
    assert told.messages == []


@pytest.mark.parametrize("prefix", MONITORING_PREFIXES)
def test_behind_a_prefix(prefix: str, told: pytest.LogCaptureFixture) -> None:
    configuration_of(psycopg.connect, "host=a", {f"{prefix}user": "m", f"{prefix}connect_timeout": 3})
    assert len(told.messages) == (0 if prefix in ("monitoring-", "topology-monitoring-") else 2)


def test_a_preset_is_nobodys_mistake(told: pytest.LogCaptureFixture) -> None:
    configuration_of(psycopg.connect, "host=a", {"profile_name": "C0"})
    assert told.messages == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, 5.0),
        ({"connect_timeout": 3}, 3.0),
        ({"connect_timeout": 3, "monitoring-connect_timeout": 7}, 7.0),
        ({"topology_monitoring_connect_timeout": 0.5}, 0.5),
        # What means "for ever" to a driver cannot be meant for a monitor, which would refuse to watch.
        ({"connect_timeout": 0}, 5.0),
        ({"connect_timeout": 0.01}, 0.05),
        ({"connect_timeout": 10**9}, 86_400.0),
    ],
)
def test_how_long_a_monitors_session_may_take_to_open(given: dict[str, object], expected: float) -> None:
    cluster = configuration_of(psycopg.connect, "host=a", given).cluster
    assert cluster.watch_settings.connect_timeout == expected
