"""Every cell of the matrix passes the scenario."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psycopg
import pytest

from tests.appservers.cells import CELLS, Cell
from tests.appservers.scenario import play
from tests.appservers.servers import ROOT
from wrapper.testing import LocalAurora

COMMAND = "python -m tests.appservers --markdown"


def test_the_page_has_a_line_for_every_cell() -> None:
    page = (ROOT / "docs" / "app-servers.md").read_text(encoding="utf-8")
    for cell in CELLS:
        assert f"| {cell.server} | {cell.options} | {cell.monitor} | {cell.event or '-'} |" in page, f"run {COMMAND}"


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name, marks=pytest.mark.slow if cell.slow else ()) for cell in CELLS])
def test_the_wrapper_in(cell: Cell, aurora: LocalAurora, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="asm-") as directory:
        os.chmod(directory, 0o700)
        try:
            play(cell, aurora, Path(directory), tmp_path)
        finally:
            aurora.reset()
            with psycopg.connect(aurora.dsn(by_address=True)) as connection:
                connection.execute("DROP TABLE IF EXISTS orders")
