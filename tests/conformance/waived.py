"""Which of psycopg's tests are run, and which need not pass with the wrapper, and why."""

from __future__ import annotations

import re

# Everything synchronous that uses a connection; the asynchronous tests are these, generated.
MODULES = (
    "pool/test_pool.py",
    "pool/test_pool_common.py",
    "pool/test_pool_null.py",
    "test_adapt.py",
    "test_column.py",
    "test_concurrency.py",
    "test_connection.py",
    "test_connection_info.py",
    "test_copy.py",
    "test_cursor.py",
    "test_cursor_client.py",
    "test_cursor_common.py",
    "test_cursor_raw.py",
    "test_cursor_server.py",
    "test_encodings.py",
    "test_errors.py",
    "test_module.py",
    "test_notify.py",
    "test_pipeline.py",
    "test_prepared.py",
    "test_psycopg_dbapi20.py",
    "test_rows.py",
    "test_sql.py",
    "test_tpc.py",
    "test_transaction.py",
    "test_typeinfo.py",
    "types",
)
# These leave the machine: they look public names up, or have the monitor look for the servers that they only pretend to reach.
EXCLUDED = (
    "test_connection.py::test_connect_args",
    "test_connection.py::test_resolve_error_host",
    "test_connection.py::test_resolve_hostaddr_conn",
    "test_psycopg_dbapi20.py::test_connect_args",
)
# Pattern of a whole test id -> why it need not pass.
WAIVED: dict[str, str] = {}


def waiver(test: str) -> str | None:
    """Return why a test need not pass, None if it must."""
    return next((reason for pattern, reason in WAIVED.items() if re.fullmatch(pattern, test)), None)
