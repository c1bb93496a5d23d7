"""Writes the tables in docs/profiles.md from the presets: `python docs/profiles.py`. A test fails when the two differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from wrapper.presets import POOL_ARGUMENTS, TABLE, Preset

PAGE = Path(__file__).with_suffix(".md")
_COLUMNS = {
    "connect": ("connect_timeout",),
    "socket": ("socket_timeout",),
    "keepalive": ("tcp_keepalive",),
    "detection time / count / interval": ("failure_detection_time_ms", "failure_detection_count", "failure_detection_interval_ms"),
    "monitor connect / socket": ("monitoring-connect_timeout", "monitoring-socket_timeout"),
}


def render(page: str) -> str:
    """Return the page with the tables that the presets give."""
    for name, lines in (("presets", _presets()), ("pool", _pool())):
        table = "\n".join(lines)
        page = re.sub(rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- end -->)", rf"\g<1>\n{table}\n\n\g<2>", page, flags=re.DOTALL)
    return page


def _presets() -> list[str]:
    head = ["preset", "pool", "sensitivity", "plugins", *_COLUMNS]
    return [_row(head), "|---" * len(head) + "|", *(_row(_cells(preset)) for preset in TABLE)]


def _cells(preset: Preset) -> list[str]:
    plugins = ", ".join(f"`{code}`" for code in preset.plugins) or "none"
    values = [
        " / ".join(_text(preset.parameters[name]) for name in names if name in preset.parameters) for names in _COLUMNS.values()
    ]
    return [f"`{preset.code}`", preset.pool, preset.sensitivity, plugins, *values]


def _text(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _pool() -> list[str]:
    return [
        _row(["QueuePool argument", "value"]),
        "|---|---|",
        *(_row([f"`{name}`", str(POOL_ARGUMENTS[name])]) for name in POOL_ARGUMENTS),
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
