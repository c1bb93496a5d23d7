"""The table: what befalls which kind of cluster, and what a connection may see of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.benchmarks.moves.verdicts import DRIVERS_OWN, Right
from wrapper.testing import LocalAurora, LocalGlobalDatabase

ENGINES = ("postgresql", "mysql")
FLAVOURS = ("aurora", "multi-az", "global", "rds")
CLUSTERS = ("aurora", "multi-az", "global")
# What a connection does when the event comes: nothing (it is used again when the database is well), one statement after the other,
# or the same in a transaction. For a host that is new, connections that are opened one after the other instead.
IDLE, BUSY, IN_TRANSACTION, CONNECTING = "idle", "busy", "in transaction", "connecting"
USES = (IDLE, BUSY, IN_TRANSACTION)

# Seconds that the database takes for what it does by itself: to notice and promote, or to start again.
_PROMOTION = 1.0
_REFUSAL = 5.0

_MOVED = "FailoverSuccessError"
_BROKEN = "TransactionResolutionUnknownError"
_SENT_OR_NOT = ("not_sent", "unknown")
MOVES: Mapping[str, Right] = {
    IDLE: Right(((_MOVED, "not_sent"),)),
    BUSY: Right(tuple((_MOVED, outcome) for outcome in _SENT_OR_NOT)),
    IN_TRANSACTION: Right(tuple((_BROKEN, outcome) for outcome in _SENT_OR_NOT)),
}
# The second failover may come while the connection is between two statements, or idle in a transaction begun anew.
MOVES_TWICE: Mapping[str, Right] = {
    IDLE: MOVES[IDLE],
    BUSY: Right(MOVES[BUSY].errors, most=2),
    IN_TRANSACTION: Right(MOVES[IN_TRANSACTION].errors + MOVES[BUSY].errors, most=2),
}
NOTHING: Mapping[str, Right] = dict.fromkeys((*USES, CONNECTING), Right(least=0, most=0))
# Nowhere to go: the driver's own error, and a new connection once the host is back.
FAILS: Mapping[str, Right] = dict.fromkeys(USES, Right(((DRIVERS_OWN, None),)))


@dataclass(frozen=True, slots=True)
class Cast:
    """The lab, who is struck (the connections are there), and who has the role that they want when all is over."""

    lab: LocalAurora
    victim: str
    heir: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens. `right`: what each use of a connection may see of it. `wants`: the role that the connections want.
    `in_place`: the victim has its role again afterwards. `elsewhere`: the heir is in another region. `prepare`: what happens before
    the connections are opened."""

    name: str
    strike: Callable[[Cast], None]
    right: Mapping[str, Right]
    flavours: tuple[str, ...] = CLUSTERS
    wants: str = "writer"
    in_place: bool = False
    elsewhere: bool = False
    prepare: Callable[[Cast], None] | None = None


def right_for(event: Event, flavour: str) -> Mapping[str, Right]:
    """Return what each use of a connection may see. From a single instance there is nowhere to go."""
    return FAILS if flavour == "rds" else event.right


def cast_for(event: Event, lab: LocalAurora) -> Cast:
    """Choose who plays what."""
    writer, readers = lab.writer.id, [reader.id for reader in lab.readers]
    if event.in_place or not readers:
        return Cast(lab, writer, writer)
    if event.wants == "reader":
        # Neighbours, in a Global Database too: its readers are at home and elsewhere.
        return Cast(lab, readers[0], readers[1])
    if not isinstance(lab, LocalGlobalDatabase):
        return Cast(lab, writer, readers[0])
    near = {instance.id for instance in lab.in_region(lab.region)}
    return Cast(lab, writer, next(reader for reader in readers if (reader in near) is not event.elsewhere))


def _promote(cast: Cast, delay: float = _PROMOTION) -> None:
    cast.lab.promote_later(delay, cast.heir, rejoin=False)


def _kill_writer(cast: Cast) -> None:
    cast.lab.kill(cast.victim)
    if cast.victim == cast.heir:
        cast.lab.start(cast.heir)
    else:
        _promote(cast)


def _hang_writer(cast: Cast) -> None:
    cast.lab.hang(cast.victim)
    if cast.victim != cast.heir:
        _promote(cast)
        return
    time.sleep(_PROMOTION)
    cast.lab.kill(cast.victim)
    cast.lab.start(cast.heir)


def _restart_all(cast: Cast) -> None:
    """The writer is the last to die: a reader that had more than it could not follow it again."""
    lab, others = cast.lab, [instance.id for instance in cast.lab.instances if instance.id != cast.heir]
    for instance in (*others, cast.heir):
        lab.kill(instance)
    for instance in (cast.heir, *others):
        lab.start(instance)


def _refuse_logins(cast: Cast) -> None:
    """A promoted instance drops its sessions, so nobody gets in by one that it had."""
    cast.lab.refuse_logins(cast.heir)
    _kill_writer(cast)
    if cast.victim != cast.heir:
        cast.lab.wait_for_promotion()
    time.sleep(_REFUSAL)
    cast.lab.refuse_logins(cast.heir, False)


def _switch_over(cast: Cast) -> None:
    cast.lab.failover(cast.heir)


def _fail_over_twice(cast: Cast) -> None:
    between = next(one.id for one in cast.lab.readers if one.id != cast.heir)
    cast.lab.failover(between, rejoin=False)
    cast.lab.failover(cast.heir, rejoin=False)


def _lose_region(cast: Cast) -> None:
    assert isinstance(cast.lab, LocalGlobalDatabase)
    cast.lab.kill_region(cast.lab.region)
    _promote(cast)


EVENTS = (
    Event("writer killed", _kill_writer, MOVES, FLAVOURS),
    Event("writer hung", _hang_writer, MOVES, FLAVOURS),
    Event("planned switchover", _switch_over, MOVES),
    Event("two failovers in a row", _fail_over_twice, MOVES_TWICE),
    Event("logins refused for 5 s in the middle", _refuse_logins, MOVES, FLAVOURS),
    Event("all instances restarted at once", _restart_all, MOVES, in_place=True),
    Event("switchover to another region", _switch_over, MOVES, ("global",), elsewhere=True),
    Event("writer's region lost", _lose_region, MOVES, ("global",), elsewhere=True),
    Event("reader killed", lambda cast: cast.lab.kill(cast.victim), MOVES, wants="reader"),
    Event("reader removed", lambda cast: cast.lab.remove(cast.victim), MOVES, wants="reader"),
    Event(
        "new reader appears",
        lambda cast: cast.lab.add(cast.heir),
        NOTHING,
        wants="reader",
        prepare=lambda cast: cast.lab.remove(cast.heir),
    ),
)
