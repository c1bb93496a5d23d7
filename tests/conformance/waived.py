"""Which of psycopg's tests are run, and which need not pass with the wrapper, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Waiver:
    """Why some tests need not pass.

    `tests` and `failure` are patterns of the whole test id and of a part of what pytest says about the failure: a waived test that
    fails in another way is not excused.
    """

    reason: str
    tests: str
    failure: str

    def excuses(self, test: str, failure: str) -> bool:
        """Whether the test may fail like this."""
        return re.fullmatch(self.tests, test) is not None and re.search(self.failure, failure) is not None


WAIVERS = (
    Waiver(
        "asks for the exact class of a cursor; ours is a subclass of it, of the same name",
        r"test_connection::test_cursor_factory_connect"
        r"|test_cursor(_client|_raw)?::test_(default_cursor|from_cursor_factory)(\[asyncio\])?"
        r"|test_cursor_common::test_query_parse_cache_size\[asyncio-(Client|Raw)?Cursor\]",
        r"AssertionError: (assert )?<class '[\w.]+'>",
    ),
    Waiver(
        "assigns a `rollback` that calls the original; that is the wrapper's, and runs whatever the driver's connection has now",
        r"pool\.test_pool(_null)?::test_fail_rollback_close",
        r"RecursionError",
    ),
)


def waiver(test: str, failure: str) -> str | None:
    """Return why a test may fail like this, None if it must pass."""
    return next((waiver.reason for waiver in WAIVERS if waiver.excuses(test, failure)), None)
