"""A login that the monitor cannot do: workers are told once what it lacks, and do without its sessions."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from tests.integration.conftest import eventually
from wrapper import AwsWrapperConnection, errors
from wrapper.testing import LocalAurora

from .conftest import one


@pytest.fixture
def old_fashioned(aurora_mysql: LocalAurora) -> Iterator[dict[str, str]]:
    """An account whose password is shown by a method that no client has had since MySQL 5.7."""
    with closing(mysql.connector.connect(**aurora_mysql.admin_parameters(aurora_mysql.writer.id), use_pure=True)) as session:
        cursor = session.cursor()
        for statement in (
            "SET GLOBAL secure_auth = 0",
            "CREATE OR REPLACE USER old@'%' IDENTIFIED VIA mysql_old_password USING '5d2e19393cc5ef67'",
        ):
            cursor.execute(statement)
        yield {"monitoring-user": "old", "monitoring-password": "hush"}


def test_a_login_that_the_monitor_lacks_leaves_the_worker_to_itself(
    aurora_mysql: LocalAurora, monitor_directory: Path, old_fashioned: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "wrapper")
    parameters: dict[str, Any] = {"cluster_instance_host_pattern": aurora_mysql.instance_host_pattern, "autocommit": True}
    connection = AwsWrapperConnection.connect(mysql.connector.connect, **aurora_mysql.parameters(), **parameters, **old_fashioned)
    with connection:
        eventually(lambda: "working without it" in caplog.text, "the monitor's word that it cannot")
        assert "'mysql_old_password'" in caplog.text
        assert "hush" not in caplog.text
        (target, *_) = aurora_mysql.readers
        aurora_mysql.failover(target.id)
        with pytest.raises(errors.FailoverSuccessError):
            connection.ping()
        assert one(connection, "SELECT @@aurora_server_id") == target.id
