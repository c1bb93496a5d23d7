"""Writes rows under keys of its own making and keeps account of every acknowledgement.

What fails is redone only by the rule of `FailoverError.outcome`: `not_sent` is repeated, all else looked up by its key first.
Arguments: `mode` (`autocommit`, or `transaction` for three rows at a time), `worker` (part of the key), `file` for the account.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

from tests.benchmarks.workers.connecting import connect, is_closed
from tests.benchmarks.workers.parent import arguments, listen, tell
from tests.drivers import ask, transaction

PARTS = 3
_PAUSE = 0.004
_INSERT = "INSERT INTO bench_ledger (worker, n, part) VALUES (%s, %s, %s)"


class Ledger:
    """One connection, its writes, and what was made of the failed ones."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._connection: Any = None
        self.acknowledged: list[int] = []
        self.account: Counter[str] = Counter()

    def _connected(self) -> Any:
        given = self._given
        if self._connection is None or is_closed(self._connection, given["side"], given["login"]):
            self._connection = connect(given["side"], given["login"], given["parameters"])
        return self._connection

    def _insert(self, n: int) -> None:
        connection = self._connected()
        if self._given["mode"] == "autocommit":
            ask(connection, _INSERT, (self._given["worker"], n, 0))
            return
        with transaction(connection):
            for part in range(PARTS):
                ask(connection, _INSERT, (self._given["worker"], n, part))

    def _exists(self, n: int) -> bool:
        key = (self._given["worker"], n)
        ((found,),) = ask(self._connected(), "SELECT count(*) FROM bench_ledger WHERE worker = %s AND n = %s", key)
        return bool(found)

    def write(self, n: int) -> None:
        """Have row `n` written once, whatever it takes."""
        in_doubt = False
        while True:
            try:
                if in_doubt and self._exists(n):
                    self.account["found"] += 1
                    break
                in_doubt = False
                self._insert(n)
                break
            except Exception as error:  # noqa: BLE001  every failure is handled alike: by what it says about the outcome
                outcome = getattr(error, "outcome", "unknown")
                self.account[f"{type(error).__name__} {outcome}"] += 1
                # A look-up that fails says nothing about the insert before it.
                in_doubt = in_doubt or outcome != "not_sent"
                if not hasattr(error, "outcome"):
                    time.sleep(0.02)
        self.acknowledged.append(n)


def main() -> None:
    given = arguments()
    stopping = listen()
    ledger = Ledger(given)
    n = 0
    while not stopping.is_set():
        ledger.write(n)
        n += 1
        if n == 1:
            tell("connected")
        # Once a second at most is enough to see that it goes on.
        if n % 100 == 0:
            tell("wrote", n=n)
        stopping.wait(_PAUSE)
    with open(given["file"], "w", encoding="utf-8") as file:
        json.dump({"acknowledged": ledger.acknowledged, "account": ledger.account}, file)
    tell("done", writes=n)


if __name__ == "__main__":
    main()
