"""What a connection saw, whether that was right, and the table of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

# Seconds that a connection may be without the role that it wants beyond the time that the database itself needed.
TOLERANCE = 0.3
# Stands for the class of an error that is not the wrapper's.
DRIVERS_OWN = "the driver's"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that raised. `error`: the class, or `DRIVERS_OWN`; `row`: the number of the row that it wrote."""

    at: float
    error: str
    outcome: str | None = None
    text: str = ""
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Right:
    """What may be seen: errors as (class, outcome), at least and at most so many of them."""

    errors: tuple[tuple[str, str | None], ...] = ()
    least: int = 1
    most: int = 1


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of one connection. `own`: seconds that the database needed until it had the role again; `without`: seconds that
    the connection was without it, None when it never was back; `stored`: rows that the table has in the end."""

    refusals: tuple[Refusal, ...]
    own: float
    without: float | None
    stored: Collection[int] = ()

    @property
    def beyond(self) -> float | None:
        """Seconds that the connection needed longer than the database."""
        return None if self.without is None else max(0.0, self.without - self.own)


def errors(right: Right, seen: Seen) -> tuple[str, ...]:
    """Return what was wrong, however long it took; nothing when all was right."""
    found = []
    count = len(seen.refusals)
    if not right.least <= count <= right.most:
        found.append(f"{count} errors, not {right.least}{f' to {right.most}' if right.most > right.least else ''}")
    for refusal in seen.refusals:
        if (refusal.error, refusal.outcome) not in right.errors:
            found.append(f"{described(refusal)}: {refusal.text}")
        if refusal.outcome == "not_sent" and refusal.row in seen.stored:
            found.append(f"row {refusal.row} was stored and said not to be sent")
    if seen.beyond is None:
        found.append("never back")
    return tuple(found)


def is_late(seen: Seen) -> bool:
    """Whether a connection was without its role for longer than it may be."""
    return seen.beyond is not None and seen.beyond > TOLERANCE


def described(refusal: Refusal) -> str:
    """Return the error and its outcome in a few words."""
    return refusal.error if refusal.outcome is None else f"{refusal.error}, {refusal.outcome}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One use of connections in one event."""

    event: str
    flavour: str
    engine: str
    use: str
    seen: Seen
    errors: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """Return `wrong`, `late`, or nothing when all is well."""
        return "wrong" if self.errors else "late" if is_late(self.seen) else ""

    @property
    def text(self) -> str:
        """Return what was seen, for how much longer than the database, and the verdict."""
        refusals = [described(refusal) for refusal in self.seen.refusals]
        counted = [
            f"{name}{f' x{number}' if number > 1 else ''}" for name in dict.fromkeys(refusals) if (number := refusals.count(name))
        ]
        beyond = "" if self.seen.beyond is None else f"+{self.seen.beyond * 1000:.0f} ms"
        return "; ".join(
            [*(counted or ["nothing"]), *([beyond] if beyond else []), *([f"**{self.verdict}**"] if self.verdict else [])]
        )


def as_markdown(cells: Iterable[Cell]) -> str:
    """Return a table with a line per event, flavour and engine."""
    lines = []
    for (event, flavour, engine), group in groupby(cells, lambda cell: (cell.event, cell.flavour, cell.engine)):
        uses = {cell.use: cell for cell in group}
        own = max(cell.seen.own for cell in uses.values())
        shown = [uses[use].text if use in uses else "" for use in _COLUMNS]
        lines.append(f"| {event} | {flavour} | {engine} | {own:.2f} s | " + " | ".join(shown) + " |")
    titles = ("event", "flavour", "engine", "the database's own", *_COLUMNS)
    return "\n".join(["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles), *lines])


_COLUMNS = ("idle", "busy", "in transaction", "connecting")


def as_text(cells: Sequence[Cell]) -> str:
    """Return a line per cell, and one per error."""
    lines = []
    for cell in cells:
        where = f"{cell.event:36} {cell.flavour:9} {cell.engine:10} {cell.use:14}"
        lines.append(f"{where} own {cell.seen.own:5.2f} s  {cell.text.replace('**', '')}")
        lines += [f"    {error}" for error in cell.errors]
    return "\n".join(lines)
