"""How a monitor runs, and how much of it one client may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wrapper.monitor.messages import LEASE_SECONDS


@dataclass(frozen=True, slots=True)
class Limits:
    """What is served at most. Whatever goes over a limit is refused by name, and counted in the status.

    `clients` and `clusters` of all; `watches` of one client; `hosts` that one watch may name; `request`: bytes of one request.
    """

    clients: int = 10_000
    clusters: int = 500
    watches: int = 64
    hosts: int = 256
    request: int = 256 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """Seconds: `linger` without leases before an on-demand monitor ends, `warm` for which a cluster without leases is still
    watched, `lease` before a silent client is forgotten.

    `group`: the group whose members share this monitor, None for its own user alone. `listen`: a `tcp://` address to serve as well,
    with the CURVE keys in `keys`.
    """

    on_demand: bool = False
    linger: float = 60.0
    warm: float = 300.0
    lease: float = LEASE_SECONDS
    group: int | None = None
    listen: str | None = None
    keys: Path | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def mode(self) -> str:
        """How it was started, as people are told."""
        return "on demand" if self.on_demand else "explicit"
