"""Raw psycopg and the kernel's view: how the tests see what the lab really did."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from wrapper.testing import LabClient

PATIENCE = 20.0


def eventually(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Return the first true value of `condition`; fail with `what` was waited for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout:g} s in vain for {what}")


def login(lab: LabClient, instance: str | None = None, **parameters: Any) -> psycopg.Connection[Any]:
    """Open a session of the application's on an instance, the writer by default, without any name service."""
    return psycopg.connect(lab.dsn(instance, by_address=True, connect_timeout=10), autocommit=True, **parameters)


def one(connection: psycopg.Connection[Any], sql: str) -> Any:
    """Return the single value of a query."""
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row[0]


def writer_by(connection: psycopg.Connection[Any]) -> str:
    """Return who is the writer in the view of the instance that the session is on."""
    rows = connection.execute("SELECT server_id FROM pg_catalog.aurora_replica_status() WHERE session_id = 'MASTER_SESSION_ID'")
    (row,) = rows.fetchall()
    return str(row[0])


def state_of(lab: LabClient, instance: str) -> dict[str, Any]:
    """Return the status of one instance."""
    return next(entry for entry in lab.status()["instances"] if entry["id"] == instance)
