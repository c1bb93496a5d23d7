"""`python -m tests.benchmarks.moves`: play the table, print what was seen."""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from collections.abc import Sequence

from tests.benchmarks.moves.events import ENGINES, EVENTS, FLAVOURS
from tests.benchmarks.moves.scene import play, stage
from tests.benchmarks.moves.verdicts import Cell, as_markdown, as_text
from wrapper.testing import LabError

# One of each kind.
_QUICK = ("writer killed", "planned switchover", "reader killed")


def main() -> int:
    """Play what the command line asks for; return the exit code: 0 when all of it was right."""
    options = _parser().parse_args()
    cells: list[Cell] = []
    broken = False
    for flavour in options.flavour:
        for engine in options.engine:
            events = [event for event in EVENTS if flavour in event.flavours and _is_wanted(event.name, options)]
            with stage(flavour, engine) as lab:
                for event in events:
                    try:
                        played = play(event, lab, flavour)
                    except (LabError, TimeoutError, RuntimeError) as error:
                        # The lab is in trouble, which must not cost the other rows.
                        print(f"{event.name}, {flavour}, {engine}: could not be played: {error}", file=sys.stderr, flush=True)
                        broken = True
                        continue
                    cells += played
                    print(as_text(played), file=sys.stderr, flush=True)
    order = [event.name for event in EVENTS]
    cells.sort(key=lambda cell: order.index(cell.event))
    print(as_markdown(cells) if options.markdown else as_text(cells))
    verdicts = [cell.verdict for cell in cells]
    conditions = f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    print(f"\n{len(cells)} connections, {verdicts.count('wrong')} wrong, {verdicts.count('late')} late; {conditions}")
    return 1 if any(verdicts) or broken else 0


def _is_wanted(name: str, options: argparse.Namespace) -> bool:
    if options.quick and name not in _QUICK:
        return False
    return not options.only or any(fnmatch.fnmatch(name, pattern) for pattern in options.only)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.moves", description="What connections see when a cluster moves."
    )
    names: Sequence[str] = [event.name for event in EVENTS]
    parser.add_argument("--only", nargs="+", metavar="EVENT", help=f"these events only, `*` is allowed: {', '.join(names)}")
    parser.add_argument("--flavour", nargs="+", choices=FLAVOURS, default=FLAVOURS)
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(_QUICK)}")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser


if __name__ == "__main__":
    sys.exit(main())
