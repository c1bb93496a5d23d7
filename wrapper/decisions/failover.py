"""What to do next in a failover: a pure plan, performed by `wrapper.plugins.failover_v2`.

The plan waits for *proof*: a host of the wanted role whose own session said so after the failure was noticed. The same host is a
legal result (a restart in place), and "the writer changed" would be the wrong condition: the state at the time of the failure still
says that the dead host is fine. One deadline covers everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from wrapper.hosts import HostRole
from wrapper.monitor.regions import region_of
from wrapper.monitor.state import FROM_MONITOR, ClusterState

# Without a proof for this long, the worker searches by itself beside the wait.
DIRECT_AFTER = 0.5
# The writer may be the first to prove itself: for this long a reader that should answer too is waited for.
READER_PATIENCE = 0.2


class FailoverMode(Enum):
    """Which host a connection may end up on: a reader of these, where the name says so before the writer, or the writer."""

    STRICT_WRITER = "strict_writer"
    STRICT_READER = "strict_reader"
    READER_OR_WRITER = "reader_or_writer"
    # In a Global Database, where a connection has a home.
    STRICT_HOME_READER = "strict_home_reader"
    STRICT_OUT_OF_HOME_READER = "strict_out_of_home_reader"
    STRICT_ANY_READER = "strict_any_reader"
    HOME_READER_OR_WRITER = "home_reader_or_writer"
    OUT_OF_HOME_READER_OR_WRITER = "out_of_home_reader_or_writer"
    ANY_READER_OR_WRITER = "any_reader_or_writer"

    @property
    def takes_writer(self) -> bool:
        return self.value.endswith("writer")

    def takes_reader(self, is_home: bool | None) -> bool:
        """Whether a reader will do. `is_home`: whether it is in the home region, None when nobody knows its region."""
        if self in _HOME:
            return is_home is True
        return is_home is False if self in _OUT_OF_HOME else self is not FailoverMode.STRICT_WRITER


_HOME = frozenset({FailoverMode.STRICT_HOME_READER, FailoverMode.HOME_READER_OR_WRITER})
_OUT_OF_HOME = frozenset({FailoverMode.STRICT_OUT_OF_HOME_READER, FailoverMode.OUT_OF_HOME_READER_OR_WRITER})


@dataclass(frozen=True, slots=True)
class Policy:
    """What a connection wants: `active` while the writer is in the region `home`, `inactive` while it is in another one."""

    active: FailoverMode
    inactive: FailoverMode
    home: str | None = None

    @classmethod
    def always(cls, mode: FailoverMode) -> Policy:
        """Return what does not depend on regions."""
        return cls(mode, mode)

    def mode(self, region: str | None) -> FailoverMode:
        """Return the mode while the writer is in `region`."""
        return self.active if region == self.home else self.inactive

    def __str__(self) -> str:
        if self.active is self.inactive:
            return self.active.value
        return f"{self.active.value} while {self.home} has the writer, else {self.inactive.value}"


# By the mode's name, what does not depend on regions.
POLICIES: Mapping[str, Policy] = {mode.value: Policy.always(mode) for mode in FailoverMode}


@dataclass(frozen=True, slots=True)
class Plan:
    """One failover. All times are CLOCK_MONOTONIC seconds.

    `since`: when the failure was noticed; only later proofs count. `started`, `deadline`: of the whole failover.
    `direct_after`: seconds without a usable proof before the worker searches itself. `attempts`: when an attempt on a host last
    failed: only a proof later than that makes it a candidate again.
    """

    policy: Policy
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


def mode_now(plan: Plan, views: Iterable[ClusterState]) -> FailoverMode | None:
    """Return the mode in force; None while it depends on where the writer is, and no writer has proved itself yet."""
    policy, views = plan.policy, list(views)
    if policy.active is policy.inactive:
        return policy.active
    proofs = [(view.writer_proved_at or 0.0, view.topology.writer) for view in views if view.topology.writer is not None]
    proved_at, writer = max(proofs, default=(0.0, ""))
    if writer and proved_at > plan.since:
        return policy.mode(region_of(writer, views))
    elsewhere = writers_region_elsewhere(views)
    return None if elsewhere is None else policy.mode(elsewhere)


def writers_region_elsewhere(views: Iterable[ClusterState]) -> str | None:
    """Return the region of a writer that is not to be reached, as the newest table names it; None when it names no such one."""
    newest = max(views, key=lambda view: view.topology.read_at, default=None)
    writer = None if newest is None or newest.topology.writer is not None else newest.topology.writer_elsewhere
    return None if writer is None else writer.region


def candidates(plan: Plan, mode: FailoverMode, views: Iterable[ClusterState]) -> list[Candidate]:
    """Return the hosts that satisfy the mode, as any of the views (the monitor's, the worker's own) proves; newest proof per
    host."""
    views = list(views)
    found: dict[str, Candidate] = {}
    for view in views:
        lonely = len(view.topology.hosts) == 1
        for key, health in view.health.items():
            proved_at = view.proved(key)
            if proved_at is None or proved_at <= max(plan.since, plan.attempts.get(key, plan.since)):
                continue
            role = HostRole.parse(health.role)
            if not _fits(mode, role, _is_home(plan.policy, key, views), lonely):
                continue
            if key not in found or found[key].proved_at < proved_at:
                found[key] = Candidate(key, role, proved_at)
    return list(found.values())


def _fits(mode: FailoverMode, role: HostRole, is_home: bool | None, lonely: bool) -> bool:
    if role is HostRole.WRITER:
        # A cluster of one host has no reader to wait for.
        return mode.takes_writer or (lonely and mode is FailoverMode.STRICT_READER)
    return role is HostRole.READER and mode.takes_reader(is_home)


def _is_home(policy: Policy, key: str, views: Sequence[ClusterState]) -> bool | None:
    if policy.home is None:
        return None
    region = region_of(key, views)
    return None if region is None else region == policy.home


def next_step(plan: Plan, views: Iterable[ClusterState], now: float) -> Step:
    """Return what to do at `now`. Readers come before the writer where both will do."""
    views = list(views)
    mode = mode_now(plan, views)
    if now >= plan.deadline:
        return GiveUp(_explain(plan, mode, views))
    elsewhere = writers_region_elsewhere(views)
    found = [] if mode is None else candidates(plan, mode, views)
    if mode is FailoverMode.STRICT_WRITER and elsewhere is not None and not found:
        return GiveUp(f"the writer is in {elsewhere}, which this connection must not or cannot reach")
    readers = tuple(candidate for candidate in found if candidate.role is HostRole.READER)
    if readers:
        return Attempt(readers)
    until = [plan.deadline]
    if found:
        if mode is None or mode is FailoverMode.STRICT_WRITER or not _expects_reader(plan, mode, views, now):
            return Attempt(tuple(found))
        until.append(plan.started + READER_PATIENCE)
    search_at = _search_at(plan, views)
    if now < search_at:
        until.append(search_at)
    return Wait(search=now >= search_at, until=min(until))


def _search_at(plan: Plan, views: Sequence[ClusterState]) -> float:
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


def _expects_reader(plan: Plan, mode: FailoverMode, views: Sequence[ClusterState], now: float) -> bool:
    """Whether a reader that was not tried and is not known to fail may prove itself any moment."""
    return now - plan.started < READER_PATIENCE and any(
        health.role == HostRole.READER.value
        and not health.is_failing
        and key not in plan.attempts
        and mode.takes_reader(_is_home(plan.policy, key, views))
        for view in views
        for key, health in view.health.items()
    )


def _explain(plan: Plan, mode: FailoverMode | None, views: Sequence[ClusterState]) -> str:
    hosts = sorted({key for view in views for key in view.health})
    conflict = sorted({key for view in views for key in view.topology.conflict})
    text = f"no {_wanted(mode)} proved itself within {plan.deadline - plan.started:g} s"
    if conflict:
        return f"{text}: {' and '.join(conflict)} both claim to be the writer"
    details = [
        f"{key} ({health.kind or 'no answer'}{': ' + health.detail if health.detail else ''})"
        for key in hosts
        for health in [next(view.health[key] for view in views if key in view.health)]
        if health.is_failing or health.detail
    ]
    return f"{text}; known hosts: {', '.join(details or hosts) or 'none'}"


def _wanted(mode: FailoverMode | None) -> str:
    if mode is None:
        return "writer (it decides which mode is in force)"
    words = mode.value.removeprefix("strict_").replace("_", " ")
    return "host" if mode in (FailoverMode.READER_OR_WRITER, FailoverMode.ANY_READER_OR_WRITER) else words
