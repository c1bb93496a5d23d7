"""The results as text, Markdown and JSON. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.bench import Figure, Line

_VERDICTS = {True: "yes", False: "no", None: "-"}


@dataclass(frozen=True, slots=True)
class Result:
    """One line with what was measured. `reference` is None where it was not asked for."""

    row: str
    line: Line
    ours: Figure
    reference: Figure | None = None


def as_text(results: Sequence[Result]) -> str:
    """Return one paragraph per line: a table of six columns does not fit a terminal."""
    paragraphs = []
    for result in results:
        line = result.line
        cells = [
            ("measured", result.ours.text),
            ("to reach", f"{line.goal}  [{_VERDICTS[result.ours.met]}]"),
            ("reference, now", result.reference.text if result.reference else ""),
            ("reference, before", line.before if line.before != "-" else ""),
        ]
        head = textwrap.fill(f"{result.row}: {line.what}", 110, subsequent_indent="    ")
        body = [
            textwrap.fill(text, 110, initial_indent=f"    {name:18}", subsequent_indent=" " * 22) for name, text in cells if text
        ]
        paragraphs.append("\n".join([head, *body]))
    return "\n\n".join(paragraphs)


def as_markdown(results: Sequence[Result]) -> str:
    """Return a Markdown table."""
    rows = ["| row | what | measured | to reach | met | reference, same run | reference, before |", "|---|---|---|---|---|---|---|"]
    for result in results:
        reference = result.reference.text if result.reference else ""
        line = result.line
        cells = (f"`{result.row}`", line.what, result.ours.text, line.goal, _VERDICTS[result.ours.met], reference, line.before)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def as_document(results: Sequence[Result], conditions: dict[str, Any]) -> dict[str, Any]:
    """Return plain values for a JSON file, with the numbers behind each cell."""
    return {"conditions": conditions, "results": [asdict(result) for result in results]}
