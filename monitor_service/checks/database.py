"""Packages, logins, and what an endpoint is."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import zmq

from monitor_service.checks.finding import NOTE, OK, PROBLEM, WARNING, Finding
from wrapper.version import __version__

PACKAGES = "packages"
CREDENTIALS = "credentials"
ENDPOINT = "endpoint"
MYSQL = "mysql"
# Seconds that the trial of a driver may take.
PATIENCE = 1.0


def packages() -> Iterator[Finding]:
    """Tell which versions are in use, and what they cannot do."""
    facts = {"aws-shared-monitor-wrapper": __version__, "python": platform.python_version(), "libzmq": zmq.zmq_version()}
    for name in ("pyzmq", "msgspec", "psycopg", "mysql-connector-python"):
        found = _version(name)
        if found is not None:
            facts[name] = found
    yield Finding(PACKAGES, OK, ", ".join(f"{name} {value}" for name, value in facts.items()), facts)
    if not zmq.has("ipc"):
        yield Finding(PACKAGES, PROBLEM, "this libzmq was built without ipc://, by which workers and monitor meet")
    if not zmq.has("curve"):
        yield Finding(PACKAGES, NOTE, "this libzmq was built without CURVE: a monitor cannot be reached over TCP")
    if "psycopg" not in facts:
        text = "psycopg is not installed: a monitor of this environment watches no PostgreSQL"
        yield Finding(PACKAGES, NOTE if "mysql-connector-python" in facts else WARNING, text)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def credentials(dsn: str | None) -> Iterator[Finding]:
    """Tell where the logins of probe sessions come from. Values are never shown."""
    yield Finding(CREDENTIALS, OK, "the monitor logs in with what each connection offers it, and keeps that in memory alone")
    environment = sorted(name for name in os.environ if name.startswith("PG"))
    if environment:
        text = f"{', '.join(environment)}: resolved by your workers when they connect; the monitor forgets its own"
        yield Finding(CREDENTIALS, NOTE, text, {"environment": environment})
    if dsn is not None:
        source = _source_of_password(dsn)
        if source is not None:  # what is wrong with a text that cannot be read is told where it is used
            yield Finding(CREDENTIALS, OK, f"the endpoint's password comes from {source}", {"password": source})


def _source_of_password(dsn: str) -> str | None:
    if dsn.startswith("mysql://"):
        return "the address given" if _has_password(dsn) else "nowhere: none is given"
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(dsn)
    except psycopg.Error:
        return None
    if given.get("password"):
        return "the connection text"
    if os.environ.get("PGPASSWORD"):
        return "PGPASSWORD"
    passfile = Path(str(given.get("passfile") or os.environ.get("PGPASSFILE") or Path.home() / ".pgpass"))
    if os.path.exists(passfile):  # Path.exists raises where a directory above may not be entered
        return f"{passfile}, if a line of it fits"
    return f"the service {given['service']!r}, if it has one" if given.get("service") else "nowhere: none is given"


def _has_password(dsn: str) -> bool:
    try:
        return urlsplit(dsn).password is not None
    except ValueError:
        return False


def endpoint(dsn: str) -> Iterator[Finding]:
    """Connect, and tell what the endpoint is and who belongs to it."""
    from monitor_service.watch import CannotAskError, ask
    from wrapper.dialects.base import InstanceTemplate
    from wrapper.urls import parse_endpoint

    try:
        found = ask(dsn)
    except CannotAskError as error:
        yield Finding(ENDPOINT, PROBLEM, f"cannot be asked: {error}")
        return
    template = parse_endpoint(found.host).template
    hosts = found.dialect.topology_hosts(found.rows, InstanceTemplate.parse(template or "?"), found.port)
    facts = {"host": found.host, "port": found.port, "dialect": found.dialect.code, "hosts": [host.key for host in hosts]}
    yield Finding(ENDPOINT, OK, f"{found.host}:{found.port} is {found.dialect.code}", facts)
    if hosts:
        yield Finding(ENDPOINT, OK, f"its members are {', '.join(host.key for host in hosts)}")
        if template is None:
            text = (
                "the endpoint's name does not tell how its members are called: set cluster_instance_host_pattern (here: --pattern)"
            )
            yield Finding(ENDPOINT, WARNING, text)
    elif found.dialect.is_topology_aware:
        yield Finding(ENDPOINT, WARNING, "its list of members is empty")


def abortability() -> Iterator[Finding]:
    """Tell whether a blocked call of the MySQL driver could be ended."""
    if _version("mysql-connector-python") is None:
        return
    from mysql.connector import HAVE_CEXT

    if not HAVE_CEXT:
        yield Finding(MYSQL, OK, "mysql-connector-python has no C extension here: its pure Python sockets can be ended")
        return
    if _shows_socket():
        text = "the socket of mysql-connector-python's C extension was found where it is expected: a blocked call can be ended"
        yield Finding(MYSQL, OK, text, {"abortable": True})
    else:
        text = (
            "the socket of mysql-connector-python's C extension was not found: only read_timeout ends a blocked call (or use_pure)"
        )
        yield Finding(MYSQL, WARNING, text, {"abortable": False})


def _shows_socket() -> bool:
    """Try it: connect to a listener of our own that says nothing, and look for the socket meanwhile."""
    from wrapper.drivers.mysql_socket import descriptor_of

    extension: Any = importlib.import_module("_mysql_connector")
    session = extension.MySQL(connection_timeout=int(PATIENCE))

    def connect(port: int) -> None:
        try:
            session.connect(host="127.0.0.1", user="", password="", port=port)
        except extension.MySQLError:
            pass  # the listener hangs up

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        thread = threading.Thread(target=connect, args=(port,))
        thread.start()
        try:
            accepted, client = listener.accept()
            with accepted:
                deadline = time.monotonic() + PATIENCE
                while time.monotonic() < deadline:
                    if _is_bound_to(descriptor_of(session), client):
                        return True
                    time.sleep(0.005)
        except TimeoutError:
            pass
        finally:
            thread.join()
    return False


def _is_bound_to(number: int, address: tuple[str, int]) -> bool:
    try:
        with socket.socket(fileno=os.dup(number)) as found:
            return bool(found.getsockname() == address)
    except OSError:
        return False
