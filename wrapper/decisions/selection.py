"""Choosing one host among several: the strategies, as pure functions.

State that a strategy needs (the last choice of round robin) is passed in and returned, so it belongs to whoever calls and
cannot leak between clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.hosts import HostAvailability, HostInfo, HostRole

STRATEGIES = ("random", "round_robin", "weighted_random", "highest_weight")


def eligible(hosts: Sequence[HostInfo], role: HostRole | None) -> list[HostInfo]:
    """Return the available hosts of a role (None: any), in a stable order."""
    return sorted(
        (host for host in hosts if host.availability is HostAvailability.AVAILABLE and role in (None, host.role)),
        key=lambda host: (host.host, host.port),
    )


def parse_weights(parameter: str, text: str) -> dict[str, int]:
    """Read `host:weight,…`; a host is an endpoint or an instance name. Raises `AwsWrapperError` naming the parameter."""
    weights: dict[str, int] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        host, _, weight = pair.rpartition(":")
        if not host or not weight.isdigit() or int(weight) < 1:
            raise AwsWrapperError(f"{parameter}={text!r}: {pair!r} is not host:weight with a whole weight of at least 1")
        weights[host.lower()] = int(weight)
    return weights


def weight_of(host: HostInfo, weights: Mapping[str, int], default: int) -> int:
    """The weight of a host, looked up by endpoint and by instance name."""
    return weights.get(host.host.lower()) or weights.get((host.host_id or "").lower()) or default


def choose(
    strategy: str,
    hosts: Sequence[HostInfo],
    role: HostRole | None,
    draw: float,
    *,
    weights: Mapping[str, int] | None = None,
    default_weight: int = 1,
    turn: int = 0,
) -> HostInfo | None:
    """Return the chosen host, None when no host is eligible.

    `draw` is a random number in [0, 1) for the random strategies, `turn` the running number for `round_robin`. Raises
    `UnsupportedOperationError` for a strategy that is not in `STRATEGIES`.
    """
    if strategy not in STRATEGIES:
        raise UnsupportedOperationError(f"unknown host selection strategy {strategy!r}; expected one of {', '.join(STRATEGIES)}")
    found = eligible(hosts, role)
    if not found:
        return None
    if strategy == "random":
        return found[int(draw * len(found))]
    if strategy == "highest_weight":
        return max(found, key=lambda host: host.weight)
    # Both remaining strategies pick a place on a line on which every host is as long as its weight.
    lengths = [weight_of(host, weights or {}, default_weight) for host in found]
    total = sum(lengths)
    place = turn % total if strategy == "round_robin" else int(draw * total)
    for host, length in zip(found, lengths, strict=True):
        if place < length:
            return host
        place -= length
    raise AssertionError("the place lies on the line")  # pragma: no cover
