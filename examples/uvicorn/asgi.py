"""uvicorn (or any other ASGI server) with synchronous database calls on threads:

    uvicorn --workers 2 --app-dir examples/uvicorn asgi:application     # with examples/web in PYTHONPATH

A framework does the same for endpoints that are not `async def`. Asynchronous connections are not supported yet.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from app import handle_order  # type: ignore[import-not-found]  # examples/web/app.py

import wrapper


async def _live(receive: Callable[[], Awaitable[Any]], send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """uvicorn's workers end by a signal, without `atexit`: without this, the monitor forgets one 15 s after its end."""
    while (event := (await receive())["type"]) != "lifespan.shutdown":
        await send({"type": f"{event}.complete"})
    wrapper.release_resources()
    await send({"type": f"{event}.complete"})


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """POST /?key=...&text=... places an order; the answer is JSON."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    query = parse_qs(scope["query_string"].decode())
    key = query.get("key", [str(uuid.uuid4())])[0]
    answer = await asyncio.to_thread(handle_order, key, query.get("text", [""])[0])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode() + b"\n"})
