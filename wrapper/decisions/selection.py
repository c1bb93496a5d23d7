"""Choosing one host among several: the strategies, as pure functions.

Chance (`draw`) and the running number of round robin (`turn`) are passed in, so no state can leak between clusters. Hosts that are
equally good share by chance: many processes decide at once, and must not all decide for the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.hosts import HostAvailability, HostInfo, HostRole

RANDOM = "random"
ROUND_ROBIN = "round_robin"
WEIGHTED_RANDOM = "weighted_random"
HIGHEST_WEIGHT = "highest_weight"
LEAST_CONNECTIONS = "least_connections"
LOWEST_LOAD = "lowest_load"
HIGHEST_LOAD = "highest_load"
# What a strategy of load looks at: CPU, lag.
_LOADS = {"": (1.0, 1.0), "_by_cpu": (1.0, 0.0), "_by_lag": (0.0, 1.0)}

STRATEGIES = (
    RANDOM,
    ROUND_ROBIN,
    WEIGHTED_RANDOM,
    HIGHEST_WEIGHT,
    LEAST_CONNECTIONS,
    *(f"{name}{suffix}" for name in (LOWEST_LOAD, HIGHEST_LOAD) for suffix in _LOADS),
)

# Of a host that does not say: percent and milliseconds.
USUAL_CPU = 40.0
USUAL_LAG = 50.0

# Hosts by key, in order, each as long as its weight.
Line = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A strategy with what the parameters say of it.

    `weights`, by endpoint or instance name, and `default_weight` are for `round_robin` and `weighted_random`. The load of a host is
    `cpu_weight` per percent of CPU plus `lag_weight` per millisecond of lag.
    """

    strategy: str
    weights: Mapping[str, int] = field(default_factory=dict)
    default_weight: int = 1
    cpu_weight: float = 1.0
    lag_weight: float = 100.0

    @classmethod
    def of(cls, strategy: str, parameters: Mapping[str, Any]) -> Rule:
        """Return the rule of a strategy; parameters are values or text, those that are absent have their default.

        Raises `UnsupportedOperationError` for a strategy that is not in `STRATEGIES`.
        """
        if strategy not in STRATEGIES:
            raise UnsupportedOperationError(
                f"unknown host selection strategy {strategy!r}; expected one of {', '.join(STRATEGIES)}"
            )
        if strategy in (ROUND_ROBIN, WEIGHTED_RANDOM):
            pairs = f"{strategy}_host_weight_pairs"
            weights = parse_weights(pairs, parameters.get(pairs) or "")
            return cls(strategy, weights, int(parameters.get(f"{strategy}_default_weight") or 1))
        name = LOWEST_LOAD if strategy.startswith(LOWEST_LOAD) else HIGHEST_LOAD
        if not strategy.startswith(name):
            return cls(strategy)
        cpu, lag = _LOADS[strategy.removeprefix(name)]
        cpu_weight, lag_weight = (parameters.get(f"{name}_{figure}_weight") for figure in ("cpu", "lag"))
        return cls(
            strategy,
            cpu_weight=cpu * float(1 if cpu_weight is None else cpu_weight),
            lag_weight=lag * float(100 if lag_weight is None else lag_weight),
        )


def eligible(hosts: Sequence[HostInfo], role: HostRole | None) -> list[HostInfo]:
    """Return the available hosts of a role (None: any), in a stable order."""
    return sorted(
        (host for host in hosts if host.availability is HostAvailability.AVAILABLE and role in (None, host.role)),
        key=lambda host: (host.host, host.port),
    )


@lru_cache(maxsize=64)
def parse_weights(parameter: str, text: str) -> Mapping[str, int]:
    """Read `host:weight,…`; a host is an endpoint or an instance name. Raises `AwsWrapperError` naming the parameter."""
    weights: dict[str, int] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        host, _, weight = pair.rpartition(":")
        if not host or not weight.isdigit() or int(weight) < 1:
            raise AwsWrapperError(f"{parameter}={text!r}: {pair!r} is not host:weight with a whole weight of at least 1")
        weights[host.strip().lower()] = int(weight)
    return weights


def line_of(rule: Rule, hosts: Sequence[HostInfo]) -> Line:
    """Return the line on which hosts are as long as their weights; `hosts` in the order of `eligible`."""
    weights, default = rule.weights, rule.default_weight
    return tuple(
        (host.key, weights.get(host.host.lower()) or weights.get((host.host_id or "").lower()) or default) for host in hosts
    )


def load_of(rule: Rule, host: HostInfo) -> float:
    """Return the load of a host as the rule weighs it. Figures that nobody has told are taken for usual ones."""
    cpu = USUAL_CPU if host.cpu is None else host.cpu
    lag = USUAL_LAG if host.lag_ms is None else host.lag_ms
    return rule.cpu_weight * cpu + rule.lag_weight * lag


def choose(rule: Rule, hosts: Sequence[HostInfo], *, draw: float, turn: int = 0) -> HostInfo | None:
    """Return one of `hosts`, which are those that `eligible` returns; None when there are none.

    `draw` is a random number in [0, 1); `turn` the running number of this line for `round_robin`.
    """
    if not hosts:
        return None
    if rule.strategy == ROUND_ROBIN:
        return _at(turn, line_of(rule, hosts), hosts)
    if rule.strategy == WEIGHTED_RANDOM:
        line = line_of(rule, hosts)
        return _at(int(draw * sum(length for _, length in line)), line, hosts)
    best = hosts if rule.strategy == RANDOM else _lowest(hosts, _cost(rule))
    return best[int(draw * len(best))]


def _at(place: int, line: Line, hosts: Sequence[HostInfo]) -> HostInfo:
    place %= sum(length for _, length in line)
    for host, (_, length) in zip(hosts, line, strict=True):
        if place < length:
            return host
        place -= length
    raise AssertionError("the place lies on the line")  # pragma: no cover


def _cost(rule: Rule) -> Callable[[HostInfo], float]:
    """What a strategy wants to be as low as can be."""
    if rule.strategy == HIGHEST_WEIGHT:
        return lambda host: -host.weight
    if rule.strategy == LEAST_CONNECTIONS:
        return lambda host: host.connections
    sign = 1 if rule.strategy.startswith(LOWEST_LOAD) else -1
    return lambda host: sign * load_of(rule, host)


def _lowest(hosts: Sequence[HostInfo], cost: Callable[[HostInfo], float]) -> list[HostInfo]:
    costs = [cost(host) for host in hosts]
    lowest = min(costs)
    return [host for host, found in zip(hosts, costs, strict=True) if found == lowest]
