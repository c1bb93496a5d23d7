"""Runs psycopg's and psycopg_pool's own test suites against the wrapper: `python -m tests.conformance PATH`.

PATH is a checkout of psycopg's repository (the released archives hold no tests). The suites are copied to a temporary directory and
run on a plain local server: once with psycopg's connections, and once per plugin list with the wrapper's. What passes in the first
run and fails in another must be in `waived.py`, with the reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.conformance.waived import EXCLUDED, MODULES, WAIVERS, waiver
from wrapper.testing import LocalAurora

DEFAULT = "default"
# `slow` among psycopg's tests means seconds each.
MARKS = "not gevent and not mypy and not subprocess and not dns"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the suites: which tests passed, how the others failed (test -> pytest's text), how many were skipped."""

    passed: frozenset[str]
    failed: dict[str, str]
    skipped: int
    seconds: float

    def __str__(self) -> str:
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {self.skipped} skipped in {self.seconds:.0f} s"


def command(options: argparse.Namespace, dsn: str, report: Path) -> list[str]:
    """Return the command that runs the suites in their copy."""
    # Neither our own fixtures nor plugins that the suites do not know.
    words = [sys.executable, "-m", "pytest", "-p", "no:aws_wrapper_lab", "-q", "--tb=short"]
    words += ["--test-dsn", dsn, f"--junit-xml={report}", "-m", MARKS if options.slow else f"{MARKS} and not slow"]
    words += ["-k", f"not _async and ({options.k})" if options.k else "not _async"]
    words += [f"--deselect=tests/{test}" for test in EXCLUDED]
    return [*words, *(f"tests/{module}" for module in MODULES)]


def read(report: Path, seconds: float) -> Run:
    """Read pytest's report of a run."""
    passed, failed, skipped = set(), {}, 0
    for case in ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"
        troubles = [child for child in case if child.tag in ("failure", "error")]
        if troubles:
            failed[test] = "\n".join(f"{trouble.get('message')}\n{trouble.text}" for trouble in troubles)
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed.add(test)
    return Run(frozenset(passed), failed, skipped, seconds)


def run(options: argparse.Namespace, suite: Path, dsn: str, plugins: str | None, log: Path) -> Run:
    """Run the suites in `suite`: with psycopg's connections if `plugins` is None, else with the wrapper's."""
    environment = {**os.environ, "AWS_WRAPPER_MONITOR_DIR": str(suite / "monitor")}
    report = log.with_suffix(".xml")
    words = command(options, dsn, report)
    if plugins is not None:
        words[3:3] = ["-p", "wrapper_in_place"]
        if plugins != DEFAULT:
            environment["CONFORMANCE_PLUGINS"] = plugins
    started = time.monotonic()
    with open(log, "wb") as output:
        done = subprocess.run(words, cwd=suite, env=environment, stdout=output, stderr=output, timeout=1800, check=False)
    if done.returncode not in (0, 1) or not report.exists():
        raise SystemExit(f"the suite did not run:\n{log.read_text(errors='replace')[-4000:]}")
    return read(report, time.monotonic() - started)


def compare(plugins: str, raw: Run, ours: Run) -> tuple[bool, set[str]]:
    """Print how a run differs from psycopg's own; return whether every difference is waived, and the reasons that were needed."""
    # Some tests are skipped half-way: with psycopg before what fails with us.
    different = (raw.passed - ours.passed) | (ours.failed.keys() - raw.failed.keys())
    reasons = {test: waiver(test, ours.failed.get(test, "")) for test in sorted(different)}
    print(f"plugins={plugins}: {ours}")
    unexplained = [test for test, reason in reasons.items() if reason is None]
    needed = Counter(filter(None, reasons.values()))
    for reason, count in needed.items():
        print(f"  waived {count:2}: {reason}")
    for test in unexplained:
        print(f"  FAILED {test}")
    return not unexplained, set(needed)


def copy_suite(repository: Path, place: Path) -> Path:
    """Copy what the suites need of psycopg's repository."""
    suite = place / "suite"
    for name in ("tests", "tools"):
        shutil.copytree(repository / name, suite / name)
    shutil.copy(repository / "pyproject.toml", suite)
    shutil.copy(Path(__file__).with_name("wrapper_in_place.py"), suite)
    return suite


def main() -> int:
    """Run and compare; the exit status says whether only waived tests differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repository", type=Path, help="a checkout of psycopg's repository")
    parser.add_argument(
        "--plugins",
        action="append",
        help=f"a plugin list to run with, {DEFAULT!r} for the default one; may be repeated (default: {DEFAULT!r} and '')",
    )
    parser.add_argument("--slow", action="store_true", help="also run the tests that psycopg calls slow")
    parser.add_argument("--logs", type=Path, help="keep pytest's output in this directory")
    parser.add_argument("-k", help="run the tests that match, as pytest's -k")
    options = parser.parse_args()
    for module in ("psycopg_pool", "pproxy"):
        if importlib.util.find_spec(module) is None:
            parser.error(f"{module} is not installed: pip install -e '.[conformance]'")
    with tempfile.TemporaryDirectory(prefix="conformance-") as place, LocalAurora(instances=1, flavor="pg") as lab:
        suite = copy_suite(options.repository, Path(place))
        logs: Path = options.logs or Path(place)
        logs.mkdir(parents=True, exist_ok=True)
        dsn = lab.admin_dsn(lab.writer.id)
        raw = run(options, suite, dsn, None, logs / "psycopg.log")
        print(f"psycopg alone: {raw}", flush=True)
        try:
            lists = options.plugins or [DEFAULT, ""]
            results = [
                compare(plugins, raw, run(options, suite, dsn, plugins, logs / f"plugins-{number}.log"))
                for number, plugins in enumerate(lists)
            ]
        finally:
            subprocess.run(
                [sys.executable, "-m", "monitor_service", "stop"],
                env={**os.environ, "AWS_WRAPPER_MONITOR_DIR": str(suite / "monitor")},
                capture_output=True,
                check=False,
            )
    needless = (
        []
        if options.plugins or options.k
        else [one.reason for one in WAIVERS if not any(one.reason in need for _, need in results)]
    )
    for reason in needless:
        print(f"NEEDLESS WAIVER: {reason}")
    return 0 if all(conforms for conforms, _ in results) and not needless else 1


if __name__ == "__main__":
    sys.exit(main())
