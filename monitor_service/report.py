"""Status and events as text for people. Pure."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import msgspec

from monitor_service.logs import one_line
from wrapper.monitor.messages import Journal


def render(document: dict[str, Any]) -> str:
    """Return the status document as a page of text."""
    counters = document["counters"]
    loop = document["loop"]
    lines = [
        f"monitor {document['version']}  pid {document['pid']}  epoch {document['epoch']}  {document['mode']}  "
        f"up {duration(document['uptime'])}  in {document['directory']}",
        f"  leases {len(document['leases'])}  published {counters.get('published', 0)}  "
        f"dropped as damaged {counters.get('garbage', 0)}  actor restarts {document['restarts']}  "
        f"pauses {loop['pauses']}  longest lag {loop['longest_lag'] * 1000:.0f} ms",
    ]
    refused = {name: number for name, number in counters.items() if name.startswith("refused ")}
    if refused:
        lines.append(f"  refused: {', '.join(f'{name[8:]} {number}' for name, number in sorted(refused.items()))}")
    if document["draining"]:
        lines.append("  draining: nobody new is served")
    for cluster in document["clusters"]:
        owner = f"  of {cluster['owner']}" if document["shared"] else ""
        lines += ["", *_cluster(cluster, owner)]
    if not document["clusters"]:
        lines += ["", "no cluster is watched"]
    return "\n".join(map(one_line, lines))


def _cluster(cluster: dict[str, Any], owner: str) -> list[str]:
    writer = cluster["writer"] or (f"unknown, claimed by {' and '.join(cluster['conflict'])}" if cluster["conflict"] else "unknown")
    searching = f"  searching for {cluster['searching_for']:.1f} s" if cluster["searching_for"] is not None else ""
    lines = [
        f"{cluster['dialect']} {cluster['topic']}{owner}  writer {writer}  term {cluster['term']}{searching}",
        f"  clients {cluster['clients']}  probe sessions {cluster['probe_sessions']}  "
        f"interval {cluster['settings']['interval'] * 1000:g} ms  login offers {cluster['offers']}",
    ]
    if cluster["membership_trouble"]:
        lines.append(f"  members cannot be read: {cluster['membership_trouble']}")
    lines += [f"  watched as {watch}" for watch in cluster["watches"]]
    rows = [("HOST", "ROLE", "LAST ANSWER", "CONNECTIONS", "EVIDENCE")]
    for host in cluster["hosts"]:
        role = f"{host['role']}{' *' if host['is_writer'] else ''}"
        age = f"{duration(host['last_answer_age'])} ago" if host["last_answer_age"] is not None else "never"
        rows.append((host["key"], role, age, str(host["connections"]), host["evidence"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        lines.append(f"  {'  '.join([*cells, row[4]])}".rstrip())
    return lines


def event_line(event: Journal, *, as_json: bool) -> str:
    """Return one transition as one line."""
    if as_json:
        return json.dumps(msgspec.to_builtins(event))
    moment = datetime.fromtimestamp(event.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return one_line(f"{moment}Z  {event.subject}  {event.event}  {event.evidence}".rstrip())


def duration(seconds: float) -> str:
    """Return a span of time at the precision people want.

    >>> duration(0.25), duration(75), duration(7300)
    ('250 ms', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
