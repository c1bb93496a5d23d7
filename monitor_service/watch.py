"""`watch DSN`: a lease held by hand, for looking at a cluster without an application."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from monitor_service.client import MonitorConnection, this_client
from monitor_service.report import event_line
from wrapper.dialects import DIALECTS
from wrapper.dialects.base import InstanceTemplate
from wrapper.dialects.postgresql import DETECT_QUERY, detect
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
from wrapper.monitor.state import FROM_DIRECT, Topology, TopologyHost
from wrapper.resolver import static_address
from wrapper.urls import parse_endpoint


def watch(paths: MonitorPaths, dsn: str, interval: float, pattern: str | None, say: Callable[[str], None]) -> int:
    """Find out what the endpoint belongs to, have it watched, print its transitions until interrupted. Returns the exit code."""
    import psycopg

    try:
        request = _request(dsn, interval, pattern)
    except psycopg.Error as error:
        say(f"cannot ask the endpoint: {str(error).strip()}")
        return 1
    with MonitorConnection(paths) as connection:
        answer = connection.ask(request)
        if not isinstance(answer, Watched):
            say(f"the monitor does not watch it: {answer}")
            return 1
        say(f"watching {request.watch.key} as {answer.topic}")
        renew_at = time.monotonic() + RENEW_INTERVAL
        try:
            for event in connection.journal(idle=1.0):
                if event is not None and event.cluster == answer.topic:
                    say(event_line(event, as_json=False))
                if time.monotonic() >= renew_at:
                    renew_at = time.monotonic() + RENEW_INTERVAL
                    if isinstance(connection.ask(Renew(request.client)), UnknownLease):
                        connection.ask(request)
        finally:
            connection.ask(Release(request.client))
    return 0


def _request(dsn: str, interval: float, pattern: str | None) -> WatchRequest:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    given: dict[str, Any] = conninfo_to_dict(dsn)
    host = str(given.get("host") or "localhost")
    address = static_address(host)
    if address is not None:
        given["hostaddr"] = address
    template_text = pattern or parse_endpoint(host).template or "?"
    with psycopg.connect("", **{"connect_timeout": 5, **given}, autocommit=True) as connection:
        port = connection.info.port
        row = connection.execute(DETECT_QUERY).fetchone()
        dialect = DIALECTS[detect(row or (None, False))]
        hosts: tuple[TopologyHost, ...] = ()
        if dialect.topology_query is not None:
            rows = connection.execute(dialect.topology_query.encode()).fetchall()
            hosts = dialect.topology_hosts(rows, InstanceTemplate.parse(template_text), port)
    offered = {name: value for name, value in given.items() if name not in ("host", "hostaddr", "port", "connect_timeout")}
    return WatchRequest(
        client=this_client(),
        watch=Watch(dialect.engine, host, port),
        dialect=dialect.code,
        driver="psycopg",
        settings=Settings(interval=interval, instance_template=template_text),
        seed=Topology(hosts=hosts or (TopologyHost(host, port),), source=FROM_DIRECT, read_at=time.monotonic()),
        offer=Offer(offered),
    )
