"""What one list of plugins adds to each operation: the raw driver and the wrapper take turns, as in `cost`.

A subject of the last operation is a function that connects.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.workers.connecting import RAW, connect
from tests.benchmarks.workers.cost import Operation, compare, one_cpu, select_one, server_process
from tests.benchmarks.workers.parent import arguments, next_command, tell
from tests.drivers import POSTGRESQL, engine_of, transaction

ROWS = 1000
_TABLE = "CREATE TEMPORARY TABLE IF NOT EXISTS plugin_cost (n int)"


def many_rows(connection: Any, times: int) -> list[float]:
    """`executemany` of 1,000 rows into a temporary table; seconds of each."""
    cursor = connection.cursor()
    cursor.execute(_TABLE)
    rows = [(number,) for number in range(ROWS)]
    clock = time.perf_counter
    taken = []
    for _ in range(times):
        began = clock()
        cursor.executemany("INSERT INTO plugin_cost VALUES (%s)", rows)
        taken.append(clock() - began)
        cursor.execute("TRUNCATE plugin_cost")
    cursor.close()
    return taken


def transactions(connection: Any, times: int) -> list[float]:
    """A transaction around one statement: three round trips; seconds of each."""
    cursor = connection.cursor()
    clock = time.perf_counter
    taken = []
    for _ in range(times):
        began = clock()
        with transaction(connection):
            cursor.execute("SELECT 1")
            cursor.fetchall()
        taken.append(clock() - began)
    cursor.close()
    return taken


def connects(open_one: Callable[[], Any], times: int) -> list[float]:
    """Connect and close; seconds of each."""
    clock = time.perf_counter
    taken = []
    for _ in range(times):
        began = clock()
        open_one().close()
        taken.append(clock() - began)
    return taken


CALLS: dict[str, Operation] = {"execute": select_one, "transaction": transactions}


@contextmanager
def server_on_one_cpu(connection: Any) -> Iterator[None]:
    """Have the server start its processes for new connections on the CPU that this process is on; MySQL's has but one process."""
    if engine_of(connection) is not POSTGRESQL:
        yield
        return
    try:
        status = Path(f"/proc/{server_process(connection)}/status").read_text(encoding="ascii", errors="replace")
        parent = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
        before = os.sched_getaffinity(parent)
        os.sched_setaffinity(parent, os.sched_getaffinity(0))
    except (PermissionError, ProcessLookupError):
        yield  # as in `one_cpu`: more noise, the same meaning
        return
    try:
        yield
    finally:
        os.sched_setaffinity(parent, before)


def main() -> None:
    given = arguments()
    side, parameters, turns = given["side"], given["parameters"], given["turns"]
    endpoints = {"connect": given["login"], **given["others"]}
    first, second = (connect(RAW, given["login"]) for _ in range(2))
    # All names of the cluster are known from here on; these stay open, so that none is forgotten.
    held = [connect(side, login, parameters) for login in endpoints.values()]
    measured = held[0]
    reports_role = engine_of(first) is POSTGRESQL and first.pgconn.parameter_status(b"in_hot_standby") is not None
    tell("ready")
    next_command()
    # A thousand statements in a pipeline keep client and server busy at the same time: on one CPU, the order in which they get it
    # would be what is measured.
    tell("measured", operation="executemany", **compare(many_rows, first, measured, second, *turns["executemany"]))
    with one_cpu([first, measured, second]):
        for name, operation in CALLS.items():
            tell("measured", operation=name, **compare(operation, first, measured, second, *turns[name]))
        with server_on_one_cpu(first):
            for name, login in endpoints.items():
                one, another = (partial(connect, RAW, login) for _ in range(2))
                wrapped = partial(connect, side, login, parameters)
                tell("measured", operation=name, **compare(connects, one, wrapped, another, *turns[name]))
    tell("done", reports_role=reports_role)
    for connection in (first, *held, second):
        connection.close()


if __name__ == "__main__":
    main()
