"""`doctor`: what would be used and why, and what is wrong with it. The checks are in `checks`; here they are gathered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from monitor_service.checks import database, machine, meeting
from monitor_service.checks.finding import PROBLEM, Finding

_MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", PROBLEM: "PROBLEM"}


def examine(directory: Path | None, dsn: str | None) -> list[Finding]:
    """Run every check; only with a `dsn` is anything connected to."""
    before = machine.read_clocks()
    findings = [
        *database.packages(),
        *meeting.directories(directory),
        *meeting.running(directory),
        *database.credentials(dsn),
        *machine.limits(),
        *machine.keepalive(),
        *database.abortability(),
    ]
    if dsn is not None:
        findings += database.endpoint(dsn)
    return [*findings, *machine.clock(before)]


def has_problems(findings: Iterable[Finding]) -> bool:
    """Whether something keeps the monitor from being used."""
    return any(finding.level == PROBLEM for finding in findings)


def as_document(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as plain values."""
    return {
        "ok": not has_problems(findings),
        "findings": [{"subject": one.subject, "level": one.level, "text": one.text, "facts": one.facts} for one in findings],
    }


def as_text(findings: list[Finding]) -> str:
    """Return the findings as lines, subject by subject."""
    return "\n".join(_lines(findings))


def _lines(findings: list[Finding]) -> Iterator[str]:
    subject = ""
    for finding in findings:
        if finding.subject != subject:
            subject = finding.subject
            yield subject
        yield f"  {_MARKS[finding.level]:<8} {finding.text}"
    problems = sum(finding.level == PROBLEM for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    yield f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}"
