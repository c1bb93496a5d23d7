"""The examples of docs/lab.md do what the page says."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

from wrapper.testing import LocalAurora
from wrapper.testing.__main__ import _parser

PAGE = (Path(__file__).parents[2] / "docs" / "lab.md").read_text(encoding="utf-8")


def test_the_examples_run(tmp_path: Path) -> None:
    """The first as a test of somebody else's, the others as programs."""
    first, *others = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "test_example.py").write_text(first)
    for number, code in enumerate(others):
        (tmp_path / f"test_program_{number}.py").write_text("def test_it():\n" + re.sub("(?m)^", "    ", code))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    with_monitor = {**os.environ, "AWS_WRAPPER_MONITOR_DIR": str(tmp_path / "m")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path, env=with_monitor)
        assert f"{1 + len(others)} passed" in done.stdout, done.stdout + done.stderr
    finally:
        stop = [sys.executable, "-m", "monitor_service", "stop"]
        subprocess.run(stop, capture_output=True, timeout=30, check=False, env=with_monitor)


def test_every_argument_and_command_is_there() -> None:
    arguments = set(inspect.signature(LocalAurora).parameters)
    assert set(re.findall(r"(?m)^\| `(\w+)` \|", PAGE)) == arguments
    methods = {name for name in re.findall(r"`(\w+)\((?:instance|target|delay|direct|\))", PAGE) if not name.startswith("aurora_")}
    assert len(methods) > 12
    for method in methods:
        assert callable(getattr(LocalAurora, method)), method


def test_every_command_line_is_understood() -> None:
    lines = re.findall(r"python -m wrapper\.testing ([^#\n\")]+)", PAGE)
    assert len(lines) >= 7
    for line in lines:
        _parser().parse_args(line.split())
