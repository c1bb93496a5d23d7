"""A worker whose Python never rests: how soon its client thread has the news that a host fails.

Arguments: `side`, `login`, `parameters`, `key` of the host.
"""

from __future__ import annotations

import time
from typing import Any

from tests.benchmarks.workers.connecting import connect
from tests.benchmarks.workers.parent import arguments, listen, tell
from wrapper.monitor.client_loop import ClientLoop
from wrapper.monitor.state import SharedState


def tell_of_failures(key: str) -> None:
    """Have the client thread tell, as soon as it has it, that the host with this key fails or answers again."""
    replace = ClientLoop._replace
    failing = False

    def replaced(self: ClientLoop, state: SharedState) -> None:
        nonlocal failing
        replace(self, state)
        now = time.monotonic()
        health = next((one.health[key] for one in state.clusters.values() if key in one.health), None)
        if health is not None and health.is_failing is not failing:
            failing = health.is_failing
            tell("told" if failing else "well", at=now, failed_at=health.failed_at)

    ClientLoop._replace = replaced  # type: ignore[method-assign]


def main() -> None:
    given = arguments()
    stopping = listen()
    tell_of_failures(given["key"])
    connection: Any = connect(given["side"], given["login"], given["parameters"])
    tell("connected")
    while not stopping.is_set():
        sum(range(1000))
    connection.close()


if __name__ == "__main__":
    main()
