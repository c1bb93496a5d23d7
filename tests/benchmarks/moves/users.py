"""Those who use the database while it moves, each on a thread of its own: the application's connections, and one of the driver
alone that tells when a host really has the role again."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from tests.benchmarks.moves.events import IDLE, IN_TRANSACTION
from tests.benchmarks.moves.verdicts import DRIVERS_OWN, Refusal
from tests.drivers import ask, engine_of
from wrapper import AwsWrapperError, FailoverError, FailoverSuccessError, TransactionResolutionUnknownError

_PAUSE = 0.005
_RECONNECT_PAUSE = 0.02
_PATIENCE = 20.0
# Where a connection leads: whether to a reader, and what the lab calls the host, by id or address.
_WHERE = {
    "postgresql": "SELECT pg_is_in_recovery(), host(inet_server_addr())",
    "mysql": "SELECT @@global.read_only, @@report_host",
}
# Errors after which the connection works, on another host.
_REPLACED = (FailoverSuccessError, TransactionResolutionUnknownError)
_NUMBERS = itertools.count(1)


class User:
    """A thread that does `step` again and again. `done`: when that was a success; `refusals`: what it raised instead."""

    def __init__(self, pause: float = _PAUSE) -> None:
        self.refusals: list[Refusal] = []
        self.done: list[float] = []
        self._pause = pause
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def step(self) -> bool:
        """Use the database once; whether it was what is wanted."""
        raise NotImplementedError

    def refused(self, error: Exception) -> None:
        self.refusals.append(Refusal(time.monotonic(), type(error).__name__, text=str(error)))

    def close(self) -> None:
        """Close what is open; not before `stop`."""

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self.step():
                    self.done.append(time.monotonic())
            except Exception as error:  # noqa: BLE001  whoever started this looks at it
                self.refused(error)
            self._stopping.wait(self._pause)

    def stop(self) -> None:
        """End the thread. Raises `RuntimeError` when it is stuck in a call."""
        self._stopping.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            raise RuntimeError(f"{type(self).__name__}: a call did not return within {_PATIENCE:g} s")

    def back(self, since: float) -> float | None:
        """Return when the first success after the last failure was, `since` where nothing failed; None while there is none."""
        failed = [refusal.at for refusal in self.refusals if refusal.at > since]
        if failed:
            return next((at for at in self.done if at > failed[-1]), None)
        return since if any(at > since for at in self.done) else None


class Control(User):
    """A connection of the driver alone to one host, which tells when that takes writes, or reads."""

    def __init__(self, connect: Callable[[], Any], role: str) -> None:
        super().__init__(0.002)
        self._connect = connect
        self._role = role
        self._connection: Any = None

    def step(self) -> bool:
        if self._connection is None:
            self._connection = self._connect()
        _use(self._connection, self._role, next(_NUMBERS))
        return True

    def refused(self, error: Exception) -> None:
        super().refused(error)
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it may be broken
                connection.close()


class Application(User):
    """An application with one connection, which it opens anew when that is lost for good. An idle one does nothing before
    `release`."""

    def __init__(self, connect: Callable[[], Any], role: str, use: str) -> None:
        super().__init__()
        self._connect = connect
        self._role = role
        self._use = use
        self._row: int | None = None
        self._in_transaction = False
        self._must_roll_back = False
        self._released = threading.Event()
        self.released_at = 0.0
        self.connection = connect()

    def release(self) -> None:
        """Have an idle connection be used again."""
        self.released_at = time.monotonic()
        self._released.set()

    def stop(self) -> None:
        self._released.set()
        super().stop()

    def step(self) -> bool:
        if self._use == IDLE and not self._released.wait(_PATIENCE):
            return False
        self._row = None
        if self.connection is None and not self._reopen():
            return False
        if self._use == IN_TRANSACTION:
            return self._transact()
        self._use_once()
        return True

    def _transact(self) -> bool:
        """One more statement of a transaction that never ends; after an error, a whole one."""
        if self._must_roll_back:
            self.connection.rollback()
            self._must_roll_back = False
        if not self._in_transaction:
            ask(self.connection, "BEGIN")
            self._in_transaction = True
        self._use_once()
        if self.refusals:
            ask(self.connection, "COMMIT")
            self._in_transaction = False
        return True

    def _use_once(self) -> None:
        self._row = next(_NUMBERS)
        _use(self.connection, self._role, self._row)

    def _reopen(self) -> bool:
        try:
            self.connection = self._connect()
        except Exception:  # noqa: BLE001  the host is not back yet
            self._stopping.wait(_RECONNECT_PAUSE)
            return False
        return True

    def refused(self, error: Exception) -> None:
        name = type(error).__name__ if isinstance(error, (AwsWrapperError, FailoverError)) else DRIVERS_OWN
        outcome = getattr(error, "outcome", None)
        self.refusals.append(Refusal(time.monotonic(), name, outcome, str(error), self._row))
        self._in_transaction = False
        if isinstance(error, _REPLACED):
            self._must_roll_back = True
        else:
            self.close()

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(Exception):  # it may be broken
                connection.close()


class Visitor(User):
    """An application that opens one connection after the other, until one leads to a certain host."""

    def __init__(self, connect: Callable[[], Any], names: tuple[str, ...]) -> None:
        super().__init__()
        self._connect = connect
        self._names = names

    def step(self) -> bool:
        with closing(self._connect()) as connection:
            return where(connection)[1] in self._names

    def back(self, since: float) -> float | None:
        return next((at for at in self.done if at > since), None)


def where(connection: Any) -> tuple[bool, str]:
    """Return whether a connection leads to a reader, and what the lab calls the host: by its id or address."""
    ((is_reader, name),) = ask(connection, _WHERE[engine_of(connection).name])
    return bool(is_reader), str(name)


def _use(connection: Any, role: str, number: int) -> None:
    """Use a connection for what it is there for: write a row to the writer, or find oneself on a reader."""
    if role == "writer":
        ask(connection, f"INSERT INTO moves VALUES ({number})")
    elif not where(connection)[0]:
        raise RuntimeError("this host is not a reader")
