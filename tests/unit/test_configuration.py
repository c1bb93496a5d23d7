"""Parameters, host names, plugin lists: what is accepted, and what bad input gets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

import wrapper
from wrapper.dialects.base import InstanceTemplate
from wrapper.drivers import driver_dialect_for
from wrapper.drivers.psycopg_errors import classify
from wrapper.errors import AwsWrapperError, FailoverSuccessError, for_driver
from wrapper.hosts import HostInfo, host_key, split_host_key
from wrapper.pipeline import parse_codes, sort_codes
from wrapper.resolver import parse_hosts
from wrapper.settings import HIDDEN, MONITORING_PREFIXES, REGISTRY, SETTINGS, Settings, canonical, mask, merge, split
from wrapper.urls import EndpointKind, other_endpoint, parse_endpoint

SPEC = Path(__file__).parents[1] / "spec"


def driver_knows(name: str) -> bool:
    return name in ("host", "port", "user", "password", "dbname", "sslmode", "sslpassword", "sslkey", "prepare_threshold")


@pytest.mark.parametrize("case", json.loads((SPEC / "parameters.json").read_text())["cases"], ids=lambda case: case["name"])
def test_every_parameter_of_the_reference_is_known_with_its_default_or_a_reason(case: dict[str, Any]) -> None:
    name = canonical(case["name"])
    assert name is not None
    setting = REGISTRY[name]
    default = ",".join(setting.default) or None if setting.type is tuple else setting.default
    assert default == case["default"] or setting.differs
    assert setting.unit == case["unit"]


def test_no_name_is_declared_twice() -> None:
    names = [name for setting in SETTINGS for name in (setting.name, *setting.aliases)]
    assert sorted(names) == sorted(set(names))
    assert {canonical(name) for name in names} == set(REGISTRY)


@pytest.mark.parametrize("value", ["false", "FALSE", "0", "off", "no", False])
def test_text_is_as_good_as_a_boolean(value: object) -> None:
    assert Settings({"enable_connect_failover": value})["enable_connect_failover"] is False


@pytest.mark.parametrize("value", ["1500", 1500, 1500.0])
def test_text_is_as_good_as_a_number(value: object) -> None:
    settings = Settings({"failure_detection_interval_ms": value})
    assert settings["failure_detection_interval_ms"] == 1500
    assert settings.seconds("failure_detection_interval_ms") == 1.5


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("failover_mode", "strict_writr", "strict_writer"),
        ("failure_detection_count", "0", "at least 1"),
        ("failure_detection_count", "2.5", "whole number"),
        ("failure_detection_interval_ms", True, "whole number"),
        ("failover_timeout_sec", "soon", "a number"),
        ("failover_timeout_sec", float("nan"), "a number"),
        ("failover_timeout_sec", "inf", "a number"),
        ("failure_detection_count", "1e999", "whole number"),
        ("enable_connect_failover", "maybe", "true or false"),
        ("enable_connect_failover", "", "true or false"),
        ("monitor_mode", "perhaps", "attach"),
        ("iam_default_port", 70000, "at least 1 and at most 65535"),
        ("iam_region", "Frankfurt", "such as eu-central-1"),
        ("srw_read_endpoint", "https://a:5432", "host or host:port"),
        ("round_robin_host_weight_pairs", "a:0", "host:weight"),
        ("monitoring_connection_priority", "strict-writer,strictreader", "strict-reader"),
        ("gdb_accessible_regions", [1], "comma-separated list"),
        ("plugins", ["failover_v2"], "text"),
        ("connection_provider", "pool", "keyword argument"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(AwsWrapperError, match=name) as caught:
        Settings({name: value})
    assert allowed in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("failover_mode", "strict_reader", "strict_reader"),
        ("failover_mode", "strict-reader", "strict_reader"),
        ("failover_mode", " STRICT-READER ", "strict_reader"),
        ("telemetry_traces_backend", "otlp", "OTLP"),
        ("monitoring_connection_priority", "strict_reader, writer-or-reader,strict-reader", ("strict-reader", "writer-or-reader")),
        ("monitoring_connection_priority", ["strict-reader"], ("strict-reader",)),
        ("monitoring_connection_priority", " , ", ("strict-writer",)),
        ("gdb_accessible_regions", "EU-Central-1,us-gov-west-1", ("eu-central-1", "us-gov-west-1")),
        ("gdb_monitoring_connection_priority", "strict-reader-eu-west-1,us-east-1", ("strict-reader-eu-west-1", "us-east-1")),
        ("global_cluster_instance_host_patterns", "eu-west-1:?.x.com:5433", ("eu-west-1:?.x.com:5433",)),
        ("srw_read_endpoint", "[::1]:5432", "[::1]:5432"),
        ("round_robin_host_weight_pairs", "a.b:2, c:1,", "a.b:2, c:1,"),
        ("default_host_availability_strategy", "", ""),
        ("host_availability_strategy_initial_backoff_time", "0.01", 0.01),
        ("secrets_manager_expiration", -1, -1),
        ("plugins", "", ""),
    ],
)
def test_what_a_value_means(name: str, value: object, expected: object) -> None:
    assert Settings({name: value})[name] == expected


def test_none_means_not_given() -> None:
    settings = Settings({"cluster_id": None, "socket_timeout": None, "tcp_keepalive": None, "wait_for_initial_topology_ms": None})
    assert not any(settings.is_given(name) for name in settings)
    assert settings["cluster_id"] == "1"
    assert settings["socket_timeout"] is None
    assert settings["tcp_keepalive"] is None
    assert settings["wait_for_initial_topology_ms"] == 0


def test_an_object_is_handed_through() -> None:
    provider = object()
    assert Settings({"connection_provider": provider})["connection_provider"] is provider


def test_every_default_passes_its_own_check() -> None:
    for setting in SETTINGS:
        if setting.default is not None:
            assert setting.parse(setting.default) == setting.default
        assert setting.help.endswith(".")
    assert len(REGISTRY) == len(SETTINGS)


@pytest.mark.parametrize("name", ["failover_timout_sec", "failoverTimeoutSec", "monitoring-failover_timout_sec"])
def test_an_unknown_parameter_is_named_with_its_neighbours_and_without_its_value(name: str) -> None:
    with pytest.raises(AwsWrapperError, match=rf"{name}.*did you mean failover_timeout_sec") as caught:
        split({name: "s3cret"}, driver_knows)
    assert "s3cret" not in str(caught.value)


def test_nothing_of_ours_reaches_the_driver() -> None:
    ours = {name: setting.default for name, setting in REGISTRY.items() if not setting.keyword}
    prefixed = {f"{prefix}connect_timeout": 1 for prefix in MONITORING_PREFIXES}
    settings, rest = split({"host": "a", "sslmode": "disable", **ours, **prefixed}, driver_knows)
    assert rest == {"host": "a", "sslmode": "disable"}
    assert settings.monitoring == {prefix: {"connect_timeout": 1.0} for prefix in MONITORING_PREFIXES}


@pytest.mark.parametrize("prefix", MONITORING_PREFIXES)
def test_a_prefix_may_be_written_with_underscores(prefix: str) -> None:
    given = {f"{prefix}user": "m", f"{prefix.replace('-', '_')}passwd": "p", f"{prefix}sslmode": "require"}
    settings, rest = split(given, driver_knows)
    assert settings.monitoring == {prefix: {"user": "m", "password": "p", "sslmode": "require"}}
    assert rest == {}


def test_a_value_behind_a_prefix_is_checked() -> None:
    with pytest.raises(AwsWrapperError, match=r"monitoring-connect_timeout='soon' is not valid: expected a number"):
        split({"monitoring_connect_timeout": "soon"}, driver_knows)


def test_no_parameter_is_taken_for_a_prefixed_one() -> None:
    settings, _ = split({"monitoring_connection_priority": "strict-reader"}, driver_knows)
    assert settings["monitoring_connection_priority"] == ("strict-reader",)
    assert settings.monitoring == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("plugins", "wrapper_plugins"),
        ("user", "username"),
        ("dbname", "database"),
        ("monitoring-user", "monitoring_username"),
    ],
)
def test_a_parameter_given_under_two_names_is_refused_but_may_be_overridden(first: str, second: str) -> None:
    with pytest.raises(AwsWrapperError, match=f"{second} is given twice.*{first}"):
        split({first: "", second: ""}, driver_knows)
    assert [*merge({first: "text"}, {second: "keyword"}).values()] == ["keyword"]
    assert [*merge({first: "text"}, {second: None}).values()] == ["text"]


def test_what_the_driver_takes_keeps_its_type() -> None:
    given = {"username": "u", "passwd": "p", "db": "d", "port": 5432, "prepare_threshold": None}
    _, rest = split(given, driver_knows)
    assert rest == {"user": "u", "password": "p", "database": "d", "port": 5432, "prepare_threshold": None}
    with pytest.raises(AwsWrapperError, match="port='x' is not valid: expected a port number"):
        split({"port": "x"}, driver_knows)


_SECRETS = {
    "password": "s3cret",
    "idp_password": "s3cret",
    "monitoring-password": "s3cret",
    "frt_passwd": "s3cret",
    "topology_monitoring_sslpassword": "s3cret",
    "sslpassword": "s3cret",
}
_OPEN = {"user": "u", "sslkey": "/a/b", "secrets_manager_secret_password_key": "k", "plugins": "", "monitoring-user": "m"}


def test_secrets_are_masked() -> None:
    assert mask({**_SECRETS, **_OPEN}) == {**dict.fromkeys(_SECRETS, HIDDEN), **_OPEN}
    drivers = {"oauth_client_secret": 1, "scram_client_key": 1, "PASSWORD1": 1, "sslkey": 1, "ssl_key": 1, "keepalives": 1}
    assert [name for name, value in mask(drivers).items() if value == HIDDEN] == [
        "oauth_client_secret",
        "scram_client_key",
        "PASSWORD1",
    ]
    assert mask({"password": None}) == {"password": None}


def test_secrets_are_in_no_repr_and_no_error() -> None:
    settings, _ = split({**_SECRETS, **_OPEN}, driver_knows)
    assert "s3cret" not in repr(settings)
    assert HIDDEN in repr(settings)
    for name in _SECRETS:
        if "ssl" not in name:  # the driver's own, which is the driver's to check
            with pytest.raises(AwsWrapperError, match="password=\\(hidden\\) is not valid: expected text"):
                split({name: [b"s3cret"]}, driver_knows)


@pytest.mark.parametrize("case", json.loads((SPEC / "endpoints.json").read_text())["cases"], ids=lambda case: case["host"])
def test_endpoint(case: dict[str, Any]) -> None:
    found = parse_endpoint(case["host"])
    assert (found.kind.value, found.region, found.template) == (case["kind"], case["region"], case["template"])
    other = other_endpoint(case["host"])
    assert (other is not None) is (case["kind"] in ("writer cluster", "reader cluster"))
    if other is not None:
        there = parse_endpoint(other)
        assert {found.kind, there.kind} == {EndpointKind.WRITER_CLUSTER, EndpointKind.READER_CLUSTER}
        assert (there.name, there.region, there.template) == (found.name, found.region, found.template)
        assert other_endpoint(other) == found.host


@pytest.mark.parametrize("case", json.loads((SPEC / "endpoints.json").read_text())["patterns"], ids=lambda case: case["pattern"])
def test_instance_host_pattern(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(AwsWrapperError, match=re.escape(case["error"])) as caught:
            InstanceTemplate.parse(case["pattern"])
        assert f"cluster_instance_host_pattern={case['pattern']!r}" in str(caught.value)
    else:
        template = InstanceTemplate.parse(case["pattern"])
        assert (template.endpoint(case["name"]), template.port) == (case["endpoint"], case["port"])
        assert InstanceTemplate.parse(str(template)) == template


@pytest.mark.parametrize(
    "case",
    json.loads((SPEC / "psycopg_errors.json").read_text())["cases"],
    ids=lambda case: case.get("sqlstate") or case["text"][:40],
)
def test_error_kind(case: dict[str, Any]) -> None:
    error_class = getattr(psycopg.errors, case["class"], None) or getattr(psycopg, case["class"])
    error = error_class(case.get("text", "text"))
    error.sqlstate = case.get("sqlstate")
    assert classify(error).value == case["kind"]
    outer = RuntimeError("outer")
    outer.__cause__ = error
    assert classify(outer).value == case["kind"]


def test_host_keys() -> None:
    for host, port in (("A.example.", 1), ("2001:DB8::1", 2), ("[::1]", 3)):
        key = host_key(host, port)
        assert host_key(*split_host_key(key)) == key
    assert HostInfo("a", 1) == HostInfo("a", 1, weight=3)
    assert len({HostInfo("a", 1), HostInfo("a", 1, host_id="x")}) == 1


def test_a_hosts_file_is_read_as_etc_hosts_is() -> None:
    assert parse_hosts("127.0.0.1 a B # c\n\n# d\n::1 a e\n") == {"a": "127.0.0.1", "b": "127.0.0.1", "e": "::1"}


def test_plugin_codes() -> None:
    assert sort_codes(parse_codes(" host_monitoring_v2 , failover_v2 ")) == ["failover_v2", "host_monitoring_v2"]
    assert parse_codes("") == []
    for text, expected in (
        ("iam", "'iam'.*does not exist here yet"),
        ("failver_v2", "did you mean 'failover_v2'"),
        ("failover_v2,failover_v2", "more than once"),
    ):
        with pytest.raises(AwsWrapperError, match=expected):
            parse_codes(text)


def test_the_first_argument_must_be_a_supported_connect_function() -> None:
    assert driver_dialect_for(psycopg.connect).code == "psycopg"
    for target, expected in (
        (None, "missing"),
        ("psycopg", "not str"),
        (print, "no driver"),
        (psycopg.AsyncConnection.connect, "asynchronous"),
    ):
        with pytest.raises(AwsWrapperError, match=expected):
            driver_dialect_for(target)  # type: ignore[arg-type]


def test_failover_errors_are_ours_and_the_drivers() -> None:
    joint = for_driver(FailoverSuccessError, psycopg.OperationalError)
    error = joint("text", outcome="not_sent")
    assert isinstance(error, FailoverSuccessError)
    assert isinstance(error, wrapper.OperationalError)
    assert isinstance(error, psycopg.OperationalError)
    assert error.outcome == "not_sent"
    assert joint is for_driver(FailoverSuccessError, psycopg.OperationalError)
