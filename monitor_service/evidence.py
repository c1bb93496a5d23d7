"""What a probe's end makes of the evidence about its host. Pure: results and times in, `HostHealth` and sentences out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from msgspec.structs import replace

from wrapper.decisions.verdict import probe_timeout
from wrapper.dialects.base import RoleAnswer
from wrapper.hosts import HostRole
from wrapper.monitor.state import ANSWERED, OURS, REFUSED, SILENT, HostHealth

# Seconds between two publications of an unchanged reader during a search.
READER_PROOF_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Probe:
    """How one probe ended. Times are CLOCK_MONOTONIC seconds; `started` is when its last question was sent.

    `accepting`: the answer came from a session that could be asked. `slow`: a login or a right is missing, so that asking faster
    would not help.
    """

    started: float
    ended: float
    kind: str
    accepting: bool = False
    answer: RoleAnswer | None = None
    address: str | None = None
    detail: str = ""
    slow: bool = False


def judge(health: HostHealth, probe: Probe, interval: float) -> HostHealth:
    """Return the evidence after a probe, `interval` being the probe interval in force.

    An answer ends the failing run whatever it says. Our own trouble is told and changes nothing else. The proof of a role is dated
    by the moment the question was sent, not by the answer: what was true then may have changed on the way.
    """
    if probe.kind == OURS:
        return replace(health, detail=probe.detail)
    if probe.kind == ANSWERED:
        proof = {}
        if probe.answer is not None:
            proof = {"role": probe.answer.role.value, "rank": probe.answer.rank, "proved_at": probe.started}
        return replace(
            health,
            last_answer=probe.ended,
            failing_since=None,
            failed_at=None,
            failures=0,
            silent=0,
            kind=ANSWERED,
            interval=interval,
            accepting=probe.accepting,
            address=probe.address or health.address,
            detail=probe.detail,
            failed_before=health.failed_at or health.failed_before,
            **proof,
        )
    return replace(
        health,
        failing_since=probe.started if health.failing_since is None else health.failing_since,
        failed_at=probe.ended,
        failures=health.failures + 1,
        silent=health.silent + 1 if probe.kind == SILENT else 0,
        kind=probe.kind,
        interval=interval,
        # A refusal closes the host to new connections at once; silence is for each connection to judge.
        accepting=health.accepting and probe.kind != REFUSED,
        address=probe.address or health.address,
        detail=probe.detail,
    )


def void(health: HostHealth) -> HostHealth:
    """Return the evidence after a pause of our own: a failing run that nobody was there to watch is void."""
    if not health.is_failing:
        return health
    return replace(health, failing_since=None, failed_at=None, failures=0, silent=0, kind="", detail="")


def has_changed(published: HostHealth, health: HostHealth) -> bool:
    """Whether anything but the mere passing of answered probes differs."""
    same = {"last_answer": None, "proved_at": None, "rank": 0.0, "connections": 0}
    return replace(published, **same) != replace(health, **same)


def is_due(published: HostHealth | None, health: HostHealth, *, hinted_at: float | None, searching: bool) -> bool:
    """Whether the evidence has to be published: it says something new, it is the first proof since a worker's hint, or somebody may
    be waiting for it because the writer is being searched for. Then every word of a writer goes out at once, and a reader's now and
    then: all workers read it, at a moment when they have other things to do."""
    if published is None or has_changed(published, health):
        return True
    if health.proved_at is None:
        return searching
    last_proof = published.proved_at or float("-inf")
    if searching and (health.role == HostRole.WRITER.value or health.proved_at - last_proof >= READER_PROOF_PAUSE):
        return True
    return hinted_at is not None and last_proof <= hinted_at < health.proved_at


def transition(before: HostHealth, after: HostHealth, wall: float, now: float) -> tuple[str, str] | None:
    """Return (event, evidence) when a person should hear of the step, else None. `wall`: seconds since the Unix epoch at `now`."""
    last = f"last answer {clock(wall - (now - after.last_answer))}" if after.last_answer is not None else "no answer yet"
    if after.kind == SILENT and after.silent and after.silent != before.silent and after.silent in (1, 3):
        probes = "1 silent probe" if after.silent == 1 else f"{after.silent} silent probes"
        event = "SILENT" if after.silent == 1 else "DOWN?"
        return event, f"{probes} of {probe_timeout(after.interval):g} s each, {last}"
    if after.kind == REFUSED and before.kind != REFUSED:
        return "REFUSED", f"{after.detail}, {last}"
    if after.kind == ANSWERED and before.is_failing:
        role = f", role {after.role}" if after.accepting else f", not accepting: {after.detail}"
        return "UP", f"answered after {before.failures} failed probes in {now - (before.failing_since or now):.1f} s{role}"
    if after.kind == ANSWERED and before.last_answer is None:
        return ("UP", f"first answer, role {after.role}") if after.accepting else ("NOT ACCEPTING", after.detail)
    if after.kind == ANSWERED and after.accepting != before.accepting:
        return ("ACCEPTING", f"role {after.role}") if after.accepting else ("NOT ACCEPTING", after.detail)
    if after.kind == ANSWERED and after.role != before.role:
        return "ROLE", f"{before.role} -> {after.role}, said by its own session"
    if after.address != before.address and before.address is not None:
        return "ADDRESS", f"{before.address} -> {after.address}"
    return None


def missing_right(detail: str, grants: str) -> str:
    """Return what to tell of a server that refused a question, `grants` being what the question needs beyond its own words."""
    return f"{detail}; grant {grants}" if grants else detail


def clock(wall: float) -> str:
    """Return a time of day in UTC, to the millisecond."""
    return datetime.fromtimestamp(wall, timezone.utc).strftime("%H:%M:%S.%f")[:-3]


def is_own_trouble(clusters: list[list[HostHealth]]) -> bool:
    """Whether silence says more about this machine than about the databases: every host of at least two clusters fell silent at
    about the same time. One cluster alone proves nothing: in a failover all its hosts may go away together."""
    mute = [hosts for hosts in clusters if hosts and all(host.silent and host.failing_since is not None for host in hosts)]
    if len(mute) < 2 or len(mute) < len([hosts for hosts in clusters if hosts]):
        return False
    since = [host.failing_since or 0.0 for hosts in mute for host in hosts]
    # Hosts are asked at different phases of their interval: together means within two of them.
    return max(since) - min(since) <= 2 * max(host.interval for hosts in mute for host in hosts)
