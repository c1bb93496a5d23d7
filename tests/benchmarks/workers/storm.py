"""A worker process with many connections, each on a thread of its own that uses it all the time: a server with a full pool.

With psycopg. Arguments: `login`, `parameters`; `connections` how many; `pause` seconds between two statements of each. Reports
`moved` with the time at which its new login began, as soon as the new connection has answered.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg

from tests.benchmarks.workers.parent import arguments, listen, tell
from wrapper import AwsWrapperConnection, FailoverError


class Timed(psycopg.Connection[Any]):
    """Remembers when opening began."""

    began = 0.0

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        connection = super().connect(*args, **kwargs)
        connection.began = began
        return connection


def use(connection: Any, pause: float, stopping: threading.Event) -> None:
    while not stopping.wait(pause):
        try:
            connection.execute("SELECT 1")
        except FailoverError:
            connection.execute("SELECT 1")
            tell("moved", login=connection.began)


def _connect(given: dict[str, Any]) -> Any:
    login = {name: value for name, value in given["login"].items() if name != "driver"}
    connection = AwsWrapperConnection.connect(Timed.connect, **login, **given["parameters"])
    connection.autocommit = True
    return connection


def main() -> None:
    given = arguments()
    stopping = listen()
    connections = [_connect(given) for _ in range(given["connections"])]
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
