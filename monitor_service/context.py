"""What the parts of one monitor share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from monitor_service.loop_guard import LoopGuard
from monitor_service.publisher import Publisher
from monitor_service.registry import Registry
from monitor_service.resolver import Resolver
from monitor_service.sessions.drivers import Drivers
from monitor_service.supervisor import Supervisor
from wrapper.monitor.messages import Message

if TYPE_CHECKING:
    from monitor_service.cluster import Cluster


@dataclass(slots=True)
class Context:
    """One monitor's parts.

    `tell(route, message)` sends a message to a client that did not ask. `settle()` draws the consequences of a pause of the loop,
    before anything measured across it is judged. `clusters` is keyed by topic. `refused` counts by limit.
    """

    guard: LoopGuard
    publisher: Publisher
    registry: Registry
    supervisor: Supervisor
    tell: Callable[[bytes, Message], None]
    settle: Callable[[], None]
    resolver: Resolver = field(default_factory=Resolver)
    drivers: Drivers = field(default_factory=Drivers)
    clusters: dict[str, Cluster] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
