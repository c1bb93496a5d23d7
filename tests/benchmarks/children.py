"""Worker processes as the benchmark sees them: started, listened to, and stopped by pid."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Event:
    """Something a worker reported. `at`: CLOCK_MONOTONIC seconds, by the worker's own look at the clock."""

    name: str
    at: float
    facts: Mapping[str, Any]


class ChildFailedError(Exception):
    """A worker ended, or did not report what was waited for; the text holds the end of its error output."""


class Child:
    """One worker process. `module` is a module of `tests.benchmarks.workers`."""

    def __init__(self, python: str, module: str, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self.module = module
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._ended = False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  open as long as the child
        self._process = subprocess.Popen(
            [python, "-m", f"tests.benchmarks.workers.{module}", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=_ROOT,
            env={**os.environ, **environment},
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, name=f"{module} {self.pid}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            facts = json.loads(line)
            event = Event(facts.pop("event"), facts.pop("at"), facts)
            with self._changed:
                self._events.append(event)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def events(self, name: str, since: float = 0.0) -> list[Event]:
        """Return the events of this name that happened after `since`."""
        with self._changed:
            return [event for event in self._events if event.name == name and event.at > since]

    def wait_for(
        self, name: str, timeout: float, since: float = 0.0, accept: Callable[[Event], bool] = lambda event: True
    ) -> Event | None:
        """Return the first acceptable event of this name after `since`, None when there is none within `timeout` seconds.

        Raises `ChildFailedError` when the worker ends instead.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for event in self._events:
                    if event.name == name and event.at > since and accept(event):
                        return event
                if self._ended:
                    raise ChildFailedError(f"{self.module} ended before it reported {name!r}: {self._last_words()}")
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)

    def expect(self, name: str, timeout: float, since: float = 0.0, accept: Callable[[Event], bool] = lambda event: True) -> Event:
        """As `wait_for`, but raise `ChildFailedError` when the time is over."""
        event = self.wait_for(name, timeout, since, accept)
        if event is None:
            raise ChildFailedError(f"{self.module} did not report {name!r} within {timeout:g} s: {self._last_words()}")
        return event

    def command(self, text: str) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended; who waits for its events is told so

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self, patience: float = 3.0) -> None:
        """End the process: by its own will within `patience` seconds, else by force."""
        self.command("stop")
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(5.0)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass  # an unread command
        self._errors.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "no error output"
