"""Writes docs/differences.md from tests/spec/weaknesses.json: `python docs/differences.py`. A test fails when the two differ."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".md")
CASES = PAGE.parents[1] / "tests" / "spec" / "weaknesses.json"

_INTRODUCTION = """\
# What is different, and the tests that show it

<!-- Generated from tests/spec/weaknesses.json by docs/differences.py: edit there. -->

What the AWS Advanced Python Wrapper 3.1.0 does in these cases, and the tests that show what this one does. Most run against real
servers in the [lab](lab.md), those marked slow by `bash tests/run -m slow`.
"""


def render() -> str:
    """Return the text of the page."""
    cases = sorted(json.loads(CASES.read_text(encoding="utf-8")), key=lambda case: case["area"])
    return "\n".join([_INTRODUCTION, *(_section(area, list(rows)) for area, rows in groupby(cases, lambda case: case["area"]))])


def _section(area: str, cases: list[dict[str, Any]]) -> str:
    rows = [f"| {case['there']} | {'<br>'.join(map(_link, case['tests']))} |" for case in cases]
    return "\n".join([f"## {area}", "", "| in the AWS Advanced Python Wrapper | shown otherwise by |", "|---|---|", *rows, ""])


def _link(test: str) -> str:
    path, _, function = test.partition("::")
    return f"[`{function}`](../{path})"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
