"""Who is the writer? The rule for claims, shared by the monitor and by a worker that has to find out alone.

Invariant: the writer moves only on the word of a session on the claiming host itself, and never to a claim of lower rank. A host
that was stopped, superseded and resumed honestly claims to be the writer; its rank says that it is not.

`rank` is what the database itself orders claims by: the timeline (PostgreSQL), the time of the master session's row (Aurora). Where
it has nothing to order them by, all ranks are equal, and what counts is who was seen to replace whom. The regions of a Global
Database have no order between them: a region that was taken out of it is a cluster of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Claim:
    """A session on host `key` said that the host is the writer, with this rank. `live`: the host answers at present. `region`:
    where it is, in a Global Database."""

    key: str
    rank: float
    live: bool = True
    region: str = ""


@dataclass(frozen=True, slots=True)
class WriterState:
    """The accepted writer. `writer` is None before the first proof and while live claims conflict (`conflict` names them).

    `holder` remembers the last accepted writer through a conflict. `superseded` are hosts that lost the role in this run and have
    not admitted to being readers since.
    """

    writer: str | None = None
    term: int = 0
    rank: float = float("-inf")
    holder: str | None = None
    conflict: tuple[str, ...] = ()
    superseded: frozenset[str] = field(default=frozenset())


def consider(state: WriterState, claims: Iterable[Claim], readers: Iterable[str] = ()) -> WriterState:
    """Return who is the writer, given the last word of every host that claims to be it and the hosts that say they are readers.

    * the highest live rank wins; a rank below the accepted one never does, except from the accepted writer itself;
    * a superseded host of no higher rank than its successor brings nothing new: it is passed over while that one is live;
    * two other live claims of equal rank or from two regions, or a superseded host that outranks its successor while both are live,
      are a conflict: nobody is the writer until one of them stops claiming;
    * no live claim at all changes nothing: a writer is replaced, not voted out.
    """
    admitted = frozenset(readers)
    state = replace(state, superseded=state.superseded - admitted)
    live = sorted((claim for claim in claims if claim.live), key=lambda claim: claim.rank, reverse=True)
    eligible = [claim for claim in live if claim.rank >= state.rank or claim.key == state.holder]
    if not eligible:
        return state
    holder = next((claim for claim in live if claim.key == state.holder), None)
    if holder is not None:
        eligible = [claim for claim in eligible if claim.key not in state.superseded or claim.rank > holder.rank]
    best = eligible[0]
    rivals = tuple(sorted(claim.key for claim in eligible if claim.rank == best.rank))
    if len(rivals) > 1:
        return replace(state, writer=None, conflict=rivals)
    if best.key == state.holder:
        return replace(state, writer=best.key, rank=max(best.rank, state.rank), conflict=())
    if holder and (best.key in state.superseded or best.rank == state.rank or best.region != holder.region):
        return replace(state, writer=None, conflict=tuple(sorted((best.key, state.holder or ""))))
    lost = {state.holder} if state.holder is not None else set()
    return WriterState(
        writer=best.key,
        term=state.term + 1,
        rank=best.rank,
        holder=best.key,
        superseded=(state.superseded | lost) - admitted - {best.key},
    )
