"""`python -m tests.appservers`: run the matrix, and the comparison with the reference; print the tables or write the page."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from tests.appservers.cells import CELLS, Cell
from tests.appservers.comparison import CASES, Figures, measure
from tests.appservers.scenario import PROMOTE_AFTER, Seen, play
from tests.appservers.servers import ROOT
from tests.benchmarks.bench import OURS, REFERENCE, Side
from tests.benchmarks.reference import REFERENCE_VERSION, ReferenceUnavailableError, reference_python
from tests.drivers import PSYCOPG
from wrapper.testing import LocalAurora

PAGE = ROOT / "docs" / "app-servers.md"
_BEGIN = "<!-- {}: written by python -m tests.appservers --markdown -->\n"
_END = "<!-- end -->\n"


def main() -> int:
    """Run what the command line asks for; return the exit code: 0 unless a cell failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.appservers", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="cells whose name contains this, and no comparison")
    parser.add_argument("--comparison", action="store_true", help="the comparison alone")
    parser.add_argument("--markdown", action="store_true", help=f"write the tables into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    cells = [cell for cell in CELLS if not options.only or any(name in cell.name for name in options.only)]
    results = [] if options.comparison else _matrix(cells)
    if not options.comparison:
        _show("matrix", matrix_table(results), options.markdown and not options.only)
    if not options.only:
        _show("comparison", comparison_table(_comparison()), options.markdown)
    return int(any(isinstance(seen, str) for _, seen in results))


def _show(name: str, table: str, on_page: bool) -> None:
    if on_page:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), name, table), encoding="utf-8")
    else:
        print(table)


def _matrix(cells: list[Cell]) -> list[tuple[Cell, Seen | str]]:
    results: list[tuple[Cell, Seen | str]] = []
    with LocalAurora() as lab:
        for cell in cells:
            lab.reset()
            began = time.monotonic()
            seen: Seen | str
            with tempfile.TemporaryDirectory(prefix="asm-") as directory, tempfile.TemporaryDirectory() as spool:
                try:
                    seen = play(cell, lab, Path(directory), Path(spool))
                except AssertionError as error:
                    seen = str(error)
            lab.reset()
            with psycopg.connect(lab.dsn(by_address=True)) as connection:
                connection.execute("DROP TABLE IF EXISTS orders")
            results.append((cell, seen))
            print(f"{time.monotonic() - began:6.1f} s  {cell.name}  {seen}", file=sys.stderr, flush=True)
    return results


def _comparison() -> list[tuple[str, Figures, Figures | None]]:
    try:
        reference = Side(REFERENCE, reference_python(), PSYCOPG)
    except ReferenceUnavailableError as error:
        print(f"without the reference: {error}", file=sys.stderr)
        reference = None
    rows = []
    with LocalAurora(address_names=True) as lab:
        for name, case in CASES.items():
            ours = measure(case, Side(OURS, sys.executable, PSYCOPG), lab)
            theirs = None if reference is None else measure(case, reference, lab)
            print(f"{name}: {ours}; reference: {theirs}", file=sys.stderr, flush=True)
            rows.append((name, ours, theirs))
    return rows


def matrix_table(results: list[tuple[Cell, Seen | str]]) -> str:
    """Return the matrix as Markdown."""
    lines = [
        "| server | options | monitor started by | first | watched | calls in flight when the writer hung: answered after | left |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell, seen in results:
        begin = f"| {cell.server} | {cell.options} | {cell.monitor} | {cell.event or '-'} |"
        if isinstance(seen, str):
            lines.append(f"{begin} **failed**: {seen.splitlines()[0]} | | |")
            continue
        outage = f"{seen.in_flight} calls, {seen.outage:.2f} s ({seen.outage - PROMOTE_AFTER:.2f} s after the promotion)"
        lines.append(
            f"{begin} {seen.workers} workers, {seen.monitors} monitor, {seen.monitoring_sessions} sessions | {outage} | nothing |"
        )
    return "\n".join(lines) + "\n"


def comparison_table(rows: list[tuple[str, Figures, Figures | None]]) -> str:
    """Return the comparison as Markdown."""
    lines = [f"| gunicorn | this | AWS Advanced Python Wrapper {REFERENCE_VERSION} |", "|---|---|---|"]
    lines += [f"| {case} | {ours} | {'' if theirs is None else theirs} |" for case, ours, theirs in rows]
    return "\n".join(lines) + "\n"


def with_table(page: str, name: str, table: str) -> str:
    """Return the page with the named table replaced."""
    begin = _BEGIN.format(name)
    before, found, rest = page.partition(begin)
    if not found:
        raise ValueError(f"{PAGE.name} has no line {begin.strip()!r}")
    return before + found + table + _END + rest.partition(_END)[2]


if __name__ == "__main__":
    sys.exit(main())
