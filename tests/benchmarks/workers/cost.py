"""What a call costs: the raw driver and a wrapper take turns on the same server in one process.

Each round runs raw, wrapper, raw; the wrapper is compared with the mean of its two neighbours, and the two neighbours with each
other: that is the control.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from tests.benchmarks.workers.connecting import RAW, connect
from tests.benchmarks.workers.parent import arguments, tell

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
    """Fetching `times` rows one by one; seconds per row, the query itself not counted."""
    cursor = connection.cursor()
    cursor.execute(f"SELECT generate_series(1, {times})")
    clock = time.perf_counter
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
}


def share_one_cpu(connections: list[Any]) -> None:
    """Put this process and the server processes behind the connections on one CPU.

    Else the scheduler decides for each pair anew whether a query wakes another core, which costs several times the query itself.
    """
    cpu = {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, cpu)
    for connection in connections:
        try:
            os.sched_setaffinity(server_process(connection), cpu)
        except (PermissionError, ProcessLookupError):
            pass  # a server of somebody else's, or on another machine: more noise, the same meaning


def server_process(connection: Any) -> int:
    """Return the pid of the server process of a connection, by the client's port in its title.

    The server may live in a PID namespace of its own, where it goes by another number. Raises `ProcessLookupError`.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as client:
        mark = f"({client.getsockname()[1]})".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    title = file.read()
            except OSError:
                continue  # it has ended meanwhile
            if title.startswith(b"postgres:") and mark in title:
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
    first, second = connect(RAW, given["conninfo"]), connect(RAW, given["conninfo"])
    measured = connect(given["side"], given["conninfo"], given["parameters"])
    share_one_cpu([first, measured, second])
    tell("measured", **compare(OPERATIONS[given["operation"]], first, measured, second, given["times"], given["rounds"]))
    for connection in (first, measured, second):
        connection.close()


if __name__ == "__main__":
    main()
