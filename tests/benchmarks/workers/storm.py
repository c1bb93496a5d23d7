"""A worker process with many connections, each on a thread of its own that uses it all the time: a server with a full pool.

Arguments: `side`, `conninfo`, `parameters`; `connections` how many; `pause` seconds between two statements of each. Reports `moved`
with the time at which a new login was complete, as soon as the new connection has answered.
"""

from __future__ import annotations

import threading
from typing import Any

from tests.benchmarks.workers.connecting import connect
from tests.benchmarks.workers.parent import arguments, listen, tell
from wrapper import FailoverError


def use(connection: Any, pause: float, stopping: threading.Event) -> None:
    while not stopping.wait(pause):
        try:
            connection.execute("SELECT 1")
        except FailoverError:
            connection.execute("SELECT 1")
            physical = connection.plugin_service.physical(connection.target_connection)
            tell("moved", login=physical.opened_at)


def main() -> None:
    given = arguments()
    stopping = listen()
    connections = [connect(given["side"], given["conninfo"], given["parameters"]) for _ in range(given["connections"])]
    threads = [threading.Thread(target=use, args=(one, given["pause"], stopping)) for one in connections]
    for thread in threads:
        thread.start()
    tell("connected")
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    main()
