"""`watch DSN`: a lease held by hand, for looking at a cluster without an application."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from monitor_service.client import MonitorConnection, this_client
from monitor_service.loop_guard import LoopGuard, guarded_loop
from monitor_service.report import event_line
from monitor_service.sessions import ProbeError, Session
from wrapper.dialects import DIALECTS, DatabaseDialect, settled
from wrapper.dialects import mysql as mysql_dialects
from wrapper.dialects import postgresql as postgresql_dialects
from wrapper.dialects.base import InstanceTemplate, detected
from wrapper.monitor.messages import (
    RENEW_INTERVAL,
    Offer,
    Release,
    Renew,
    Settings,
    UnknownLease,
    Watch,
    Watched,
    WatchRequest,
)
from wrapper.monitor.paths import MonitorPaths
from wrapper.monitor.regions import split
from wrapper.monitor.state import FROM_DIRECT, Topology, TopologyHost
from wrapper.resolver import static_address
from wrapper.urls import parse_endpoint

MYSQL_SCHEME = "mysql"
# Seconds that the endpoint has for each step.
PATIENCE = 5.0
_SWITCHES = {"true": True, "false": False}


class CannotAskError(Exception):
    """The endpoint could not be asked; the text says why."""


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """What an endpoint turned out to be, and the login values it was asked with."""

    host: str
    port: int
    dialect: DatabaseDialect
    driver: str
    login: dict[str, Any]
    rows: list[tuple[Any, ...]]


def watch(paths: MonitorPaths, dsn: str, interval: float, pattern: str | None, say: Callable[[str], None]) -> int:
    """Find out what the endpoint belongs to, have it watched, print its transitions until interrupted. Returns the exit code."""
    try:
        request = _request(dsn, interval, pattern)
    except CannotAskError as error:
        say(f"cannot ask the endpoint: {error}")
        return 1
    with MonitorConnection(paths, has_login=True) as connection:
        connection.subscribe()
        try:  # from here on there may be a lease, whenever the user interrupts
            answer = connection.ask(request)
            if not isinstance(answer, Watched):
                say(f"the monitor does not watch it: {answer}")
                return 1
            say(f"watching {request.watch.key} as {answer.topic}")
            renew_at = time.monotonic() + RENEW_INTERVAL
            for event in connection.journal(idle=1.0):
                if event is not None and event.cluster == answer.topic:
                    say(event_line(event, as_json=False))
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + RENEW_INTERVAL
                    if isinstance(connection.ask(Renew(request.client)), UnknownLease):
                        connection.ask(request)
        finally:
            with suppress(TimeoutError):  # a monitor that has ended needs no farewell
                connection.ask(Release(request.client))
    return 0


def _request(dsn: str, interval: float, pattern: str | None) -> WatchRequest:
    found = ask(dsn)
    dialect, port = found.dialect, found.port
    template = pattern or parse_endpoint(found.host).template or "?"
    hosts, elsewhere = split(dialect.topology_hosts(found.rows, InstanceTemplate.parse(template), port), ())
    return WatchRequest(
        client=this_client(),
        watch=Watch(dialect.engine, found.host, port),
        dialect=dialect.code,
        driver=found.driver,
        settings=Settings(interval=interval, instance_template=template),
        seed=Topology(
            hosts=hosts or (TopologyHost(found.host, port),), source=FROM_DIRECT, read_at=time.monotonic(), elsewhere=elsewhere
        ),
        offer=Offer(found.login),
    )


def ask(dsn: str) -> Endpoint:
    """Connect to an endpoint and find out what it is. Raises `CannotAskError`, whose text does not repeat the connection text."""
    return _ask_mysql(dsn) if dsn.startswith(f"{MYSQL_SCHEME}://") else _ask_postgresql(dsn)


def _ask_postgresql(dsn: str) -> Endpoint:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given: dict[str, Any] = conninfo_to_dict(dsn)
    except psycopg.Error:
        # libpq quotes what it cannot read, a password as well.
        raise CannotAskError("this is neither libpq's connection text nor mysql://user:password@host:port") from None
    try:
        host = str(given.get("host") or "localhost")
        address = static_address(host)
        if address is not None:
            given["hostaddr"] = address
        with psycopg.connect("", **{"connect_timeout": int(PATIENCE), **given}, autocommit=True) as connection:
            port, password = connection.info.port, connection.info.password
            dialect = DIALECTS[detected(postgresql_dialects.detection(), lambda sql: connection.execute(sql.encode()).fetchall())]
            query = dialect.topology_query
            rows = connection.execute(query.encode()).fetchall() if query is not None else []
            dialect = settled(dialect, bool(rows))
    except psycopg.Error as error:
        raise CannotAskError(str(error).strip()) from None
    login = {name: value for name, value in given.items() if name not in ("host", "hostaddr", "port", "connect_timeout")}
    if password:
        # Also one from PGPASSWORD or a password file: the monitor reads neither.
        login["password"] = password
    return Endpoint(host, port, dialect, "psycopg", login, rows)


def _ask_mysql(dsn: str) -> Endpoint:
    loop, guard = guarded_loop()
    try:
        return loop.run_until_complete(_ask_mysql_endpoint(dsn, guard))
    except ProbeError as error:
        raise CannotAskError(error.detail) from None
    except (OSError, ValueError) as error:
        raise CannotAskError(str(error)) from None
    finally:
        loop.close()


async def _detected(session: Session) -> str:
    detection = mysql_dialects.detection()
    sql = next(detection)
    while True:
        rows = await session.ask(sql, PATIENCE)
        try:
            sql = detection.send(rows)
        except StopIteration as stop:
            return str(stop.value)


async def _ask_mysql_endpoint(dsn: str, guard: LoopGuard) -> Endpoint:
    from monitor_service.sessions.mysql import Door

    url = urlsplit(dsn)
    host, port = url.hostname or "localhost", url.port or mysql_dialects.MySqlDialect.default_port
    options = {name: _SWITCHES.get(value.lower(), value) for name, value in parse_qsl(url.query)}
    login = {"user": unquote(url.username or ""), "password": unquote(url.password or ""), **options}
    found = await asyncio.get_running_loop().getaddrinfo(static_address(host) or host, port, type=socket.SOCK_STREAM)
    session = await Door(host, str(found[0][4][0]), port, guard).log_in(login, PATIENCE)
    try:
        dialect = DIALECTS[await _detected(session)]
        rows = await session.ask(dialect.topology_query, PATIENCE) if dialect.topology_query is not None else []
        dialect = settled(dialect, bool(rows))
    finally:
        session.close()
    return Endpoint(host, port, dialect, "mysql-connector-python", login, rows)
