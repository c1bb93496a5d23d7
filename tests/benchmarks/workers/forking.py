"""A preloading server in small: opens a connection, forks, and the child uses what it inherited.

Commands to the parent: `query` uses the parent's connection, `end` has the child end as any program does, `stop`. Child and parent
report on the same line; events of the child begin with `child_`.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from tests.benchmarks.workers.connecting import connect
from tests.benchmarks.workers.parent import arguments, next_command, tell
from tests.drivers import engine_of, one

_PAUSE = 0.01


def query(connection: Any) -> int:
    """Return the session that answers."""
    return int(one(connection, engine_of(connection).session))


def child(connection: Any) -> None:
    """Query until told to end; report what fails, and when queries are answered again."""
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    # The parent may be stopped or gone: nothing of this process may outlast the benchmark.
    signal.alarm(120)
    failing = True
    while not ended:
        began = time.monotonic()
        try:
            answered_by = query(connection)
        except Exception as error:  # noqa: BLE001  whatever it is, it is a failed query
            if not failing:
                tell("child_failed", error=type(error).__name__, began=began)
            failing = True
        else:
            if failing:
                tell("child_back", session=answered_by)
            failing = False
        time.sleep(_PAUSE)


def main() -> None:
    given = arguments()
    connection = connect(given["side"], given["login"], given["parameters"])
    tell("connected", session=query(connection))
    pid = os.fork()
    if pid == 0:
        child(connection)
        return
    tell("forked", child=pid)
    gone = False
    while (command := next_command()) != "stop":
        if command == "query":
            try:
                tell("answered", session=query(connection), error=None)
            except Exception as error:  # noqa: BLE001  that is the answer
                tell("answered", session=None, error=type(error).__name__)
        elif command == "end":
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
            gone = True
            tell("ended")
    if not gone:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
