"""A small web application: takes orders and keeps them in Aurora PostgreSQL or Aurora MySQL.

Run it with gunicorn, any kind and number of workers, preloaded or not:

    gunicorn --workers 4 --chdir examples/web app:application

The neighbouring directories have configurations for other servers, and for Celery and multiprocessing.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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


class Connections:
    """Connections that are kept from one request to the next. A request takes an idle one or opens one, so that neither threads nor
    greenlets share a connection; one that was opened before a fork leads to a session of the child's when the child uses it."""

    def __init__(self) -> None:
        self._idle: list[Any] = []

    @contextmanager
    def take(self) -> Iterator[Any]:
        """Lend a connection for the block."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            yield connection
        finally:
            if not connection.is_closed:
                self._idle.append(connection)

    def _open(self) -> Any:
        connection = connect()
        try:
            connection.cursor().execute("CREATE TABLE IF NOT EXISTS orders (id varchar(64) PRIMARY KEY, note text)")
        except (database.IntegrityError, database.ProgrammingError):
            pass  # another worker made it at the same moment; if that was not it, the first order says so
        return connection


connections = Connections()


def place(connection: Any, key: str, text: str) -> list[str]:
    """Store an order under a key that its client made; return what happened on the way.

    A statement that was in flight when the connection was lost may have been carried out. The key makes it safe to find out:
    a second row with it is refused, which says that the first is there.
    """
    story: list[str] = []
    while True:
        try:
            connection.cursor().execute("INSERT INTO orders (id, note) VALUES (%s, %s)", (key, text))
        except FailoverFailedError:
            raise
        except database.IntegrityError:
            return story
        except FailoverError as error:
            # "not_sent": repeat freely. "unknown": repeat only because the key makes the statement safe to repeat.
            story.append(f"{type(error).__name__}({error.outcome})")
        else:
            return story


def count(connection: Any) -> int:
    """The number of orders."""
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM orders")
    return int(cursor.fetchone()[0])


def host_of(connection: Any) -> str:
    """The instance that a connection leads to."""
    host: HostInfo = connection.plugin_service.current_host_info
    return host.host_id or host.host


def handle_order(key: str, text: str) -> dict[str, Any]:
    """Place an order; return what the application answers, whatever serves it."""
    with connections.take() as connection:
        story = place(connection, key, text)
        return {"worker": os.getpid(), "key": key, "story": story, "host": host_of(connection)}


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
            answer.update(handle_order(key, query.get("text", [""])[0]))
        else:
            with connections.take() as connection:
                answer.update(orders=count(connection), host=host_of(connection))
    except database.Error as error:
        status = "503 Service Unavailable"
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = round(time.monotonic() - started, 4)
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(answer).encode() + b"\n"]
