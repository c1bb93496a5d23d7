"""What to do next in a failover: a pure plan, performed by `wrapper.plugins.failover_v2`.

The plan waits for *proof*: a host of the wanted role whose own session said so after the failure was noticed. The same host is a
legal result (a restart in place), and "the writer changed" would be the wrong condition: the state at the time of the failure still
says that the dead host is fine. One deadline covers everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from wrapper.hosts import HostRole
from wrapper.monitor.state import FROM_MONITOR, ClusterState

# Without a proof for this long, the worker searches by itself beside the wait.
DIRECT_AFTER = 0.5
# The writer may be the first to prove itself: for this long a reader that should answer too is waited for.
READER_PATIENCE = 0.2


class FailoverMode(Enum):
    """Which host a connection may end up on."""

    STRICT_WRITER = "strict_writer"
    STRICT_READER = "strict_reader"
    READER_OR_WRITER = "reader_or_writer"


@dataclass(frozen=True, slots=True)
class Plan:
    """One failover. All times are CLOCK_MONOTONIC seconds.

    `since`: when the failure was noticed; only later proofs count. `started`, `deadline`: of the whole failover.
    `direct_after`: seconds without a usable proof before the worker searches itself. `attempts`: when an attempt on a host last
    failed: only a proof later than that makes it a candidate again.
    """

    mode: FailoverMode
    since: float
    started: float
    deadline: float
    direct_after: float = DIRECT_AFTER
    attempts: Mapping[str, float] = field(default_factory=dict)

    def failed_at(self, key: str, now: float) -> Plan:
        """Return the plan after an attempt on a host failed: connect error, or the host denied the role it was believed to have."""
        return replace(self, attempts={**self.attempts, key: now})


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host that may be connected to, the role it proved, and when."""

    key: str
    role: HostRole
    proved_at: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """Connect to one of these hosts, which are equally good."""

    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to connect to yet: decide again when the state changes, and at `until` at the latest. `search`: have a direct search
    running meanwhile."""

    search: bool
    until: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The deadline passed; `reason` is for the error's text."""

    reason: str


Step = Attempt | Wait | GiveUp


def candidates(plan: Plan, views: Iterable[ClusterState]) -> list[Candidate]:
    """Return the hosts that satisfy the mode, as any of the views (the monitor's, the worker's own) proves; newest proof per
    host."""
    found: dict[str, Candidate] = {}
    for view in views:
        lonely = len(view.topology.hosts) == 1
        for key, health in view.health.items():
            proved_at = view.proved(key)
            if proved_at is None or proved_at <= max(plan.since, plan.attempts.get(key, plan.since)):
                continue
            role = HostRole.parse(health.role)
            if not _fits(plan.mode, role, lonely):
                continue
            if key not in found or found[key].proved_at < proved_at:
                found[key] = Candidate(key, role, proved_at)
    return list(found.values())


def _fits(mode: FailoverMode, role: HostRole, lonely: bool) -> bool:
    if mode is FailoverMode.STRICT_WRITER:
        return role is HostRole.WRITER
    if mode is FailoverMode.STRICT_READER:
        # A cluster of one host has no reader to wait for.
        return role is HostRole.READER or (lonely and role is HostRole.WRITER)
    return role in (HostRole.READER, HostRole.WRITER)


def next_step(plan: Plan, views: Iterable[ClusterState], now: float) -> Step:
    """Return what to do at `now`. Readers come before the writer in `reader_or_writer`."""
    views = list(views)
    if now >= plan.deadline:
        return GiveUp(_explain(plan, views))
    found = candidates(plan, views)
    readers = tuple(candidate for candidate in found if candidate.role is HostRole.READER)
    if readers:
        return Attempt(readers)
    until = [plan.deadline]
    if found:
        if not (plan.mode is FailoverMode.READER_OR_WRITER and _expects_reader(plan, views, now)):
            return Attempt(tuple(found))
        until.append(plan.started + READER_PATIENCE)
    search_at = _search_at(plan, views)
    if now < search_at:
        until.append(search_at)
    return Wait(search=now >= search_at, until=min(until))


def _search_at(plan: Plan, views: list[ClusterState]) -> float:
    """Return when the worker begins to search itself. Not while the monitor is visibly asking the hosts, having heard from one of
    them just now: it will know first, and a search by every process would only burden a cluster in recovery."""
    heard = [
        health.proved_at
        for view in views
        if view.topology.source == FROM_MONITOR
        for health in view.health.values()
        if health.proved_at is not None
    ]
    return max([plan.started, *heard]) + plan.direct_after if plan.direct_after > 0 else plan.started


def _expects_reader(plan: Plan, views: list[ClusterState], now: float) -> bool:
    """Whether a reader that was not tried and is not known to fail may prove itself any moment."""
    return now - plan.started < READER_PATIENCE and any(
        health.role == HostRole.READER.value and not health.is_failing and key not in plan.attempts
        for view in views
        for key, health in view.health.items()
    )


def _explain(plan: Plan, views: list[ClusterState]) -> str:
    wanted = {FailoverMode.STRICT_WRITER: "writer", FailoverMode.STRICT_READER: "reader"}.get(plan.mode, "host")
    hosts = sorted({key for view in views for key in view.health})
    conflict = sorted({key for view in views for key in view.topology.conflict})
    text = f"no {wanted} proved itself within {plan.deadline - plan.started:g} s"
    if conflict:
        return f"{text}: {' and '.join(conflict)} both claim to be the writer"
    details = [
        f"{key} ({health.kind or 'no answer'}{': ' + health.detail if health.detail else ''})"
        for key in hosts
        for health in [next(view.health[key] for view in views if key in view.health)]
        if health.is_failing or health.detail
    ]
    return f"{text}; known hosts: {', '.join(details or hosts) or 'none'}"
