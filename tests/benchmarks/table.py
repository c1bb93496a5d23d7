"""The results as text, Markdown and JSON. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.bench import Figure, Line
from tests.drivers import PSYCOPG

_VERDICTS = {True: "yes", False: "no", None: "-"}


@dataclass(frozen=True, slots=True)
class Result:
    """One line with what was measured. `reference` is None where it was not asked for."""

    row: str
    line: Line
    driver: str
    ours: Figure
    reference: Figure | None = None

    @property
    def before(self) -> str:
        """What the reference once did, which was measured with psycopg."""
        return self.line.before if self.driver == PSYCOPG.name else ""


def as_text(results: Sequence[Result]) -> str:
    """Return one paragraph per line: a table of six columns does not fit a terminal."""
    paragraphs = []
    for result in results:
        line = result.line
        cells = [
            ("measured", result.ours.text),
            ("to reach", f"{line.goal}  [{_VERDICTS[result.ours.met]}]"),
            ("reference, now", result.reference.text if result.reference else ""),
            ("reference, before", result.before if result.before != "-" else ""),
        ]
        head = textwrap.fill(f"{result.row}, {result.driver}: {line.what}", 110, subsequent_indent="    ")
        body = [
            textwrap.fill(text, 110, initial_indent=f"    {name:18}", subsequent_indent=" " * 22) for name, text in cells if text
        ]
        paragraphs.append("\n".join([head, *body]))
    return "\n\n".join(paragraphs)


def as_markdown(results: Sequence[Result]) -> str:
    """Return a Markdown table; what is the same or empty everywhere has no column."""
    titles = ("row", "what", "driver", "measured", "to reach", "met", "reference, same run", "reference, before")
    rows = [
        (
            f"`{result.row}`",
            result.line.what,
            result.driver,
            result.ours.text,
            result.line.goal,
            _VERDICTS[result.ours.met],
            result.reference.text if result.reference else "",
            result.before,
        )
        for result in results
    ]
    drivers = {result.driver for result in results}
    columns = [
        (title, cells)
        for title, cells in zip(titles, zip(*rows, strict=True), strict=True)
        if any(cells) and (title != "driver" or len(drivers) > 1)
    ]
    head = ["| " + " | ".join(title for title, _ in columns) + " |", "|" + "---|" * len(columns)]
    lines = zip(*(cells for _, cells in columns), strict=True)
    return "\n".join([*head, *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)])


def as_document(results: Sequence[Result], conditions: dict[str, Any]) -> dict[str, Any]:
    """Return plain values for a JSON file, with the numbers behind each cell."""
    return {"conditions": conditions, "results": [asdict(result) for result in results]}
