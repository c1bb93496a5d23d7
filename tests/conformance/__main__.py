"""Runs psycopg's own test suite against the wrapper: `python -m tests.conformance PATH`.

PATH is a checkout of psycopg's repository (its released archives hold no tests). The suite is copied to a temporary directory
and run twice on a plain local server: with psycopg's connection class, and with one whose `connect` is the wrapper's. What
passes in the first run and not in the second must be in `WAIVED`, with the reason.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from wrapper.testing import LocalAurora

MODULES = (
    "test_connection",
    "test_connection_info",
    "test_copy",
    "test_cursor",
    "test_cursor_client",
    "test_cursor_common",
    "test_cursor_raw",
    "test_cursor_server",
    "test_notify",
    "test_pipeline",
    "test_prepared",
    "test_psycopg_dbapi20",
    "test_rows",
    "test_tpc",
    "test_transaction",
)
# Pattern of the test's name -> why it may fail.
WAIVED = {
    r"test_default_cursor|test_from_cursor_factory|test_cursor_factory_connect|test_query_parse_cache_size": (
        "asks for the exact class of a cursor; ours is a subclass of it"
    ),
    r"test_broken|test_right_exception_on_server_disconnect": (
        "expects a connection that is lost to stay lost; failover_v2 moves it to a working host and says so"
    ),
    r"test_connect_args": "expects exactly the given parameters; the wrapper adds a connect time-out and the keepalive floor",
    r"test_connect_badargs": "expects psycopg's ProgrammingError for an unknown parameter; the wrapper raises AwsWrapperError",
}
# Leaves the machine: it resolves and connects to public addresses.
EXCLUDED = ("test_connection.py::test_resolve_hostaddr_conn",)

_SHIM = """

import psycopg as _psycopg
import wrapper as _wrapper


class _Wrapped(_psycopg.Connection):
    @classmethod
    def connect(cls, conninfo="", **kwargs):
        return _wrapper.connect(_psycopg.Connection.connect, conninfo, **kwargs)


@pytest.fixture(scope="session")
def conn_cls(session_dsn):
    return _Wrapped
"""


def run(suite: Path, dsn: str, directory: str) -> dict[str, str]:
    """Run the suite; return the outcome of each test by its id."""
    command = [sys.executable, "-m", "pytest", "-p", "no:aws_wrapper_lab", "-q", "-rA", "--tb=no", "--test-dsn", dsn]
    command += ["-m", "not slow and not gevent and not mypy and not subprocess"]
    command += [f"--deselect=tests/{test}" for test in EXCLUDED]
    command += [f"tests/{module}.py" for module in MODULES if (suite / "tests" / f"{module}.py").exists()]
    environment = {**os.environ, "AWS_WRAPPER_MONITOR_DIR": directory}
    done = subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, timeout=900, check=False)
    outcomes = {match[2]: match[1] for match in re.finditer(r"^(PASSED|FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)}
    if not outcomes:
        raise SystemExit(f"the suite did not run:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return outcomes


def main() -> int:
    """Run both and compare; the exit status says whether only waived tests differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repository", type=Path, help="a checkout of psycopg's repository")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="conformance-") as place, LocalAurora(instances=1, flavor="pg") as lab:
        suite = Path(place)
        shutil.copytree(options.repository / "tests", suite / "tests")
        dsn = lab.admin_dsn(lab.writer.id)
        raw = run(suite, dsn, f"{place}/monitor")
        with open(suite / "tests" / "conftest.py", "a", encoding="utf-8") as conftest:
            conftest.write(_SHIM)
        ours = run(suite, dsn, f"{place}/monitor")
        subprocess.run(
            [sys.executable, "-m", "monitor_service", "stop"],
            env={**os.environ, "AWS_WRAPPER_MONITOR_DIR": f"{place}/monitor"},
            capture_output=True,
            check=False,
        )
    worse = sorted(test for test, outcome in raw.items() if outcome == "PASSED" and ours.get(test) != "PASSED")
    unexplained = [test for test in worse if not any(re.search(pattern, test) for pattern in WAIVED)]
    print(f"psycopg alone: {sum(outcome == 'PASSED' for outcome in raw.values())} passed")
    print(f"the wrapper:   {sum(outcome == 'PASSED' for outcome in ours.values())} passed")
    for pattern, reason in WAIVED.items():
        print(f"waived: {sum(bool(re.search(pattern, test)) for test in worse):2}  {reason}")
    for test in unexplained:
        print(f"FAILED {test}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
