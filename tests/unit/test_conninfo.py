"""Connection text: ours is taken out, the driver's own parser gets the rest. libpq itself is the judge of what a text means."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from wrapper.configuration import configuration_of
from wrapper.conninfo import extract
from wrapper.drivers import psycopg_service
from wrapper.errors import AwsWrapperError
from wrapper.settings import is_foreign_to_driver


@pytest.mark.parametrize(
    ("text", "ours", "rest"),
    [
        ("host=a plugins=failover_v2 dbname=d", {"plugins": "failover_v2"}, {"host": "a", "dbname": "d"}),
        (r"password='a b\'c' plugins='' host=a", {"plugins": ""}, {"host": "a", "password": "a b'c"}),
        ("plugins = 'failover_v2, host_monitoring_v2' host = a", {"plugins": "failover_v2, host_monitoring_v2"}, {"host": "a"}),
        ("password=it's plugins=x", {"plugins": "x"}, {"password": "it's"}),
        ("plugins='x'host='a'", {"plugins": "x"}, {"host": "a"}),
        ("plugins=x password=a\\ ", {"plugins": "x"}, {"password": "a "}),
        ("password=\u00a0b\u00a0 plugins=x", {"plugins": "x"}, {"password": "\u00a0b\u00a0"}),
        ("host=a,b port=1,2 plugins=", {"plugins": ""}, {"host": "a,b", "port": "1,2"}),
        ("service=s\n\tplugins=x", {"plugins": "x"}, {"service": "s"}),
        ("username=u passwd=p db=d user=v", {"username": "u", "passwd": "p", "db": "d"}, {"user": "v"}),
        ("monitoring-user=m monitoring_connection_priority=x", {"monitoring-user": "m", "monitoring_connection_priority": "x"}, {}),
        (
            "postgresql://u:p%40ss@[2001:db8::1]:5433/d?plugins=failover_v2&sslmode=disable",
            {"plugins": "failover_v2"},
            {"user": "u", "password": "p@ss", "host": "2001:db8::1", "port": "5433", "dbname": "d", "sslmode": "disable"},
        ),
        ("postgres://a/d?failover_mode=strict-writer", {"failover_mode": "strict-writer"}, {"host": "a", "dbname": "d"}),
        ("postgresql://a:1,b:2/?plugins=x", {"plugins": "x"}, {"host": "a,b", "port": "1,2"}),
        ("postgresql:///d?host=/tmp&plugins=a%2Cb", {"plugins": "a,b"}, {"host": "/tmp", "dbname": "d"}),
        ("postgresql://%2Ftmp/d?plug%69ns=+", {"plugins": "+"}, {"host": "/tmp", "dbname": "d"}),
        ("postgresql://u:p?plugins=x@a?service=s", {}, {"user": "u", "password": "p?plugins=x", "host": "a", "service": "s"}),
        ("", {}, {}),
        (" \n", {}, {}),
    ],
)
def test_connection_text(text: str, ours: dict[str, str], rest: dict[str, str]) -> None:
    found, left = extract(text, is_foreign_to_driver)
    assert found == ours
    assert conninfo_to_dict(left) == rest


@pytest.mark.parametrize(
    "text",
    [
        "host=a password",
        "password='s3cret",
        "password= 's3cret",
        "s3cret",
        "=s3cret",
        "postgresql://u:s3cret@h/d?plugins",
        "postgresql://u:s3cret@h/d?plugins=s3cret=x",
        "postgresql://u:s3cret@h/d?plugins=%zzs3cret",
        "postgresql://u:s3cret@h/d?plugins=%00",
    ],
)
def test_unreadable_text_is_not_repeated(text: str) -> None:
    with pytest.raises(AwsWrapperError) as caught:
        extract(text, is_foreign_to_driver)
    assert "s3cret" not in str(caught.value)


def everything_about(error: BaseException | None) -> str:
    """What an error says, and what it hangs together with."""
    return "" if error is None else f"{error!r} {error.args} {everything_about(error.__cause__ or error.__context__)}"


@pytest.mark.parametrize(
    ("target", "text", "keywords"),
    [
        (psycopg.connect, "host=a pasword=s3cret", {}),
        (psycopg.connect, "host=a password=s3cret x", {}),
        (psycopg.connect, "postgresql://u:s3cret@[::1/d", {}),
        (psycopg.connect, "postgresql://u:s3cret%zz@h/d", {}),
        (psycopg.connect, "postgresql://h/d?password=s3cret%zz", {}),
        (psycopg.connect, "postgresql://h/d?pasword=s3cret", {}),
        (psycopg.connect, "postgresql://u:p@s3cret@h/d", {}),
        (psycopg.connect, "postgresql://u:p/s3cret@h/d", {}),
        (psycopg.connect, "postgresql://u:s3cret/d", {}),
        (psycopg.connect, "postgresql://u:s3cret", {}),
        (psycopg.connect, "mysql://u:s3cret@h/d", {}),
        (psycopg.connect, "", {"password": ["s3cret"]}),
        (mysql.connector.connect, "host=a password=s3cret", {}),
        (mysql.connector.connect, "mysql://u:s3cret@h/d", {}),
        (mysql.connector.connect, "", {"pasword": "s3cret"}),
        (mysql.connector.connect, "", {"password": b"s3cret"}),
        (mysql.connector.connect, "", {"password": "s3cret", "passwd": "s3cret"}),
    ],
)
def test_a_password_in_what_is_refused_is_in_no_error(target: Any, text: str, keywords: dict[str, Any]) -> None:
    with pytest.raises(AwsWrapperError) as caught:
        configuration_of(target, text, keywords)
    assert "s3cret" not in everything_about(caught.value)


# -- the environment and services --------------------------------------------------------------------------------------------------

SERVICES = """
# a comment
[other]
host=elsewhere
[mine]
host=endpoint.example
 port=5433
user=somebody
dbname=a = b
host=twice
keepalives_idle=7
connect_timeout=9

[ldap]
ldap://directory/
"""


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment that says nothing of databases but where services are."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    (tmp_path / "services").write_text(SERVICES)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def watched(text: str = "", **keywords: Any) -> tuple[str, int] | None:
    watch = configuration_of(psycopg.connect, text, keywords).cluster.watch
    return None if watch is None else (watch.host, watch.port)


def test_the_environment_names_the_endpoint_at_every_connect(environment: pytest.MonkeyPatch) -> None:
    assert watched() is None
    environment.setenv("PGHOST", "first.example")
    assert watched() == ("first.example", 5432)
    environment.setenv("PGHOST", "second.example")
    environment.setenv("PGPORT", "5433")
    assert watched() == ("second.example", 5433)
    assert watched("host=given") == ("given", 5433)
    assert watched(host="given", port=1) == ("given", 1)
    environment.setenv("PGPORT", "nonsense")  # libpq says so
    assert watched() is None


def test_a_service_is_read_as_libpq_reads_it(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PGSERVICE", "mine")
    libpqs = {option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val is not None}
    ours = psycopg_service.expanded({})
    assert ours == {name: libpqs[name] for name in ours}
    assert ours["host"] == "endpoint.example"
    assert ours["dbname"] == "a = b"


def test_a_service_leads_to_an_endpoint_that_is_watched(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("PGHOST", "not.here")
    assert watched("service=mine") == ("endpoint.example", 5433)
    assert watched("service=mine port=1", host="given") == ("given", 1)
    for service in ("nobodys", "ldap"):  # libpq's to find out
        assert watched(service=service) is None
    environment.delenv("PGSERVICEFILE")
    assert watched(service="mine", user="nobody") is None
    os.replace(Path.home() / "services", Path.home() / ".pg_service.conf")
    assert watched(service="mine", user="u") == ("endpoint.example", 5433)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 5), ({"service": "mine"}, "9"), ({"service": "mine", "connect_timeout": 2.5}, 3)],
)
def test_what_a_service_says_comes_before_defaults(
    environment: pytest.MonkeyPatch, given: dict[str, Any], expected: object
) -> None:
    configuration = configuration_of(psycopg.connect, "host=a", given)
    arguments = configuration.driver_dialect.connect_arguments(configuration.parameters, configuration.settings)
    assert arguments["connect_timeout"] == expected
    assert "service" not in arguments
    if given:
        assert (arguments["host"], arguments["user"], arguments["keepalives_idle"]) == ("a", "somebody", "7")
    else:
        environment.setenv("PGCONNECT_TIMEOUT", "20")
        arguments = configuration.driver_dialect.connect_arguments(configuration.parameters, configuration.settings)
        assert arguments["connect_timeout"] == "20"


_KEYWORDS = ("host", "port", "dbname", "user", "password", "application_name", "options", "sslpassword", "service", "passfile")
_VALUES = st.text(st.one_of(st.sampled_from(" '\\\t\n=&?%@/\u00a0\u2003é"), st.characters(codec="utf-8", exclude_characters="\0")))
_BLANKS = st.text(st.sampled_from(" \t\n\r\f\v"), max_size=3)


def _quoted(value: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def _escaped(value: str) -> str:
    # Without quotes every character that means something has to be escaped, and an empty value cannot be written.
    return re.sub(r"([\s'\\])", r"\\\1", value, flags=re.ASCII) or "''"


@given(
    drivers=st.dictionaries(st.sampled_from(_KEYWORDS), _VALUES),
    ours=st.dictionaries(st.sampled_from(("plugins", "failover_mode", "monitoring-user", "username")), _VALUES),
    data=st.data(),
)
def test_ours_among_the_drivers_pairs_is_split_as_libpq_would(
    drivers: dict[str, str], ours: dict[str, str], data: st.DataObject
) -> None:
    pairs = [make_conninfo(**{name: value}) for name, value in drivers.items()]
    for name, value in ours.items():
        write = data.draw(st.sampled_from((_quoted, _escaped)))
        pairs.append(f"{name}{data.draw(_BLANKS)}={data.draw(_BLANKS)}{write(value)}")
    text = "".join(f"{pair} {data.draw(_BLANKS)}" for pair in data.draw(st.permutations(pairs)))
    found, left = extract(text, is_foreign_to_driver)
    assert found == ours
    assert conninfo_to_dict(left) == conninfo_to_dict(make_conninfo(**drivers)) == drivers


def _as_if_ours(name: str) -> bool:
    """A keyword of libpq's in the place of ours, so that libpq can read the whole text too."""
    return name == "application_name"


_PAIRS = st.lists(st.sampled_from(["application_name", "user", "options", "=", "=", " ", "\n", "'", "'", "\\", "x", "\u00a0"]))


@given(_PAIRS.map("".join))
def test_any_pairs_mean_what_libpq_says(text: str) -> None:
    try:
        expected = conninfo_to_dict(text)
    except ProgrammingError:
        with pytest.raises((ProgrammingError, AwsWrapperError)):
            conninfo_to_dict(extract(text, _as_if_ours)[1])
        return
    found, left = extract(text, _as_if_ours)
    assert {**conninfo_to_dict(left), **found} == expected
    assert "application_name" not in conninfo_to_dict(left)


_URI = st.lists(
    st.sampled_from(
        ["u", ":", "@", "h", "[::1]", "/", "?", "?", "&", "&", "=", "options=", "application_name=", "%20", "%3D", "p", ","]
    )
)


@given(_URI.map("".join))
def test_any_uri_means_what_libpq_says(tail: str) -> None:
    text = f"postgresql://{tail}"
    try:
        expected = conninfo_to_dict(text)
    except ProgrammingError:
        return  # refused by libpq: then it does not matter by whom
    found, left = extract(text, _as_if_ours)
    assert {**conninfo_to_dict(left), **found} == expected
    assert "application_name" not in conninfo_to_dict(left)
