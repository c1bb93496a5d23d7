"""A worker process under load: writes a row with a key of its own every few milliseconds and reports when that stops and starts.

Arguments: `side`, `login`, `parameters`; `pause` seconds between two writes; `idle` to hold the connection without using it;
`observe` to report what the process knows of its cluster (our wrapper only); `churn` to open and close another connection now and
then.
"""

from __future__ import annotations

import os
import time
from typing import Any

from tests.benchmarks.workers.connecting import OURS, connect, is_closed
from tests.benchmarks.workers.parent import arguments, listen, tell
from tests.drivers import DRIVERS, ask

# RETURNING: the server's address, and the number of the session there.
_INSERT = "INSERT INTO bench_writes (worker, n) VALUES (%s, %s) RETURNING {}, {}"
# Seconds without a write that are worth an event though no call failed.
_NOTABLE = 0.25
# Seconds before a lost connection is opened again.
_RECONNECT_PAUSE = 0.005
# Writes from one visit to the next.
_VISIT_EVERY = 20


class Writer:
    """One connection and what became of its writes."""

    def __init__(self, side: str, login: dict[str, Any], parameters: dict[str, Any]) -> None:
        self._how = (side, login, parameters)
        engine = DRIVERS[login["driver"]].engine
        self._insert = _INSERT.format(engine.server_address, engine.session)
        self._connection: Any = None
        self._failing = True
        self._last_ok = time.monotonic()
        self._writes = 0
        self._failures = 0
        self._place: tuple[str, int] | None = None

    def open(self) -> None:
        self._connection = connect(*self._how)

    def write(self) -> bool:
        """Write one row; return whether the server confirmed it. Failures are reported, the first of a run only."""
        began = time.monotonic()
        try:
            if self._connection is None:
                self.open()
            cursor = self._connection.cursor()
            cursor.execute(self._insert, (os.getpid(), self._writes + self._failures))
            place = host, session = cursor.fetchone()
            cursor.close()
        except Exception as error:  # noqa: BLE001  whatever it is, it is a failed write
            self._failed(error, began)
            return False
        now = time.monotonic()
        self._writes += 1
        if self._failing or place != self._place or now - self._last_ok > _NOTABLE:
            tell("back", now, host=host, session=session, gap=now - self._last_ok)
        self._place = place
        self._failing = False
        self._last_ok = now
        return True

    def _failed(self, error: Exception, began: float) -> None:
        self._failures += 1
        if not self._failing:
            facts: dict[str, Any] = {
                "error": type(error).__name__,
                "text": str(error)[:200],
                "outcome": getattr(error, "outcome", None),
            }
            tell("failed", began=began, **facts)
        self._failing = True
        if self._connection is not None and is_closed(self._connection, *self._how[:2]):
            self._connection = None

    @property
    def has_connection(self) -> bool:
        return self._connection is not None

    def visit(self) -> None:
        """Open another connection, use it and close it. That fails while the cluster is in trouble, which is no news."""
        try:
            visitor = connect(*self._how)
            ask(visitor, "SELECT 1")
            visitor.close()
        except Exception:  # noqa: BLE001  the writer reports what is wrong
            pass

    def finish(self) -> None:
        tell("done", writes=self._writes, failures=self._failures)
        if self._connection is not None:
            self._connection.close()


def main() -> None:
    given = arguments()
    stopping = listen()
    writer = Writer(given["side"], given["login"], given["parameters"])
    writer.open()
    if given.get("observe") and given["side"] == OURS:
        from tests.benchmarks.workers.observer import observe

        observe()
    tell("connected", pid=os.getpid())
    turns = 0
    while not stopping.is_set():
        if given.get("idle"):
            stopping.wait()
        elif writer.write():
            turns += 1
            if given.get("churn") and turns % _VISIT_EVERY == 0:
                writer.visit()
            stopping.wait(given["pause"])
        elif not writer.has_connection:
            stopping.wait(_RECONNECT_PAUSE)
    writer.finish()


if __name__ == "__main__":
    main()
