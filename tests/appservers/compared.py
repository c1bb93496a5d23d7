"""A small WSGI application over either wrapper, for the comparison: environment SIDE (`ours`, `reference`), LOGIN, PARAMETERS.

With PRELOADED set it opens, uses and closes a connection while it is loaded, as an application does that keeps settings in the
database. GET /?seconds=N has the database sleep and answers how that ended.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from tests.benchmarks.workers.connecting import connect


def _open() -> Any:
    return connect(os.environ["SIDE"], json.loads(os.environ["LOGIN"]), json.loads(os.environ["PARAMETERS"]))


def _query(connection: Any, seconds: float) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT pg_sleep(%s)", (seconds,))
    cursor.fetchone()
    cursor.close()


if os.environ.get("PRELOADED"):
    early = _open()
    _query(early, 0)
    early.close()

_mine = threading.local()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer JSON: `worker`, `error` (the name of a class, or null), `seconds`."""
    seconds = float(parse_qs(environ["QUERY_STRING"]).get("seconds", ["0"])[0])
    if not hasattr(_mine, "connection"):
        _mine.connection = _open()
    began = time.monotonic()
    error = None
    try:
        _query(_mine.connection, seconds)
    except Exception as failure:  # noqa: BLE001  that is the answer
        error = type(failure).__name__
    start_response("200 OK", [("Content-Type", "application/json")])
    answer = {"worker": os.getpid(), "error": error, "seconds": time.monotonic() - began}
    return [json.dumps(answer).encode()]
