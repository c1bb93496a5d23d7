"""A small web application: takes orders and keeps them in Aurora PostgreSQL or Aurora MySQL.

Run it with gunicorn, any number of workers, preloaded or not:

    gunicorn --workers 4 --chdir examples/web app:application

It shows the one thing an application has to know about failover: what to do with `FailoverError.outcome`. Environment:
DATABASE_ENGINE, `postgresql` (the default) or `mysql`; DATABASE_DSN, `host=... user=...` in the driver's own words; and
DATABASE_INSTANCES (`cluster_instance_host_pattern`) where the endpoint does not say how the instances are called.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

from wrapper import FailoverError, FailoverFailedError, HostInfo

logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(process)d %(name)s: %(message)s")

is_mysql = os.environ.get("DATABASE_ENGINE", "postgresql") == "mysql"
# The wrapper's DB-API module for the driver: all that the application knows of its database is standard.
database: Any = import_module("wrapper.mysql_connector" if is_mysql else "wrapper.psycopg")


def connect() -> Any:
    """Open a connection as the environment says."""
    text = os.environ["DATABASE_DSN"]
    options: dict[str, Any] = {"autocommit": True}
    if os.environ.get("DATABASE_INSTANCES"):
        options["cluster_instance_host_pattern"] = os.environ["DATABASE_INSTANCES"]
    if is_mysql:  # mysql-connector-python takes no connection text
        return database.connect(**dict(word.split("=", 1) for word in shlex.split(text)), **options)
    return database.connect(text, **options)


class Orders:
    """The orders table, over one connection that this worker process opens when it first needs it."""

    def __init__(self) -> None:
        self._connection: Any = None

    @property
    def connection(self) -> Any:
        if self._connection is None or self._connection.is_closed:
            self._connection = connect()
            try:
                self._connection.cursor().execute("CREATE TABLE IF NOT EXISTS orders (id varchar(64) PRIMARY KEY, note text)")
            except database.IntegrityError:
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
        a second row with it is refused, which says that the first is there.
        """
        story: list[str] = []
        while True:
            try:
                self.connection.cursor().execute("INSERT INTO orders (id, note) VALUES (%s, %s)", (key, text))
            except FailoverFailedError:
                raise
            except database.IntegrityError:
                return story
            except FailoverError as error:
                # "not_sent": repeat freely. "unknown": repeat only because the key makes the statement safe to repeat.
                story.append(f"{type(error).__name__}({error.outcome})")
            else:
                return story

    def count(self) -> int:
        """The number of orders."""
        cursor = self.connection.cursor()
        cursor.execute("SELECT count(*) FROM orders")
        return int(cursor.fetchone()[0])


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
    except database.Error as error:
        status = "503 Service Unavailable"
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = round(time.monotonic() - started, 4)
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode() + b"\n"]
