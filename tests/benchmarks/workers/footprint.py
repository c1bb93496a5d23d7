"""What a process weighs: after importing, and with one open connection."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time

from tests.benchmarks.workers.parent import arguments, next_command, tell
from tests.drivers import DRIVERS, ask

_MODULES = {"ours": "wrapper", "reference": "aws_advanced_python_wrapper"}


def private_kib() -> int:
    """Return the memory that only this process has, clean and dirty pages (smaps_rollup)."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Clean:", "Private_Dirty:")))


def weigh(event: str, **facts: float) -> None:
    """Report private memory and threads. Python threads are those that have run Python code, whoever started them."""
    gc.collect()
    threads = len(os.listdir("/proc/self/task"))
    tell(event, private_kib=private_kib(), threads=threads, python_threads=len(sys._current_frames()), **facts)


def main() -> None:
    given = arguments()
    side = given["side"]
    assert DRIVERS[given["driver"]].module
    weigh("driver")
    if side in _MODULES:
        began = time.perf_counter()
        module = importlib.import_module(_MODULES[side])
        seconds = time.perf_counter() - began
        weigh("imported", seconds=seconds)
        # Our package loads its names on first use: what a program pays before it can connect is this.
        began = time.perf_counter()
        assert module.AwsWrapperConnection
        weigh("usable", seconds=seconds + time.perf_counter() - began)
    if given.get("login"):
        from tests.benchmarks.workers.connecting import connect

        connection = connect(side, given["login"], given["parameters"])
        ask(connection, "SELECT 1")
        tell("connected")
        # By then the background has done its first work and the worker is as it will stay.
        while next_command() == "weigh":
            weigh("weighed")
        connection.close()


if __name__ == "__main__":
    main()
