"""A worker whose Python never rests: how soon it has the news that a host fails, in its client thread and in its next call.

Arguments: `side`, `login`, `parameters`, `key` of the host; `calls`: whether it makes a call after every millisecond of work, one
that needs no network; `bell`: whether it may hear the monitor's bell. Events: `told` and `well` when the process knows that the
host fails or answers again, which is its client thread's doing unless it makes calls; `acts` when the first call is over that knew
of the failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import wrapper.monitor.client_loop
from tests.benchmarks.workers.connecting import connect
from tests.benchmarks.workers.parent import arguments, listen, tell
from wrapper.monitor.client import MonitorClient
from wrapper.monitor.process import current_client
from wrapper.monitor.state import HostHealth, SharedState

WORK = 0.001


def work() -> None:
    """Compute for a millisecond."""
    end = time.monotonic() + WORK
    while time.monotonic() < end:
        sum(range(100))


def health_of(state: SharedState, key: str) -> HostHealth | None:
    return next((one.health[key] for one in state.clusters.values() if key in one.health), None)


def tell_of_failures(key: str) -> None:
    """Have the process tell, as soon as it has it, that the host with this key fails or answers again."""
    change = MonitorClient.change
    failing = False

    def changed(self: MonitorClient, step: Callable[[SharedState], SharedState]) -> None:
        nonlocal failing
        change(self, step)
        now = time.monotonic()
        health = health_of(self.state, key)
        if health is not None and health.is_failing is not failing:
            failing = health.is_failing
            tell("told" if failing else "well", at=now, failed_at=health.failed_at)

    MonitorClient.change = changed  # type: ignore[method-assign]


def main() -> None:
    given = arguments()
    stopping = listen()
    key = given["key"]
    tell_of_failures(key)
    if not given["bell"]:
        wrapper.monitor.client_loop.attach = lambda paths, epoch: None  # type: ignore[attr-defined]
    connection: Any = connect(given["side"], given["login"], given["parameters"])
    tell("connected")
    acts = False
    while not stopping.is_set():
        work()
        if given["calls"]:
            connection.cursor()
            health = health_of(current_client().state, key)
            if health is not None and health.is_failing is not acts:
                acts = health.is_failing
                if acts:
                    tell("acts")
    connection.close()


if __name__ == "__main__":
    main()
