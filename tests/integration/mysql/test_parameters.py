"""How connections of mysql-connector-python are asked for, and what cannot be asked for."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import mysql.connector
import mysql.connector.aio
import mysql.connector.pooling
import pytest
from mysql.connector.connection import MySQLConnection

import wrapper.mysql_connector
from wrapper import AwsWrapperConnection, AwsWrapperError
from wrapper.testing import LocalAurora

from .conftest import one, stands_for

NOWHERE: dict[str, Any] = {"host": "127.0.0.1", "port": 1, "user": "u", "plugins": ""}


@pytest.mark.parametrize(
    ("parameters", "instead"),
    [
        ({"pool_name": "p"}, "pooled connection provider"),
        ({"pool_size": 5}, "pooled connection provider"),
        ({"failover": ({"host": "other"},)}, "failover_v2"),
        ({"option_files": "/etc/my.cnf"}, "keyword arguments"),
        ({"read_default_file": "/etc/my.cnf"}, "keyword arguments"),
        ({"dns_srv": True}, "endpoint itself"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_the_driver_would_do_behind_our_back_is_refused(parameters: dict[str, Any], instead: str) -> None:
    with pytest.raises(AwsWrapperError, match=f"{next(iter(parameters))} cannot be used.*{instead}"):
        AwsWrapperConnection.connect(mysql.connector.connect, **NOWHERE, **parameters)


def test_there_is_no_connection_text() -> None:
    with pytest.raises(AwsWrapperError, match="no connection text"):
        AwsWrapperConnection.connect(mysql.connector.connect, "host=127.0.0.1")


@pytest.mark.parametrize("port", ["12,13", "none"])
def test_a_port_is_one_number(port: str) -> None:
    with pytest.raises(AwsWrapperError, match="port="):
        AwsWrapperConnection.connect(mysql.connector.connect, **{**NOWHERE, "port": port})


def test_unknown_parameters_are_named() -> None:
    with pytest.raises(AwsWrapperError, match="unknown parameter 'autocomit'"):
        AwsWrapperConnection.connect(mysql.connector.connect, **NOWHERE, autocomit=True)


def test_asynchronous_connections_and_the_drivers_pools_are_refused() -> None:
    with pytest.raises(AwsWrapperError, match="asynchronous"):
        AwsWrapperConnection.connect(mysql.connector.aio.connect, **NOWHERE)
    pool = object.__new__(mysql.connector.pooling.MySQLConnectionPool)
    with pytest.raises(AwsWrapperError, match="pool"):
        AwsWrapperConnection.connect(pool.get_connection, **NOWHERE)


WITHOUT_EXTENSION = """
import sys
from contextlib import suppress
sys.modules["_mysql_connector"] = None  # as where its libraries do not fit
import mysql.connector
from wrapper import AwsWrapperConnection, AwsWrapperError
arguments = {"host": "127.0.0.1", "port": 1, "user": "u", "plugins": ""}
for use_pure in ({}, {"use_pure": True}):
    with suppress(mysql.connector.InterfaceError):  # nobody listens there
        AwsWrapperConnection.connect(mysql.connector.connect, **arguments, **use_pure)
try:
    AwsWrapperConnection.connect(mysql.connector.connect, **arguments, use_pure=False)
except AwsWrapperError as error:
    print(error)
"""


def test_an_extension_that_cannot_be_loaded_is_said_to_be_so() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_EXTENSION], capture_output=True, text=True, check=False, timeout=60
    )
    assert re.fullmatch(
        r"use_pure=False: the C extension .* cannot be loaded .*OpenSSL 3\.2.*use_pure=True always works\n", done.stdout
    ), done


@pytest.mark.parametrize("target", [mysql.connector.connect, mysql.connector.Connect], ids=["connect", "Connect"])
def test_the_drivers_connect_functions(aurora_mysql: LocalAurora, target: Any) -> None:
    with AwsWrapperConnection.connect(target, **aurora_mysql.parameters(), monitor_mode="off") as connection:
        assert stands_for(connection, mysql.connector.CMySQLConnection)
    with AwsWrapperConnection.connect(target, **aurora_mysql.parameters(), monitor_mode="off", use_pure=True) as connection:
        assert stands_for(connection, MySQLConnection)


def test_the_drivers_connection_classes(aurora_mysql: LocalAurora) -> None:
    class Mine(MySQLConnection):
        """An application's own."""

    for target in (MySQLConnection, mysql.connector.CMySQLConnection, Mine):
        with AwsWrapperConnection.connect(target, **aurora_mysql.parameters(), monitor_mode="off") as connection:
            assert stands_for(connection, target)
            assert one(connection, "SELECT 1") == 1


def test_names_that_other_drivers_have(aurora_mysql: LocalAurora) -> None:
    given = aurora_mysql.parameters()
    for ours, theirs in (("user", "username"), ("password", "passwd"), ("database", "db")):
        given[theirs] = given.pop(ours)
    with wrapper.mysql_connector.connect(**given, connection_timeout=3, autocommit=True, monitor_mode="off") as connection:
        assert one(connection, "SELECT @@autocommit") == 1
        assert one(connection, "SELECT DATABASE()") == given["db"]
        assert connection.target_connection._connection_timeout == 3


def test_the_module_stands_for_the_drivers(aurora_mysql: LocalAurora) -> None:
    module = wrapper.mysql_connector
    assert module.threadsafety == mysql.connector.threadsafety
    assert module.IntegrityError is mysql.connector.IntegrityError
    assert module.MySQLConnection is mysql.connector.MySQLConnection
    with module.connect(**aurora_mysql.parameters(), monitor_mode="off") as connection:
        assert isinstance(connection, AwsWrapperConnection)
    with pytest.raises(module.ProgrammingError) as caught:
        module.connect(**NOWHERE, autocomit=True)
    assert stands_for(caught.value, AwsWrapperError)
    with pytest.raises(AttributeError, match=r"wrapper\.mysql_connector"):
        _ = module.nothing
