"""One cluster as the monitor sees it: members, evidence, the accepted writer, and whether the writer has to be searched for.

Pure: facts and times in; the next view and notes for people out. Who is the writer is decided by `wrapper.decisions.writer`.

Invariants: only a host's own session moves the writer; a table adds and removes members and raises suspicion; no data is never an
empty cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from monitor_service.evidence import transition, void
from wrapper.decisions.writer import Claim, WriterState, consider
from wrapper.monitor.state import FROM_MONITOR, HostHealth, Topology, TopologyHost

WRITER = "writer"
READER = "reader"
# Seconds of fast membership refresh after a search that changed something, and after a suspicion that proved wrong.
FAST_AFTER_CHANGE = 30.0
FAST_AFTER_ALARM = 2.0
# A worker that could not write, or found another role than promised, doubts the writer whatever host it talked to.
_ROLE_ERRORS = frozenset({"read_only", "wrong_role"})
# Nothing failed: a worker wants every host asked anew, and doubts none.
REFRESH = "refresh"


@dataclass(frozen=True, slots=True)
class Note:
    """A transition for the journal."""

    subject: str
    event: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """One cluster at one moment. `searching_since`: start of the panic, None when calm. `suspected_at`: the writer has to prove
    itself by a question asked after this. `alarm`: whether a writer was lost, not merely suspected or not yet found.
    `elsewhere`: members in regions that are not to be reached."""

    is_topology_aware: bool
    hosts: tuple[TopologyHost, ...]
    health: Mapping[str, HostHealth]
    writer: WriterState = field(default_factory=WriterState)
    source: str = FROM_MONITOR
    read_at: float = 0.0
    read_from: str = ""
    elsewhere: tuple[TopologyHost, ...] = ()
    table_writer: str | None = None
    suspected_at: float | None = None
    searching_since: float | None = None
    alarm: bool = False
    fast_until: float = 0.0

    @property
    def topology(self) -> Topology:
        """The value to publish."""
        return Topology(
            hosts=self.hosts,
            writer=None if is_writer_elsewhere(self) else self.writer.writer,
            term=self.writer.term,
            rank=max(self.writer.rank, 0.0),
            conflict=self.writer.conflict,
            superseded=tuple(sorted(self.writer.superseded)),
            source=self.source,
            read_at=self.read_at,
            read_from=self.read_from,
            elsewhere=self.elsewhere,
        )

    def outage(self, now: float) -> float | None:
        """Seconds since the search began, None when calm."""
        return None if self.searching_since is None else now - self.searching_since


def start(seed: Topology, keys: tuple[TopologyHost, ...], is_topology_aware: bool, now: float) -> View:
    """Return the first view of a cluster: the members a worker found, nothing proved yet."""
    return View(
        is_topology_aware=is_topology_aware,
        hosts=keys,
        health={host.key: HostHealth(key=host.key) for host in keys},
        source=seed.source,
        read_at=seed.read_at,
        read_from=seed.read_from,
        elsewhere=seed.elsewhere,
        searching_since=now if is_topology_aware else None,
    )


def on_probe(view: View, health: HostHealth, now: float, wall: float) -> tuple[View, list[Note]]:
    """Return the view after new evidence about one of its hosts."""
    before = view.health[health.key]
    notes = []
    step = transition(before, health, wall, now)
    if step is not None:
        notes.append(Note(health.key, *step))
    view = replace(view, health={**view.health, health.key: health})
    if view.suspected_at is not None and _has_proved_since(view, health, view.suspected_at):
        view = replace(view, suspected_at=None)
    view, moved = _consider(view)
    return _search(view, now, notes + moved, changed=bool(moved))


def on_table(
    view: View, hosts: tuple[TopologyHost, ...], read_from: str, now: float, elsewhere: tuple[TopologyHost, ...] = ()
) -> tuple[View, list[Note]]:
    """Return the view after the membership was read on a session of `read_from`."""
    if not hosts:
        return view, []
    if view.writer.conflict and read_from != view.writer.holder:
        # Each side may have a table of its own. Only that of the last one who was the writer beyond doubt takes members away.
        hosts += tuple(host for host in view.hosts if host.key not in {listed.key for listed in hosts})
    notes = []
    known = set(view.health)
    listed = {host.key for host in hosts}
    notes += [Note(key, "JOINED", f"listed by {read_from}") for key in sorted(listed - known)]
    notes += [Note(key, "LEFT", f"no longer listed by {read_from}") for key in sorted(known - listed)]
    table_writer = next((host.key for host in (*hosts, *elsewhere) if host.role == WRITER), None)
    view = replace(
        view,
        hosts=tuple(sorted(hosts, key=lambda host: host.key)),
        health={key: view.health.get(key) or HostHealth(key=key) for key in sorted(listed)},
        source=FROM_MONITOR,
        read_at=now,
        read_from=read_from,
        elsewhere=elsewhere,
    )
    doubted = table_writer is not None and view.writer.writer is not None and table_writer != view.writer.writer
    # Once per claim: a table that stays wrong must not keep the whole cluster awake.
    if doubted and table_writer != view.table_writer:
        notes.append(Note(view.writer.writer or "", "SUSPECTED", f"{read_from} lists {table_writer} as the writer"))
        view = replace(view, suspected_at=now)
    view, moved = _consider(replace(view, table_writer=table_writer))
    return _search(view, now, notes + moved, changed=bool(moved))


def on_report(view: View, key: str, error: str, at: float, now: float) -> tuple[View, list[Note]]:
    """Return the view after a worker's hint that its connection to host `key` failed at `at`."""
    if error == REFRESH:
        return view, []
    writer = view.writer.writer
    if error not in _ROLE_ERRORS and key != writer and view.is_topology_aware and writer is not None:
        return view, []
    first = view.suspected_at is None
    view = replace(view, suspected_at=max(at, view.suspected_at or at))
    notes = [Note(key, "REPORTED", f"a worker's connection failed ({error})")] if first else []
    return _search(view, now, notes)


def on_pause(view: View, now: float) -> View:
    """Return the view after a pause of our own: failing runs are void, and a search starts its clock anew."""
    return replace(
        view,
        health={key: void(health) for key, health in view.health.items()},
        searching_since=None if view.searching_since is None else now,
    )


def _has_proved_since(view: View, health: HostHealth, at: float) -> bool:
    if health.proved_at is None or health.proved_at <= at or health.is_failing:
        return False
    return not view.is_topology_aware or (health.key == view.writer.writer and health.role == WRITER)


def _consider(view: View) -> tuple[View, list[Note]]:
    regions = {host.key: host.region for host in view.hosts}
    claims = [
        Claim(health.key, health.rank, live=not health.is_failing, region=regions[health.key])
        for health in view.health.values()
        if health.role == WRITER
    ]
    readers = [health.key for health in view.health.values() if health.role == READER]
    before = view.writer
    after = consider(before, claims, readers)
    if after == before:
        return view, []
    view = replace(view, writer=after)
    if after.term != before.term:
        replaced = f", replaces {before.holder}" if before.holder else ""
        proof = f"term {after.term}, rank {after.rank:.3f}, proved by its own session{replaced}"
        # The new writer has proved itself: doubts about its predecessor are settled.
        return replace(view, suspected_at=None), [Note(after.writer or "", "WRITER", proof)]
    if after.conflict != before.conflict:
        if after.conflict:
            return view, [
                Note(" ".join(after.conflict), "CONFLICT", "they claim to be the writer with ranks that cannot be told apart")
            ]
        return view, [Note(after.writer or "", "WRITER", f"conflict ended, term {after.term}")]
    return view, []


def is_writer_elsewhere(view: View) -> bool:
    """Whether the cluster has its writer where it is not to be reached: a table says so, and the last one known denies to be it."""
    holder = view.health.get(view.writer.holder or "")
    return any(host.role == WRITER for host in view.elsewhere) and (holder is None or holder.role == READER)


def _is_lost(view: View) -> bool:
    if view.writer.conflict:
        return True
    writer = view.writer.writer
    if not view.is_topology_aware:
        # A lone standby is no search: there is nobody else to ask.
        return any(health.is_failing or (health.kind != "" and not health.accepting) for health in view.health.values())
    if is_writer_elsewhere(view):
        return False
    if writer is None:
        return True
    health = view.health.get(writer)
    return health is None or health.is_failing or not health.accepting or health.role != WRITER


def _search(view: View, now: float, notes: list[Note], *, changed: bool = False) -> tuple[View, list[Note]]:
    if is_writer_elsewhere(view):
        view = replace(view, suspected_at=None)  # nobody here can prove anything
    lost = _is_lost(view)
    if lost or view.suspected_at is not None:
        if view.searching_since is None:
            view = replace(view, searching_since=now)
        return replace(view, alarm=view.alarm or (lost and view.writer.term > 0)), notes
    if view.searching_since is not None:
        fast = FAST_AFTER_CHANGE if view.alarm else FAST_AFTER_ALARM
        return replace(view, searching_since=None, alarm=False, fast_until=now + fast), notes
    if changed:
        return replace(view, fast_until=now + FAST_AFTER_CHANGE), notes
    return view, notes
