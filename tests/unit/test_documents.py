"""What the documents say is what the code does."""

from __future__ import annotations

import ast
import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_parameter_table_is_the_registry() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "parameters.py"))
    assert (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8") == generator["render"](), "run: python docs/parameters.py"


def test_every_parameter_has_a_place_in_the_table() -> None:
    from wrapper.settings import SETTINGS

    page = (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8")
    for setting in SETTINGS:
        assert f"`{setting.name}`" in page


def test_links_between_the_documents_lead_somewhere() -> None:
    import re

    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_page_of_differences_is_the_list_of_cases() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "differences.py"))
    assert (ROOT / "docs" / "differences.md").read_text(encoding="utf-8") == generator["render"](), (
        "run: python docs/differences.py"
    )


def test_every_difference_is_shown_by_tests_that_exist() -> None:
    cases = json.loads((ROOT / "tests" / "spec" / "weaknesses.json").read_text(encoding="utf-8"))
    assert all(case["tests"] for case in cases)
    missing = [
        test for case in cases for test in case["tests"] if test.partition("::")[2] not in functions_in(test.partition("::")[0])
    ]
    assert missing == []


def functions_in(path: str) -> set[str]:
    """The functions at the top of a file of tests."""
    file = ROOT / path
    if not file.exists():
        return set()
    return {node.name for node in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
