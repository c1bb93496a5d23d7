"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OK = "ok"
NOTE = "note"
WARNING = "warning"
PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """`level`: `ok`; `note` (good to know), `warning` (works, with a drawback) or `problem` (the monitor cannot be used). `facts`:
    plain values for scripts, never a secret."""

    subject: str
    level: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)
