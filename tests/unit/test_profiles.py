"""Profiles: what wins over what, what is refused and when, the presets, and chains made of factories."""

from __future__ import annotations

import inspect
import json
import runpy
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import pq

from wrapper import pipeline
from wrapper.configuration import Configuration, configuration_of
from wrapper.errors import AwsWrapperError
from wrapper.pipeline import PluginManager, parse_plugins, sort_codes
from wrapper.plugin import Plugin
from wrapper.plugins.failover_v2 import FailoverV2PluginFactory
from wrapper.plugins.host_monitoring_v2 import HostMonitoringV2PluginFactory
from wrapper.plugins.timing import ConnectTimePluginFactory
from wrapper.presets import POOL_ARGUMENTS, PRESETS, TABLE
from wrapper.profiles import ConfigurationProfile, DriverConfigurationProfiles, apply, check, chosen_plugins, provider_of
from wrapper.settings import REGISTRY, merge, split

ROOT = Path(__file__).parents[2]
SPEC = json.loads((ROOT / "tests" / "spec" / "presets.json").read_text())
OUR_CODES = {
    "efm2": "host_monitoring_v2",
    "failover": "failover_v2",
    "initial": "initial_connection",
    "tracker": "aurora_connection_tracker",
    "rws": "read_write_splitting",
    "staleDns": "stale_dns",
}
profiles = DriverConfigurationProfiles


@pytest.fixture(autouse=True)
def no_profiles_left() -> Iterator[None]:
    yield
    profiles.clear_profiles()


class Outer(Plugin):
    pass


class OuterFactory:
    weight = 0

    @staticmethod
    def get_instance(plugin_service: Any, props: Mapping[str, Any]) -> Plugin:
        return Outer()


class FollowerFactory:
    @staticmethod
    def get_instance(plugin_service: Any, props: Mapping[str, Any]) -> Plugin:
        return Plugin()


# -- what wins ---------------------------------------------------------------------------------------------------------------------


def test_what_is_given_wins_over_the_profile_and_the_profile_over_the_default() -> None:
    profile = ConfigurationProfile("p", parameters={"connect_timeout": 7, "failure_detection_count": 9})
    settings, rest = split(apply(profile, {"connect_timeout": "2", "host": "a"}), lambda name: name == "host")
    assert (settings["connect_timeout"], settings["failure_detection_count"]) == (2, 9)
    assert settings["failure_detection_interval_ms"] == REGISTRY["failure_detection_interval_ms"].default
    assert rest == {"host": "a"}


@pytest.mark.parametrize(
    ("of_the_profile", "given"),
    [
        ("connect_timeout", "connection_timeout"),
        ("connection_timeout", "connect_timeout"),
        ("monitoring-connect_timeout", "monitoring_connection_timeout"),
        ("database", "dbname"),
        ("dbname", "database"),
        ("monitoring-user", "monitoring_username"),
    ],
)
def test_no_spelling_of_a_given_parameter_lets_the_profiles_through(of_the_profile: str, given: str) -> None:
    applied = apply(ConfigurationProfile("p", parameters={of_the_profile: "profile"}), {given: "given"})
    assert list(applied.values()) == ["given"]


def test_a_parameter_of_a_monitor_is_another_than_the_connections() -> None:
    profile = ConfigurationProfile("p", parameters={"monitoring-connect_timeout": 1, "frt-connect_timeout": 2})
    assert apply(profile, {"connect_timeout": 3}) == {**profile.parameters, "connect_timeout": 3}


def test_dialects_of_a_profile_are_parameters_of_the_connection() -> None:
    profile = ConfigurationProfile("p", database_dialect="aurora-pg", driver_dialect="psycopg")
    assert apply(profile, {}) == {"wrapper_dialect": "aurora-pg", "wrapper_driver_dialect": "psycopg"}
    assert apply(profile, {"wrapper_dialect": "pg"})["wrapper_dialect"] == "pg"


def test_plugins_given_win_over_the_profiles_which_win_over_the_default() -> None:
    profile = ConfigurationProfile("p", plugins=(OuterFactory, "dev"))
    assert chosen_plugins("connect_time", profile, "default") == "connect_time"
    assert chosen_plugins("", profile, "default") == ""
    assert chosen_plugins(None, profile, "default") == (OuterFactory, "dev")
    assert chosen_plugins(None, ConfigurationProfile("p", plugins=()), "default") == ()
    assert chosen_plugins(None, ConfigurationProfile("p"), "default") == "default"
    assert chosen_plugins(None, None, "default") == "default"


# -- the value -------------------------------------------------------------------------------------------------------------------


def test_a_profile_is_a_value() -> None:
    given = {"connect_timeout": 1}
    profile = ConfigurationProfile("p", plugins=[" dev ", "connect_time"], parameters=given)
    given["connect_timeout"] = 2
    assert profile.parameters["connect_timeout"] == 1
    with pytest.raises(TypeError):
        profile.parameters["connect_timeout"] = 3  # type: ignore[index]
    assert profile == ConfigurationProfile("p", plugins="dev, connect_time", parameters={"connect_timeout": 1})
    assert hash(profile) == hash(ConfigurationProfile("p", plugins="dev,connect_time"))
    assert ConfigurationProfile("p", plugins="").plugins == ()


def test_what_a_profile_shows_holds_no_secret() -> None:
    assert "s3cret" not in repr(ConfigurationProfile("p", parameters={"password": "s3cret"}))


def test_deriving_adds_replaces_and_takes_out_parameters() -> None:
    base = ConfigurationProfile("base", ("dev",), {"connect_timeout": 1, "failover_mode": "strict_writer", "dbname": "a"})
    derived = base.derive(
        "derived", plugins=None, parameters={"connection_timeout": 2, "failover_mode": None, "monitor_mode": "off", "database": "b"}
    )
    assert derived.name == "derived"
    assert derived.plugins is None
    assert derived.parameters == {"connect_timeout": 2, "monitor_mode": "off", "database": "b"}
    assert base.parameters["connect_timeout"] == 1
    assert base.derive("same") == ConfigurationProfile("same", base.plugins, merge(base.parameters))


# -- the profiles of the process -------------------------------------------------------------------------------------------------


def test_profiles_are_stored_found_and_removed() -> None:
    profiles.add_or_replace_profile("mine", [FailoverV2PluginFactory, OuterFactory])
    assert profiles.contains_profile("mine")
    assert profiles.get_plugin_factories("mine") == [FailoverV2PluginFactory, OuterFactory]
    profiles.add_or_replace_profile("mine", ConfigurationProfile("other", plugins=("host_monitoring_v2", "connect_time")))
    assert profiles.get_profile("mine").name == "mine"
    assert profiles.get_plugin_factories("mine") == [HostMonitoringV2PluginFactory, ConnectTimePluginFactory]
    profiles.add_or_replace_profile("mine", ConfigurationProfile("mine"))
    assert profiles.get_plugin_factories("mine") is None
    profiles.remove_profile("mine")
    assert not profiles.contains_profile("mine")
    profiles.add_or_replace_profile("mine", [])
    profiles.clear_profiles()
    assert not profiles.contains_profile("mine")
    assert profiles.contains_profile("A0")


def test_a_profile_comes_before_a_preset_and_presets_stay() -> None:
    profiles.add_or_replace_profile("C0", ["dev"])
    assert profiles.get_profile("C0").plugins == ("dev",)
    profiles.remove_profile("C0")
    assert profiles.get_profile("C0") is PRESETS["C0"]
    with pytest.raises(AwsWrapperError, match="preset C0 cannot be removed"):
        profiles.remove_profile("C0")


@pytest.mark.parametrize("use", [profiles.get_profile, profiles.remove_profile, profiles.get_plugin_factories])
def test_an_unknown_profile_is_named_with_its_neighbours(use: Any) -> None:
    profiles.add_or_replace_profile("reports", [])
    with pytest.raises(AwsWrapperError, match=r"'report'.*did you mean reports\?.*known: reports, A0"):
        use("report")
    with pytest.raises(AwsWrapperError, match=r"'zzz': there is no such profile; known"):
        use("zzz")


@pytest.mark.parametrize("name", ["", " ", None])
def test_a_profile_needs_a_name(name: Any) -> None:
    with pytest.raises(AwsWrapperError, match="cannot be called"):
        profiles.add_or_replace_profile(name, [])


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"parameters": {"failover_mode": "strict_writr"}}, "failover_mode='strict_writr'.*strict_writer"),
        ({"parameters": {"connect_timeout": "soon"}}, "connect_timeout='soon'.*a number"),
        ({"parameters": {"monitoring-connect_timeout": "soon"}}, "connect_timeout='soon'.*a number"),
        ({"parameters": {"failover_timout_sec": 3}}, "did you mean failover_timeout_sec"),
        ({"parameters": {"monitoring-failure_detection_cuont": 3}}, "did you mean failure_detection_count"),
        ({"parameters": {"connect_timeout": 3, "connection_timeout": 3}}, "given twice.*another name"),
        ({"parameters": {"dbname": "a", "database": "a"}}, "given twice.*another name"),
        ({"parameters": {"plugins": "dev"}}, "the profile's plugins"),
        ({"parameters": {"wrapper_plugins": "dev"}}, "the profile's plugins"),
        ({"parameters": {"wrapper_dialect": "pg"}}, "the profile's database_dialect"),
        ({"parameters": {"profile_name": "A0"}}, "the profile's name"),
        ({"database_dialect": "aurora_pg"}, "database_dialect='aurora_pg'.*aurora-pg"),
        ({"plugins": ("failver_v2",)}, "did you mean 'failover_v2'"),
        ({"plugins": ("failover_v2", FailoverV2PluginFactory)}, "failover_v2 given more than once"),
        ({"plugins": (OuterFactory, OuterFactory)}, "OuterFactory given more than once"),
        ({"plugins": "failover_v2,failover"}, "failover_v2 and failover do the same work: give one of them"),
        ({"plugins": (FailoverV2PluginFactory, "failover")}, "failover_v2 and failover do the same work"),
        ({"plugins": (Outer,)}, "neither a plugin code nor a factory"),
    ],
)
def test_a_profile_that_could_not_work_is_refused_when_it_is_stored(profile: dict[str, Any], expected: str) -> None:
    with pytest.raises(AwsWrapperError, match=expected) as caught:
        profiles.add_or_replace_profile("mine", ConfigurationProfile("mine", **profile))
    assert str(caught.value).startswith("profile 'mine': ")
    assert not profiles.contains_profile("mine")


def test_no_parameter_of_a_driver_is_taken_for_a_misspelt_one_of_ours() -> None:
    names = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} | set(inspect.signature(psycopg.connect).parameters)
    # mysql-connector's that come closest to ours.
    names |= {
        "connection_timeout",
        "read_timeout",
        "write_timeout",
        "use_pure",
        "autocommit",
        "conn_attrs",
        "pool_size",
        "database",
    }
    # Not an option of a connection that a profile could hold.
    names -= {"conninfo", "kwargs"}
    for name in names:
        if name not in REGISTRY:
            check(ConfigurationProfile("p", parameters={name: "1"}))


# -- providers -------------------------------------------------------------------------------------------------------------------


class Provider:
    def connect(self) -> None:
        """What makes it a provider."""


def test_a_provider_that_is_an_object_is_used_as_it_is() -> None:
    provider = Provider()
    assert provider_of(ConfigurationProfile("p", connection_provider=provider)) is provider
    assert provider_of(ConfigurationProfile("p")) is None


@pytest.mark.parametrize("make", [Provider, lambda: Provider()], ids=["class", "function"])
def test_a_provider_that_is_made_is_made_once_per_profile(make: Any) -> None:
    profile = ConfigurationProfile("p", connection_provider=make)
    provider = provider_of(profile)
    assert isinstance(provider, Provider)
    assert provider_of(profile) is provider
    assert provider_of(profile.derive("other")) is not provider


def test_threads_make_one_provider() -> None:
    made: list[Provider] = []
    ready = threading.Barrier(8)

    def make() -> Provider:
        made.append(Provider())
        return made[-1]

    def use() -> None:
        ready.wait(10)
        provider_of(profile)

    profile = ConfigurationProfile("threads", connection_provider=make)
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1


def test_a_forked_child_makes_its_own_provider() -> None:
    script = """
import os
from wrapper.profiles import ConfigurationProfile, provider_of

class Provider:
    def connect(self): ...

profile = ConfigurationProfile("p", connection_provider=Provider)
inherited = provider_of(profile)
child = os.fork()
if child == 0:
    own = provider_of(profile)
    os._exit(0 if own is not inherited and own is provider_of(profile) else 1)
_, status = os.waitpid(child, 0)
assert provider_of(profile) is inherited
raise SystemExit(os.waitstatus_to_exitcode(status))
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# -- presets ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SPEC["cases"], ids=lambda case: case["code"])
def test_preset(case: dict[str, Any]) -> None:
    preset = next(preset for preset in TABLE if preset.code == case["code"])
    assert (preset.pool, preset.sensitivity) == (case["pool"], case["sensitivity"])
    assert preset.plugins == tuple(OUR_CODES[code] for code in SPEC["plugins"][case["code"][0]])
    expected = {"connect_timeout": case["connect"] / 1000}
    if case["socket"]:
        expected["socket_timeout"] = case["socket"] / 1000
    # Off in JDBC leaves the wrapper's keepalive as it is.
    if case["keepalive"]:
        expected["tcp_keepalive"] = True
    if "detection" in case:
        names = ("failure_detection_time_ms", "failure_detection_count", "failure_detection_interval_ms")
        expected.update(zip(names, case["detection"], strict=True))
        limits = [limit / 1000 for limit in case["monitor"]]
        expected.update(zip(("monitoring-connect_timeout", "monitoring-socket_timeout"), limits, strict=True))
    assert preset.parameters == expected
    profile = profiles.get_profile(case["code"])
    assert (profile.name, profile.plugins, profile.parameters) == (preset.code, preset.plugins, preset.parameters)
    assert (profile.connection_provider is not None) == (case["pool"] == "internal")


def test_there_are_no_other_presets() -> None:
    assert [preset.code for preset in TABLE] == [case["code"] for case in SPEC["cases"]] == list(PRESETS)


@pytest.mark.parametrize("code", PRESETS)
def test_a_preset_works_unless_a_plugin_of_it_does_not_exist_yet(code: str) -> None:
    profile = PRESETS[code]
    assert profile.plugins is not None
    missing = [plugin for plugin in profile.plugins if plugin not in pipeline._REGISTRY]
    assert pipeline.PLANNED.issuperset(map(str, missing))
    if missing:
        with pytest.raises(AwsWrapperError, match=f"{missing[0]!r}.*does not exist here yet"):
            check(profile)
        with pytest.raises(AwsWrapperError, match=f"{missing[0]!r}.*does not exist here yet"):
            profiles.get_plugin_factories(code)
    else:
        check(profile)
        assert profiles.get_plugin_factories(code) is not None


def test_values_of_presets_are_what_the_parameters_allow() -> None:
    for profile in PRESETS.values():
        check(profile.derive("checked", plugins=()))


def test_asking_for_a_preset_loads_neither_sqlalchemy_nor_a_driver() -> None:
    script = (
        "import sys; from wrapper.profiles import DriverConfigurationProfiles as profiles; profiles.get_profile('D0'); "
        "print(*{'sqlalchemy', 'psycopg', 'zmq'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout == "\n"


def test_the_pool_of_a_preset() -> None:
    pytest.importorskip("wrapper.providers.sqlalchemy_pool")
    pool = pytest.importorskip("sqlalchemy.pool")
    assert pool.QueuePool(lambda: None, **POOL_ARGUMENTS).size() == POOL_ARGUMENTS["pool_size"]
    provider = provider_of(PRESETS["D0"])
    assert type(provider).__name__ == "SqlAlchemyPooledConnectionProvider"
    assert provider is provider_of(PRESETS["D0"])
    assert provider is not provider_of(PRESETS["D1"])


def test_the_tables_of_the_page_are_the_presets() -> None:
    page = (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8")
    render = runpy.run_path(str(ROOT / "docs" / "profiles.py"))["render"]
    assert page == render(page), "run: python docs/profiles.py"
    for code in PRESETS:
        assert f"\n| `{code}` |" in page


def test_the_examples_of_the_page_work() -> None:
    page = (ROOT / "docs" / "profiles.md").read_text(encoding="utf-8").partition("## Your own")[2]
    names: dict[str, Any] = {}
    for block in page.split("```python\n")[1:]:
        exec(block.partition("```")[0], names)
    assert profiles.get_profile("reports").parameters["connect_timeout"] == 3
    patient = profiles.get_profile("patient")
    assert patient.parameters["failure_detection_count"] == 10
    assert "connect_timeout" not in patient.parameters


# -- chains of factories -----------------------------------------------------------------------------------------------------------


def test_a_chain_may_be_made_of_codes_and_factories() -> None:
    assert parse_plugins((FailoverV2PluginFactory, " dev, connect_time", OuterFactory)) == [
        "failover_v2",
        "dev",
        "connect_time",
        OuterFactory,
    ]
    assert parse_plugins(()) == parse_plugins("") == []


def test_factories_are_sorted_by_their_own_weight_or_that_of_their_code() -> None:
    chain = parse_plugins((HostMonitoringV2PluginFactory, FollowerFactory, "failover_v2", OuterFactory))
    assert sort_codes(chain) == [OuterFactory, "failover_v2", "host_monitoring_v2", FollowerFactory]


@pytest.mark.parametrize("sort", [True, False])
def test_a_connections_plugins_come_from_the_factories(sort: bool) -> None:
    profiles.add_or_replace_profile("mine", [FollowerFactory, OuterFactory])
    given = {"profile_name": "mine", "auto_sort_wrapper_plugin_order": sort}
    configuration = configuration_of(psycopg.Connection.connect, "", given)
    assert configuration.plugins == ((OuterFactory, FollowerFactory) if sort else (FollowerFactory, OuterFactory))
    service: Any = object()
    manager = PluginManager(service, configuration.settings, configuration.plugins)
    assert [type(plugin) for plugin in manager.plugins] == ([Outer, Plugin] if sort else [Plugin, Outer])


def test_a_configuration_is_remembered_until_something_changes() -> None:
    target = psycopg.Connection.connect

    def remembered(*, profile_name: str = "mine", **given: Any) -> Configuration:
        return configuration_of(target, "host=a", {"profile_name": profile_name, **given})

    profiles.add_or_replace_profile("mine", ConfigurationProfile("mine", parameters={"connect_timeout": 3}))
    first = remembered()
    assert remembered() is first
    # Equal to Python, another thing to the driver.
    assert remembered(autocommit=True).parameters["autocommit"] is True
    assert remembered(autocommit=1).parameters["autocommit"] == 1
    assert remembered(autocommit=1).parameters["autocommit"] is not True
    profiles.add_or_replace_profile("mine", ConfigurationProfile("mine", parameters={"connect_timeout": 4}))
    assert remembered().settings["connect_timeout"] == 4
    # What cannot be remembered works all the same.
    assert configuration_of(target, "", {"context": [1], "host": "a"}).parameters["context"] == [1]
