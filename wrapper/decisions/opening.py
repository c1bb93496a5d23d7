"""Where a connection to a cluster's endpoint is to lead, and what to try next until it does.

A name says what is wanted, a host what it is. Every place (an instance, or the endpoint by its name) is tried at most once per
interval, and a place that becomes known meanwhile at once; so a cluster that refuses everybody is not run against in a loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostAvailability, HostInfo, HostRole
from wrapper.monitor.state import ClusterState
from wrapper.urls import Endpoint, EndpointKind, parse_endpoint

# The place that is the endpoint itself, by its name.
ENDPOINT = ""

_ROLES = {"writer": HostRole.WRITER, "reader": HostRole.READER, "any": HostRole.UNKNOWN, "none": None}
# What a kind of endpoint cannot be asked for, and why.
_WRITERS_ONLY = frozenset({EndpointKind.WRITER_CLUSTER, EndpointKind.GLOBAL_CLUSTER})
_NO_WRITERS = frozenset({EndpointKind.READER_CLUSTER, EndpointKind.CUSTOM_CLUSTER})


@dataclass(frozen=True, slots=True)
class Aim:
    """`substitute`: role of the instance to connect to in the endpoint's place (`UNKNOWN`: any), None to keep the endpoint.
    `verify`: role that the connection must have, None for whatever it has."""

    substitute: HostRole | None = None
    verify: HostRole | None = None


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user said of it, in the parameters' words; None: by the endpoint. The `inactive` ones are for the writer endpoint of
    a region that has no writer."""

    substitute: str | None = None
    verify: str | None = None
    inactive_substitute: str = "writer"
    inactive_verify: str = "writer"

    def check(self, kind: EndpointKind) -> None:
        """Raise `AwsWrapperError` for what an endpoint of this kind cannot be."""
        for name, value in (("endpoint_substitution_role", self.substitute), ("verify_opened_connection_type", self.verify)):
            if value is None or value == "none":
                continue
            impossible = (
                (value == "writer" and kind in _NO_WRITERS)
                or (value == "reader" and kind in _WRITERS_ONLY)
                or (value == "any" and kind is not EndpointKind.CUSTOM_CLUSTER)
                or (name == "endpoint_substitution_role" and kind is EndpointKind.INSTANCE)
            )
            if impossible:
                raise AwsWrapperError(
                    f"{name}={value!r} does not go with a {kind.value} endpoint: leave it out, or connect elsewhere"
                )


def aim_of(endpoint: Endpoint, choices: Choices, hosts: Sequence[HostInfo], *, is_initial: bool) -> Aim:
    """Return where a connect to an endpoint should lead. `hosts`: the members as they are known. What the user chose is about the
    initial connection; others go by the endpoint alone."""
    substitute = verify = endpoint.role
    if endpoint.kind is EndpointKind.WRITER_CLUSTER and _is_inactive(endpoint, hosts):
        substitute, verify = _ROLES[choices.inactive_substitute], _ROLES[choices.inactive_verify]
    if is_initial:
        substitute = substitute if choices.substitute is None else _ROLES[choices.substitute]
        verify = verify if choices.verify is None else _ROLES[choices.verify]
    return _aim(substitute, verify)


_aim = cache(Aim)


def _is_inactive(endpoint: Endpoint, hosts: Sequence[HostInfo]) -> bool:
    regions = [parse_endpoint(host.host).region for host in _writers(hosts)]
    return bool(regions) and endpoint.region not in regions and None not in regions


def _writers(hosts: Iterable[HostInfo]) -> list[HostInfo]:
    return [host for host in hosts if host.role is HostRole.WRITER and parse_endpoint(host.host).is_one_host]


def candidates(aim: Aim, region: str | None, hosts: Iterable[HostInfo]) -> list[HostInfo]:
    """Return the instances that may take the endpoint's place. Readers come from the endpoint's own region, and only those that are
    worth a try; of a writer there is just the one."""
    if aim.substitute is None:
        return []
    if aim.substitute is HostRole.WRITER:
        return _writers(hosts)
    return [
        host
        for host in hosts
        if host.availability is HostAvailability.AVAILABLE
        and aim.substitute in (HostRole.UNKNOWN, host.role)
        and parse_endpoint(host.host).is_one_host
        and (region is None or parse_endpoint(host.host).region in (None, region))
    ]


def is_right(aim: Aim, role: HostRole, hosts: Iterable[HostInfo]) -> bool:
    """Whether a connection to a host of this role is what is wanted. A cluster without readers has only its writer to offer."""
    if aim.verify is None or role is aim.verify:
        return True
    return aim.verify is HostRole.READER and not any(host.role is HostRole.READER for host in hosts)


def is_doubted(key: str, views: Iterable[ClusterState]) -> bool:
    """Whether somebody else is known as the writer, so that the claim of this host has to be ranked."""
    return not {view.topology.writer for view in views} <= {None, key}


def is_outranked(key: str, rank: float, views: Iterable[ClusterState]) -> bool:
    """Whether the claim of a host to be the writer is worth less than another's: it was stopped, replaced and resumed."""
    return any(view.topology.writer not in (None, key) and view.topology.rank > rank for view in views)


# -- one step after the other ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """The attempts to open one connection. Times are CLOCK_MONOTONIC seconds; `failures`: when a place was last tried in vain."""

    aim: Aim
    region: str | None
    deadline: float
    interval: float
    failures: Mapping[str, float] = field(default_factory=dict)

    def failed_at(self, place: str, now: float) -> Opening:
        """Return what follows after a place was tried in vain."""
        return replace(self, failures={**self.failures, place: now})

    def retry_at(self, place: str) -> float:
        """Return when a place may be tried again."""
        return self.failures.get(place, float("-inf")) + self.interval


@dataclass(frozen=True, slots=True)
class Attempt:
    """Connect to one of these hosts; to the endpoint itself when there are none."""

    hosts: tuple[HostInfo, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Everything was tried: decide again when something becomes known, and at `until` at the latest."""

    until: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The time is over."""


def first_step(aim: Aim, region: str | None, hosts: Iterable[HostInfo]) -> Attempt:
    """Return what to do first: something is tried in any case."""
    return Attempt(tuple(candidates(aim, region, hosts)))


def next_step(opening: Opening, hosts: Sequence[HostInfo], now: float) -> Attempt | Wait | GiveUp:
    """Return what to do at `now`, after a failure: instances first, then the endpoint's name."""
    if now >= opening.deadline:
        return GiveUp()
    known = candidates(opening.aim, opening.region, hosts)
    due = tuple(host for host in known if now >= opening.retry_at(host.key))
    if due or now >= opening.retry_at(ENDPOINT):
        return Attempt(due)
    return Wait(min(opening.deadline, *(opening.retry_at(place) for place in (ENDPOINT, *(host.key for host in known)))))
