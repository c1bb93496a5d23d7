"""`python -m tests.benchmarks`: run the rows, print the table."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.benchmarks.bench import OURS, REFERENCE, Bench, Figure, Row, Side
from tests.benchmarks.reference import ReferenceUnavailableError, reference_python
from tests.benchmarks.rows import NAMES
from tests.benchmarks.table import Result, as_document, as_markdown, as_text
from tests.drivers import DRIVERS, MYSQL, PSYCOPG
from wrapper.testing import LabError


def main() -> int:
    """Run what the command line asks for; return the exit code: 0 unless a row could not be measured."""
    parser = _parser()
    options = parser.parse_args()
    if options.reference and options.driver != [PSYCOPG.name]:
        parser.error("--reference: the reference is measured with psycopg only")
    rows = [_row(name) for name in NAMES if not options.only or name in options.only]
    drivers = [DRIVERS[name] for name in options.driver]
    reference, why_not = _reference() if options.reference else (None, "")
    bench = Bench(options.quick)
    load_before, began = os.getloadavg()[0], time.monotonic()
    results: list[Result] = []
    broken = False
    try:
        for row in rows:
            started = time.monotonic()
            measured: list[Result] = []
            for driver in drivers:
                if driver.engine is MYSQL:
                    bench.close()  # a server that joins again replays all that was ever written
                lines = row.lines_for(driver)
                ours, failed = _measure(bench, row, Side(OURS, sys.executable, driver))
                broken |= failed
                theirs: Sequence[Figure | None] = [None] * len(lines)
                if options.reference and row.compares:
                    unavailable = [Figure(f"not measured: {why_not}")] * len(lines)
                    theirs = _measure(bench, row, reference)[0] if reference is not None else unavailable
                measured += [
                    Result(row.name, *cells) for cells in zip(lines, [driver.name] * len(lines), ours, theirs, strict=True)
                ]
                _progress(as_text(measured[-len(lines) :]))
            # The drivers of one line below each other.
            results += sorted(measured, key=lambda result: row.lines.index(result.line))
            _progress(f"({row.name}: {time.monotonic() - started:.0f} s)\n")
    except KeyboardInterrupt:
        _progress("interrupted; what was measured so far:")
    finally:
        bench.close()
    conditions = {
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_before": load_before,
        "seconds": round(time.monotonic() - began),
        "quick": options.quick,
    }
    print(as_markdown(results) if options.markdown else as_text(results))
    print("\n" + ", ".join(f"{name} {value}" for name, value in conditions.items()))
    if options.json:
        options.json.write_text(json.dumps(as_document(results, conditions), indent=1) + "\n", encoding="utf-8")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure the wrapper and its shared monitor.")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=f"these rows only: {', '.join(NAMES)}")
    parser.add_argument(
        "--driver", nargs="+", choices=DRIVERS, default=[PSYCOPG.name], metavar="NAME", help=f"one or more of {', '.join(DRIVERS)}"
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds and shorter waits: a first impression in minutes")
    parser.add_argument("--reference", action="store_true", help="measure the AWS Advanced Python Wrapper too (from PyPI)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to FILE")
    return parser


def _row(name: str) -> Row:
    row = import_module(f"tests.benchmarks.rows.{name}").ROW
    assert isinstance(row, Row)
    return row


def _reference() -> tuple[Side | None, str]:
    try:
        return Side(REFERENCE, reference_python(), PSYCOPG), ""
    except ReferenceUnavailableError as error:
        return None, str(error)


def _measure(bench: Bench, row: Row, side: Side) -> tuple[list[Figure], bool]:
    """Return a figure for each line, and whether the measurement broke down (which must not cost the other rows)."""
    try:
        try:
            return row.measure(bench, side), False
        except LabError as error:
            # The cluster itself is in trouble, which says nothing about what is measured: once more, on a new one.
            _progress(f"({row.name}: {str(error)[:200]}; again with new servers)")
            bench.close()
            return row.measure(bench, side), False
    except Exception as error:  # noqa: BLE001  the cell says what went wrong
        traceback.print_exc()
        return [Figure(f"could not be measured: {type(error).__name__}: {str(error)[:300]}", met=False)] * len(
            row.lines_for(side.driver)
        ), True


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
