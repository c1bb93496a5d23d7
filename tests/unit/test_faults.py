"""The table of faults names tests that exist, and the page is what the table says."""

from __future__ import annotations

import ast

import pytest

from tests.faults.__main__ import PAGE, ROOT, named, render, seen_last


@pytest.mark.parametrize("test", named())
def test_every_test_of_the_table_exists(test: str) -> None:
    path, _, name = test.partition("::")
    module = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


def test_the_page_is_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(seen_last()), "run: python -m tests.faults --markdown"
