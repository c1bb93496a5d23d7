"""Plays one event: connections of an application, a connection of the driver alone to the heir, the strike, and what came of it."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, redirect_stdout, suppress
from typing import Any

import mysql.connector
import psycopg

import wrapper
from monitor_service.cli import main as monitor
from tests.benchmarks.moves.events import CONNECTING, IDLE, Cast, Event, cast_for, right_for
from tests.benchmarks.moves.users import Application, Control, User, Visitor
from tests.benchmarks.moves.verdicts import Cell, Seen, errors
from tests.drivers import ask
from tests.integration.conftest import forget_client
from wrapper import AwsWrapperConnection
from wrapper.monitor.process import current_client
from wrapper.testing import LocalAurora, LocalGlobalDatabase

FAST: dict[str, Any] = {"failure_detection_interval_ms": 100, "failure_detection_count": 3, "topology_refresh_ms": 100}
_PATIENCE = 20.0
# Nobody is back who is thrown out again within these seconds; and idle connections are idle for this much longer.
_QUIET = 0.3
_TARGETS: dict[str, Callable[..., Any]] = {"postgresql": psycopg.Connection.connect, "mysql": mysql.connector.connect}


@contextmanager
def stage(flavour: str, engine: str) -> Iterator[LocalAurora]:
    """A lab, and a monitor of its own: each resolves names by the file that it was started with."""
    with ExitStack() as stack:
        lab: LocalAurora = stack.enter_context(
            LocalGlobalDatabase(engine=engine)
            if flavour == "global"
            else LocalAurora(1 if flavour == "rds" else 3, engine=engine, flavor=flavour)
        )
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="asm-"))
        before = dict(os.environ)
        os.environ.update(lab.environment(), AWS_WRAPPER_MONITOR_DIR=directory)
        forget_client()
        try:
            yield lab
        finally:
            wrapper.release_resources()
            forget_client()
            with redirect_stdout(io.StringIO()):
                monitor(["stop"])
            os.environ.clear()
            os.environ.update(before)


def play(event: Event, lab: LocalAurora, flavour: str, settings: Mapping[str, Any] = FAST) -> list[Cell]:
    """Mend the lab, play an event and return what each use of a connection saw of it."""
    lab.restore() if isinstance(lab, LocalGlobalDatabase) else lab.reset()
    with closing(_raw(lab, lab.writer.id)) as connection:
        ask(connection, "DROP TABLE IF EXISTS moves")
        ask(connection, "CREATE TABLE moves (x INT PRIMARY KEY)")
    cast = cast_for(event, lab)
    if event.prepare is not None:
        event.prepare(cast)
    right = right_for(event, flavour)
    users: dict[str, User] = {}
    control = Control(lambda: _raw(lab, cast.heir), event.wants)
    try:
        for use in right:
            users[use] = (
                Visitor(lambda: _open(cast, "endpoint", settings), _names(cast))
                if use == CONNECTING
                else Application(lambda: _open(cast, event.wants, settings), event.wants, use)
            )
        applications = {use: user for use, user in users.items() if isinstance(user, Application)}
        _wait_until_watched(lab, next(iter(applications.values())))
        for user in (control, *users.values()):
            user.start()
        busy = [user for use, user in users.items() if use not in (IDLE, CONNECTING)]
        _wait(lambda: all(user.done for user in busy), "the connections to be in use")
        struck = time.monotonic()
        event.strike(cast)
        over = time.monotonic()
        _wait(lambda: _is_back([control], struck, over), f"{cast.heir} to have the role")
        # Whoever is never back is the verdict's business.
        with suppress(TimeoutError):
            _wait(lambda: _is_back(busy, struck, over), "the busy connections to be back")
        for user in applications.values():
            user.release()
        with suppress(TimeoutError):
            _wait(lambda: _is_back(list(users.values()), struck, over), "the connections to be back")
    finally:
        for user in (control, *users.values()):
            user.stop()
    ready = control.back(struck)
    assert ready is not None
    stored = _stored(lab)
    for user in (control, *applications.values()):
        user.close()
    cells = []
    for use, user in users.items():
        since, own = struck, ready - struck
        if use == IDLE and isinstance(user, Application):
            since, own = user.released_at, 0.0
        back = user.back(since)
        seen = Seen(tuple(user.refusals), own, None if back is None else back - since, stored)
        cells.append(Cell(event.name, flavour, lab.engine, use, seen, errors(right[use], seen)))
    return cells


def _is_back(users: Sequence[User], struck: float, over: float) -> bool:
    now = time.monotonic()
    times = [user.back(struck) for user in users]
    return all(at is not None and at < now - _QUIET and user.done[-1] > over for at, user in zip(times, users, strict=True))


def _raw(lab: LocalAurora, instance: str) -> Any:
    timeout = {"connection_timeout": 2} if lab.engine == "mysql" else {"connect_timeout": 2}
    return _TARGETS[lab.engine](**lab.parameters(instance, by_address=True), autocommit=True, **timeout)


def _names(cast: Cast) -> tuple[str, ...]:
    heir = cast.lab.instance(cast.heir)
    return heir.id, heir.address


def _open(cast: Cast, wants: str, settings: Mapping[str, Any]) -> Any:
    """Open a connection of an application that wants the writer, a reader, or what the reader endpoint of the heir leads to."""
    lab = cast.lab
    parameters: dict[str, Any] = {"autocommit": True, **lab.parameters(cast.victim if wants == "reader" else None), **settings}
    modes = ["failover_mode"]
    failover = "failover_v2"
    mode = "strict_writer" if wants == "writer" else "strict_reader"
    if isinstance(lab, LocalGlobalDatabase):
        parameters["global_cluster_instance_host_patterns"] = lab.instance_host_pattern
        modes = ["active_home_failover_mode", "inactive_home_failover_mode"]
        failover = "gdb_failover"
        mode = mode.replace("strict_reader", "strict_any_reader")
    elif lab.facts["flavor"].startswith("aurora"):
        parameters["cluster_instance_host_pattern"] = lab.instance_host_pattern
    parameters.update(dict.fromkeys(modes, mode), plugins=f"{failover},host_monitoring_v2")
    if wants == "endpoint":
        parameters.update(host=_reader_endpoint(lab, cast), plugins=f"initial_connection,{failover},host_monitoring_v2")
    return AwsWrapperConnection.connect(_TARGETS[lab.engine], **parameters)


def _reader_endpoint(lab: LocalAurora, cast: Cast) -> str:
    if not isinstance(lab, LocalGlobalDatabase):
        return lab.reader_endpoint
    return next(lab.endpoint(region, "reader") for region in lab.regions if lab.instance(cast.heir) in lab.in_region(region))


def _wait_until_watched(lab: LocalAurora, application: Application) -> None:
    """Wait until this process knows every host, as it does for all of a connection's life but its first moments."""
    watch = application.connection.plugin_service.watch
    members = [entry for entry in lab.status()["instances"] if entry["state"] != "removed"]

    def is_known() -> bool:
        state = current_client().state.by_watch(watch.key)
        return (
            current_client().is_live
            and state is not None
            and len(state.health) == len(members)
            and all(host.proved_at is not None and not host.is_failing for host in state.health.values())
            and (state.topology.writer is not None or len(members) == 1)
        )

    _wait(is_known, "the monitor to know every host")


def _stored(lab: LocalAurora) -> frozenset[int]:
    with closing(_raw(lab, lab.writer.id)) as connection:
        return frozenset(row[0] for row in ask(connection, "SELECT x FROM moves"))


def _wait(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds. Raises `TimeoutError`."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_PATIENCE:g} s in vain for {what}")
        time.sleep(0.005)
