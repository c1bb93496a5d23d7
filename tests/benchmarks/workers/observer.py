"""Reports what a process knows of its cluster each time that changes, from a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import Any

from tests.benchmarks.workers.parent import tell

# Seconds; the resolution of what is reported.
_LOOK_INTERVAL = 0.001


def observe() -> None:
    """Start reporting. A `state` event holds: `live`, `epoch`, `writer`, `failing` (host keys), `confirmed`, `proved_at`."""
    threading.Thread(target=_watch, name="observer", daemon=True).start()


def _watch() -> None:
    from wrapper.monitor.process import current_client

    known: dict[str, Any] = {}
    while True:
        client = current_client()
        state = client.state
        for topic, cluster in state.clusters.items():
            facts: dict[str, Any] = {
                "live": client.is_live,
                "epoch": state.epoch,
                "writer": cluster.topology.writer,
                "failing": sorted(key for key, health in cluster.health.items() if health.is_failing),
                "confirmed": topic in state.confirmed,
            }
            if facts != known:
                known = facts
                tell("state", proved_at=cluster.writer_proved_at, **facts)
        time.sleep(_LOOK_INTERVAL)
