"""What a call costs: the raw driver and a wrapper take turns on the same server in one process.

Each round runs raw, wrapper, raw; the wrapper is compared with the mean of its two neighbours, and the two neighbours with each
other: that is the control.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from tests.benchmarks.workers.connecting import RAW, connect
from tests.benchmarks.workers.parent import arguments, tell
from tests.drivers import MYSQL, engine_of, one

Operation = Callable[[Any, int], list[float]]


def select_one(connection: Any, times: int) -> list[float]:
    """`execute("SELECT 1")` and `fetchone()` on one cursor; seconds of each."""
    cursor = connection.cursor()
    clock = time.perf_counter
    taken = []
    for _ in range(times):
        began = clock()
        cursor.execute("SELECT 1")
        cursor.fetchone()
        taken.append(clock() - began)
    cursor.close()
    return taken


def select_one_new_cursor(connection: Any, times: int) -> list[float]:
    """The same with a cursor of its own for each query."""
    clock = time.perf_counter
    taken = []
    for _ in range(times):
        began = clock()
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.fetchone()
        cursor.close()
        taken.append(clock() - began)
    return taken


def fetch_rows(connection: Any, times: int) -> list[float]:
    """Fetching `times` rows that have arrived, one by one; seconds per row, the query itself not counted."""
    how = {"buffered": True} if engine_of(connection) is MYSQL else {}
    return _fetched(connection, connection.cursor(**how), times)


def fetch_rows_unbuffered(connection: Any, times: int) -> list[float]:
    """The same on a cursor of mysql-connector-python's that reads each row from the network."""
    return _fetched(connection, connection.cursor(), times)


def _fetched(connection: Any, cursor: Any, times: int) -> list[float]:
    cursor.execute(engine_of(connection).rows.format(times))
    # The time of this process alone: what the server needs for the rows is not the question.
    clock = time.process_time
    began = clock()
    while cursor.fetchone() is not None:
        pass
    taken = clock() - began
    cursor.close()
    return [taken / times]


OPERATIONS: dict[str, Operation] = {
    "select_one": select_one,
    "select_one_new_cursor": select_one_new_cursor,
    "fetch_rows": fetch_rows,
    "fetch_rows_unbuffered": fetch_rows_unbuffered,
}


@contextmanager
def one_cpu(connections: list[Any]) -> Iterator[None]:
    """A block in which this process shares one CPU with the servers behind the connections.

    Else the scheduler decides for each pair anew whether a query wakes another core, which costs several times the query itself.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    servers: set[int] = set()
    for connection in connections:
        try:
            servers.add(server_process(connection))
        except ProcessLookupError:
            pass  # on another machine: more noise, the same meaning
    for server in servers:
        _pin(server, {max(before)})
    try:
        yield
    finally:
        for server in servers:
            _pin(server, before)


def _pin(process: int, cpus: set[int]) -> None:
    """Put all threads of a process on these CPUs: a MySQL server has one for each connection, which its listener's makes."""
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            os.sched_setaffinity(int(thread), cpus)
    except (PermissionError, ProcessLookupError, FileNotFoundError):
        pass  # somebody else's, or gone


def server_process(connection: Any) -> int:
    """Return the pid of the server process of a connection: PostgreSQL has the client's port in its title, MySQL its own address.

    The server may live in a PID namespace of its own, where it goes by another number. Raises `ProcessLookupError`.
    """
    if engine_of(connection) is MYSQL:
        program, mark = b"", f"--bind-address={one(connection, MYSQL.server_address)}\0".encode()
    else:
        with socket.socket(fileno=os.dup(connection.fileno())) as client:
            program, mark = b"postgres:", f"({client.getsockname()[1]})".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    title = file.read()
            except OSError:
                continue  # it has ended meanwhile
            if title.startswith(program) and mark in title:
                return int(entry)
    raise ProcessLookupError


def compare(operation: Operation, first: Any, measured: Any, second: Any, times: int, rounds: int) -> dict[str, Any]:
    """Measure an operation on two raw subjects and on a wrapped one between them; return medians, in seconds and as ratios."""
    for subject in (first, measured, second):
        operation(subject, times)
    ratios, controls, raws, own = [], [], [], []
    for turn in range(rounds):
        # The raw connections change places, so that neither is always the warmer one.
        before, after = (first, second) if turn % 2 else (second, first)
        a = median(operation(before, times))
        b = median(operation(measured, times))
        c = median(operation(after, times))
        ratios.append(b / ((a + c) / 2))
        controls.append((a if before is first else c) / (c if before is first else a))
        raws.append((a + c) / 2)
        own.append(b)
    medians = {"ratio": median(ratios), "control": median(controls), "raw": median(raws), "seconds": median(own)}
    return {**medians, "ratios": ratios}


def main() -> None:
    given = arguments()
    first, second = connect(RAW, given["login"]), connect(RAW, given["login"])
    measured = connect(given["side"], given["login"], given["parameters"])
    with one_cpu([first, measured, second]):
        tell("measured", **compare(OPERATIONS[given["operation"]], first, measured, second, given["times"], given["rounds"]))
    for connection in (first, measured, second):
        connection.close()


if __name__ == "__main__":
    main()
