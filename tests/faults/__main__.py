"""Writes docs/faults.md: `python -m tests.faults --markdown`. Without the option, all the tests of the table are run first, and the
page says what was seen."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path

from tests.faults.table import SECTIONS, Fault

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "faults.md"
SEEN = "Last run: "
NOTHING = "\u2013"

HEAD = """# Faults

What goes wrong, and what becomes of it. Every row is shown by tests with real processes, real sockets and the real fault, but for
the clock, which no test can set; they also look for what is left behind: descriptors, sessions on servers, processes. The last
column is the AWS Advanced Python Wrapper, by its documentation and sources; it was not run for this page.

This page is written by `python -m tests.faults`, which runs the tests of the table first (some take root, for name servers and file
systems of their own; some are of those marked `slow`).
"""


def named() -> list[str]:
    """Return every test of the table, once."""
    return list(dict.fromkeys(test for rows in SECTIONS.values() for row in rows for test in row.tests))


def render(seen: str) -> str:
    """Return the page. `seen`: the line that tells of the last run."""
    parts = [HEAD]
    if seen:
        parts.append(f"\n{seen}\n")
    for title, rows in SECTIONS.items():
        parts.append(f"\n## {title}\n\n| what happens | what the application sees | within | shown by | the reference |\n")
        parts.append("|---|---|---|---|---|\n")
        parts += [_line(row) for row in rows]
    return "".join(parts)


def _line(row: Fault) -> str:
    shown = "<br>".join(f"[{name}](../tests/{path})" for path, _, name in (test.partition("::") for test in row.tests))
    return f"| {row.fault} | {row.seen} | {row.bound or NOTHING} | {shown} | {row.reference or NOTHING} |\n"


def seen_last() -> str:
    """Return the line of the page that tells of the last run, empty where there is none."""
    lines = PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else []
    return next((line for line in lines if line.startswith(SEEN)), "")


def run() -> tuple[int, str]:
    """Run the tests; return pytest's exit code and the line for the page."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--dist",
            "loadfile",
            "-m",
            "slow or not slow",
            *(f"tests/{test}" for test in named()),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=False,
    )
    print(done.stdout)
    summary = done.stdout.strip().splitlines()[-1].strip("= ")
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return done.returncode, f"{SEEN}{summary}; {date.today()}, {where}."


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="write the page, run nothing")
    code, seen = (0, seen_last()) if parser.parse_args().markdown else run()
    PAGE.write_text(render(seen), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
