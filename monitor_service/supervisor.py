"""Keeps actors running: each in a task of its own, restarted with back-off when it fails, counted and visible."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

logger = logging.getLogger(__name__)

# Seconds between restarts of one actor.
FIRST_BACKOFF = 0.1
LONGEST_BACKOFF = 5.0
# An actor that ran this long is forgiven its earlier failures.
STABLE_AFTER = 30.0
# How long a stopped actor may take to give its sessions up.
STOP_TIMEOUT = 1.0
# The same when the monitor ends.
LAST_TIMEOUT = 0.1


class Actor(Protocol):
    """Something that watches. `run` may be called again after it failed; `stop` makes it return soon."""

    name: str

    async def run(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(slots=True)
class Supervised:
    """One actor's record."""

    actor: Actor
    task: asyncio.Task[None]
    restarts: int = 0
    last_error: str = ""
    stopping: bool = False


class Supervisor:
    """Owns the tasks of all actors. `on_failure(name, error)` hears of every restart."""

    def __init__(self, on_failure: Callable[[str, str], None]) -> None:
        self.running: dict[str, Supervised] = {}
        self.restarts = 0
        self._on_failure = on_failure

    def start(self, actor: Actor) -> None:
        """Run `actor` under its name."""
        task = asyncio.get_running_loop().create_task(self._supervise(actor), name=actor.name)
        self.running[actor.name] = Supervised(actor, task)

    def stop(self, name: str) -> None:
        """Ask an actor to end; its task is reaped when it does."""
        record = self.running.pop(name, None)
        if record is None:
            return
        record.stopping = True
        record.actor.stop()
        # A driver call in progress ends when its socket is shut; cancelling is for what is left after that.
        timer = asyncio.get_running_loop().call_later(STOP_TIMEOUT, record.task.cancel)
        record.task.add_done_callback(lambda _: timer.cancel())

    async def stop_all(self) -> None:
        """Stop every actor and wait, bounded: whoever takes over waits for us."""
        tasks = {record.task for record in self.running.values()}
        for name in list(self.running):
            self.stop(name)
        if tasks:
            _, tasks = await asyncio.wait(tasks, timeout=LAST_TIMEOUT)
        # What is left is a login in progress, which may be cancelled: there is no session yet whose answer could be waited for.
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_TIMEOUT)

    async def _supervise(self, actor: Actor) -> None:
        backoff = FIRST_BACKOFF
        while True:
            began = monotonic()
            try:
                await actor.run()
                return
            except Exception as error:
                record = self.running.get(actor.name)
                if record is None or record.actor is not actor:
                    return
                if monotonic() - began > STABLE_AFTER:
                    backoff = FIRST_BACKOFF
                record.restarts += 1
                self.restarts += 1
                record.last_error = f"{type(error).__name__}: {error}"
                logger.exception("%s failed, restarts in %.1f s", actor.name, backoff)
                self._on_failure(actor.name, record.last_error)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF)
