"""Writes docs/parameters.md from the settings registry: `python docs/parameters.py`. A test fails when the two differ."""

from __future__ import annotations

from pathlib import Path

from wrapper.effects import is_planned
from wrapper.settings import MONITORING_PREFIXES, SETTINGS, Setting

PAGE = Path(__file__).with_suffix(".md")
# Owner of a parameter -> title of its part of the page, in the page's order. Plugins follow in the registry's order.
_SUBJECTS = {
    "core": "Connection and plugins",
    "network": "Network",
    "session": "Session state",
    "topology": "Topology",
    "monitor": "Shared monitor",
    "availability": "Availability of hosts",
    "selection": "Choice of a host",
    "global": "Global Database",
    "aws": "AWS",
    "telemetry": "Telemetry",
}
_TYPES = {bool: "boolean", int: "whole number", float: "number", str: "text", tuple: "list", object: "object"}

_INTRODUCTION = """\
# Connection parameters

<!-- Generated from wrapper/parameters/ by docs/parameters.py: edit there. -->

Names, units and meanings are those of the AWS Advanced Python Wrapper. Every one of its parameters is known here. Those under
[Not in this version yet](#not-in-this-version-yet), and those that say so, are accepted and checked, and have no effect: who gives
one another value than its default is told so, once in a process, by a WARNING of `wrapper.effects`.

## How values are read

* **Where.** As keyword arguments, as `name=value` in the connection text, or after the `?` of a URL. Keyword arguments win.
* **Types.** Text, numbers and booleans mean the same: `5`, `"5"` and `5.0`; `True`, `"true"`, `"on"`, `"yes"` and `1`. `None` means
  not given. A *list* is text with commas or a Python sequence of texts. An *object* can only be a keyword argument.
* **Choices.** In any case, with hyphens or underscores: `strict-writer` is `strict_writer`.
* **Several names.** A parameter with several names may be given under any one of them, but only once.
* **Errors.** A name that neither the wrapper nor the driver knows, and a value that is not allowed, are refused with an
  `AwsWrapperError` before anything is opened. It names the parameter and what is allowed, and never shows a secret.
* **The driver's share.** `user`, `password`, `host`, `port` and `database` go to the driver, as does everything that only the
  driver knows. Nothing else reaches it, except time-outs and keepalives, under the driver's own names.
* **Connection text** is read by libpq's rules. Quote values that hold blanks: `plugins='failover_v2, host_monitoring_v2'`.
* **Services and the environment** of libpq (`service=…`, `PGSERVICE`, `PGHOST` …) name the endpoint as well as `host` does. What is
  given wins over a service, a service over the environment. Connects that are made alike take a service as the first of them found
  it.
"""


def render() -> str:
    """Return the text of the page."""
    owners = dict.fromkeys([*_SUBJECTS, *(setting.plugin for setting in SETTINGS)])
    planned = [owner for owner in owners if is_planned(owner)]
    sections = [_INTRODUCTION, _prefixes(), *(_section(owner, "##") for owner in owners if owner not in planned)]
    sections += ["## Not in this version yet\n", *(_section(owner, "###") for owner in planned)]
    return "\n".join([*sections, _differences()])


def _prefixes() -> str:
    prefixes = "\n".join(f"* `{prefix}`" for prefix in MONITORING_PREFIXES)
    return (
        "## Prefixes\n\n"
        "In front of a parameter, of the wrapper or of the driver, they override it for the sessions of one kind of monitor:\n"
        f"`monitoring-user`, `topology-monitoring-connect_timeout`. The prefixes are\n\n{prefixes}\n\n"
        "Underscores work in place of the hyphens (`monitoring_user`), so that the name can be a keyword argument. None of them\n"
        "reaches the driver.\n\n"
        "Of `monitoring-` and `topology-monitoring-`, which mean the same here, the shared monitor takes the login (`user`,\n"
        "`password`, TLS) and `connect_timeout`; the session's name, options and keepalives are its own. The other prefixes wait\n"
        "for their plugins. What has no effect behind a prefix is told like any other parameter.\n"
    )


def _section(owner: str, level: str) -> str:
    codes = owner.split(", ")
    title = _SUBJECTS.get(owner) or f"{'Plugins' if len(codes) > 1 else 'Plugin'} {', '.join(f'`{code}`' for code in codes)}"
    rows = [_row(setting) for setting in SETTINGS if setting.plugin == owner]
    return "\n".join([f"{level} {title}", "", "| name | type | default | meaning |", "|---|---|---|---|", *rows, ""])


def _row(setting: Setting) -> str:
    names = " ".join(f"`{name}`" for name in (setting.name, *setting.aliases))
    bounds = [f"{sign} {bound:.9g}" for sign, bound in (("≥", setting.minimum), ("≤", setting.maximum)) if bound is not None]
    kind = ", ".join(filter(None, (_TYPES[setting.type], setting.unit, *bounds)))
    default = _default(setting) + (" [differs](#defaults-that-differ)" if setting.differs else "")
    meaning = [setting.help]
    if setting.choices:
        meaning.append(f"Allowed: {', '.join(f'`{choice}`' if choice else 'empty' for choice in setting.choices)}.")
    elif setting.form is not None:
        meaning.append(f"Allowed: {setting.form.words}.")
    if setting.idle:
        meaning.append(f"No effect: {setting.idle}.")
    if setting.secret:
        meaning.append("Secret.")
    return f"| {names} | {kind} | {default} | {' '.join(meaning)} |"


def _default(setting: Setting) -> str:
    match setting.default:
        case None | ():
            return ""
        case "":
            return "empty"
        case bool(value):
            return f"`{value}`".lower()
        case tuple(items):
            return f"`{', '.join(items)}`"
        case float(value):
            return f"`{value:g}`"
        case value:
            return f"`{value}`"


def _differences() -> str:
    rows = [f"* `{one.name}` {_default(one)}".rstrip() + f": {one.differs}." for one in SETTINGS if one.differs]
    lines = ["## Defaults that differ", "", "Defaults that are not those of the AWS Advanced Python Wrapper's code, and why.", ""]
    return "\n".join([*lines, *rows, ""])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
