"""Writes docs/parameters.md from the settings registry: `python docs/parameters.py`. A test fails when the two differ."""

from __future__ import annotations

from pathlib import Path

from wrapper.settings import MONITORING_PREFIXES, SETTINGS, Setting

PAGE = Path(__file__).with_suffix(".md")
_PLACES = {
    "core": "Core",
    "driver": "Network",
    "topology": "Topology",
    "failover_v2": "Plugin `failover_v2`",
    "host_monitoring_v2": "Plugin `host_monitoring_v2`",
    "selection": "Choice of a host",
    "monitor": "Shared monitor",
}


def render() -> str:
    """Return the text of the page."""
    lines = [
        "# Connection parameters",
        "",
        "<!-- Generated from wrapper/settings.py by docs/parameters.py: edit there. -->",
        "",
        "Give them as keyword arguments, in the connection text or in the URL; text, numbers and booleans mean the same.",
        "Names and meanings are those of the AWS Advanced Python Wrapper. Where a default differs, the reason is given.",
        "A name that neither the wrapper nor the driver knows, and a value that is not allowed, are refused before anything is",
        "opened.",
        "",
    ]
    for plugin, title in _PLACES.items():
        lines += [f"## {title}", "", "| name | type | default | allowed | meaning |", "|---|---|---|---|---|"]
        lines += [_row(setting) for setting in SETTINGS if setting.plugin == plugin]
        lines.append("")
    prefixes = ", ".join(f"`{prefix}`" for prefix in MONITORING_PREFIXES)
    lines += [
        "## Prefixes",
        "",
        f"{prefixes} in front of a parameter override it for the sessions of one kind of monitor, for example",
        "`monitoring-user`. Underscores work in place of the hyphens, so that the name can be a keyword argument. None of them",
        "reaches the driver.",
        "",
    ]
    return "\n".join(lines)


def _row(setting: Setting) -> str:
    names = " ".join(f"`{name}`" for name in (setting.name, *setting.aliases))
    unit = f" ({setting.unit})" if setting.unit else ""
    default = "" if setting.default is None else f"`{setting.default}`" if setting.default != "" else "empty"
    allowed = ", ".join(f"`{choice}`" for choice in setting.choices)
    if setting.minimum is not None:
        allowed = f"≥ {setting.minimum:g}"
    text = setting.help + (f" *Differs: {setting.differs}.*" if setting.differs else "")
    return f"| {names} | {setting.type.__name__}{unit} | {default} | {allowed} | {text} |"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
