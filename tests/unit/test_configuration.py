"""Parameters, connection text, host names, plugin lists: what is accepted, and what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import wrapper
from wrapper.conninfo import extract
from wrapper.drivers import driver_dialect_for
from wrapper.drivers.psycopg_errors import classify
from wrapper.errors import AwsWrapperError, FailoverSuccessError, for_driver
from wrapper.hosts import HostInfo, host_key, split_host_key
from wrapper.pipeline import parse_codes, sort_codes
from wrapper.resolver import parse_hosts
from wrapper.settings import REGISTRY, SETTINGS, Settings, canonical, split
from wrapper.urls import parse_endpoint

SPEC = Path(__file__).parents[1] / "spec"


def driver_knows(name: str) -> bool:
    return name in ("host", "port", "user", "password", "dbname", "sslmode")


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
        ("enable_connect_failover", "maybe", "true or false"),
        ("monitor_mode", "perhaps", "attach"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(name: str, value: object, allowed: str) -> None:
    with pytest.raises(AwsWrapperError, match=name) as caught:
        Settings({name: value})
    assert allowed in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("spelling", ["strict_reader", "strict-reader", "STRICT-READER"])
def test_both_spellings_of_a_mode_mean_it(spelling: str) -> None:
    assert Settings({"failover_mode": spelling})["failover_mode"] == "strict_reader"


def test_every_default_passes_its_own_check() -> None:
    for setting in SETTINGS:
        if setting.default is not None:
            assert setting.parse(setting.default) == setting.default
        assert setting.help.endswith(".")
    assert len(REGISTRY) == len(SETTINGS)


def test_an_unknown_parameter_is_named_with_its_neighbours_and_without_its_value() -> None:
    with pytest.raises(AwsWrapperError, match=r"failover_timout_sec.*did you mean failover_timeout_sec") as caught:
        split({"failover_timout_sec": "s3cret"}, driver_knows)
    assert "s3cret" not in str(caught.value)


def test_nothing_of_ours_reaches_the_driver() -> None:
    settings, rest = split(
        {
            "host": "a",
            "plugins": "",
            "monitoring-user": "m",
            "monitoring_password": "p",
            "blue-green-monitoring-connect_timeout": 1,
            "frt-connect_timeout": 1,
            "limitless-router-monitor-connect_timeout": 1,
            "topology-monitoring-connect_timeout": 1,
        },
        driver_knows,
    )
    assert rest == {"host": "a"}
    assert settings.monitoring["monitoring-"] == {"user": "m", "password": "p"}


def test_a_parameter_given_under_two_names_is_refused() -> None:
    with pytest.raises(AwsWrapperError, match="given twice"):
        split({"plugins": "", "wrapper_plugins": ""}, driver_knows)


@pytest.mark.parametrize(
    ("text", "ours", "rest"),
    [
        ("host=a plugins=failover_v2 dbname=d", {"plugins": "failover_v2"}, {"host": "a", "dbname": "d"}),
        (r"password='a b\'c' plugins='' host=a", {"plugins": ""}, {"host": "a", "password": "a b'c"}),
        ("plugins = 'failover_v2, host_monitoring_v2' host = a", {"plugins": "failover_v2, host_monitoring_v2"}, {"host": "a"}),
        (
            "postgresql://u:p%40ss@[2001:db8::1]:5433/d?plugins=failover_v2&sslmode=disable",
            {"plugins": "failover_v2"},
            {"user": "u", "password": "p@ss", "host": "2001:db8::1", "port": "5433", "dbname": "d", "sslmode": "disable"},
        ),
        ("postgres://a/d?failover_mode=strict-writer", {"failover_mode": "strict-writer"}, {"host": "a", "dbname": "d"}),
        ("", {}, {}),
    ],
)
def test_connection_text(text: str, ours: dict[str, str], rest: dict[str, str]) -> None:
    found, left = extract(text, lambda name: canonical(name) is not None)
    assert found == ours
    assert conninfo_to_dict(left) == rest


@pytest.mark.parametrize("text", ["host=a password", "password='s3cret", "s3cret"])
def test_unreadable_text_is_not_repeated(text: str) -> None:
    with pytest.raises(AwsWrapperError) as caught:
        extract(text, lambda name: False)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("case", json.loads((SPEC / "endpoints.json").read_text())["cases"], ids=lambda case: case["host"])
def test_endpoint(case: dict[str, Any]) -> None:
    found = parse_endpoint(case["host"])
    assert (found.kind.value, found.region, found.template) == (case["kind"], case["region"], case["template"])


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
