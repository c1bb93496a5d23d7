"""A small web application: takes orders and keeps them in Aurora PostgreSQL.

Run it with gunicorn, any number of workers, preloaded or not:

    gunicorn --workers 4 --chdir examples/web app:application

It shows the one thing an application has to know about failover: what to do with `FailoverError.outcome`. Environment:
DATABASE_DSN, and DATABASE_INSTANCES (`cluster_instance_host_pattern`) where the endpoint does not say how the instances are
called.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import psycopg

from wrapper import AwsWrapperConnection, FailoverError, FailoverFailedError, HostInfo

logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(process)d %(name)s: %(message)s")


class Orders:
    """The orders table, over one connection that this worker process opens when it first needs it."""

    def __init__(self) -> None:
        self._connection: Any = None

    @property
    def connection(self) -> Any:
        if self._connection is None or self._connection.closed:
            options = {}
            if os.environ.get("DATABASE_INSTANCES"):
                options["cluster_instance_host_pattern"] = os.environ["DATABASE_INSTANCES"]
            self._connection = AwsWrapperConnection.connect(
                psycopg.Connection.connect, os.environ["DATABASE_DSN"], autocommit=True, **options
            )
            try:
                self._connection.execute("CREATE TABLE IF NOT EXISTS orders (key text PRIMARY KEY, text text)")
            except psycopg.errors.UniqueViolation:
                pass  # another worker made it at the same moment
        return self._connection

    @property
    def host(self) -> str:
        """The instance that the connection leads to."""
        host: HostInfo = self.connection.plugin_service.current_host_info
        return host.host_id or host.host

    def place(self, key: str, text: str) -> list[str]:
        """Store an order under a key that its client made; return what happened on the way.

        A statement that was in flight when the connection was lost may have been carried out. The key makes it safe to find out:
        inserting it a second time does nothing.
        """
        story: list[str] = []
        while True:
            try:
                self.connection.execute("INSERT INTO orders (key, text) VALUES (%s, %s) ON CONFLICT (key) DO NOTHING", (key, text))
            except FailoverFailedError:
                raise
            except FailoverError as error:
                # "not_sent": repeat freely. "unknown": repeat only because the key makes the statement safe to repeat.
                story.append(f"{type(error).__name__}({error.outcome})")
            else:
                return story

    def count(self) -> int:
        """The number of orders."""
        return int(self.connection.execute("SELECT count(*) FROM orders").fetchone()[0])


orders = Orders()

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """GET / counts the orders, POST /?key=...&text=... places one; answers are JSON."""
    started = time.monotonic()
    answer: dict[str, Any] = {"worker": os.getpid()}
    status = "200 OK"
    try:
        if environ["REQUEST_METHOD"] == "POST":
            query = parse_qs(environ["QUERY_STRING"])
            key = query.get("key", [str(uuid.uuid4())])[0]
            answer["story"] = orders.place(key, query.get("text", [""])[0])
            answer["key"] = key
        else:
            answer["orders"] = orders.count()
        answer["host"] = orders.host
    except psycopg.Error as error:
        status = "503 Service Unavailable"
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = round(time.monotonic() - started, 4)
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode() + b"\n"]
