"""A worker's line to the benchmark that started it: events out on stdout, commands in on stdin."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any


def arguments() -> dict[str, Any]:
    """Return the worker's arguments, one JSON object on the command line."""
    parsed: dict[str, Any] = json.loads(sys.argv[1])
    return parsed


def tell(event: str, at: float | None = None, **facts: Any) -> None:
    """Report an event. `at` is CLOCK_MONOTONIC seconds, now by default."""
    line = json.dumps({"event": event, "at": time.monotonic() if at is None else at, **facts})
    os.write(1, line.encode() + b"\n")


def next_command() -> str:
    """Wait for a command; the end of the input is the command `stop`."""
    return sys.stdin.readline().strip() or "stop"


def listen() -> threading.Event:
    """Return an event that is set by the command `stop`. A worker whose benchmark has gone ends itself, whatever it hangs in."""
    stopping = threading.Event()

    def read() -> None:
        for line in sys.stdin:
            if line.strip() == "stop":
                stopping.set()
        os._exit(1)

    threading.Thread(target=read, name="commands", daemon=True).start()
    return stopping
