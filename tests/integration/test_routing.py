"""What `tests/spec/psycopg_methods.json` says of the plugin chain is what a plugin sees, on a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import psycopg
import pytest

import wrapper
from tests.unit.test_driver_census import listed, rows_covered_by
from wrapper.pipeline import _REGISTRY
from wrapper.plugin import Call, EveryConnectPlugin, Plugin

Connect = Callable[..., Any]
seen: list[str] = []


class Recorder(EveryConnectPlugin):
    """Writes down the names of everything that comes through the chain."""

    @property
    def subscribed_methods(self) -> set[str]:
        return {"*"}

    def connect(self, *arguments: Any) -> Any:
        seen.append("connect")
        return arguments[-1]()

    def bind(self, method_name: str, call: Call) -> Call:
        def recorded(target: Any, /, *args: Any, **kwargs: Any) -> Any:
            seen.append(method_name)
            return call(target, *args, **kwargs)

        return recorded


class RecorderFactory:
    @staticmethod
    def get_instance(plugin_service: Any, props: Mapping[str, Any]) -> Plugin:
        return Recorder()


@pytest.fixture(autouse=True)
def recorder() -> Iterator[None]:
    wrapper.register_plugin("recorder", RecorderFactory)
    yield
    del _REGISTRY["recorder"]


def two_phases(*steps: str) -> Callable[[Any], None]:
    def run(connection: Any) -> None:
        connection.tpc_begin("gid")
        # Servers refuse it unless they were told to allow it.
        with suppress(psycopg.errors.ObjectNotInPrerequisiteState):
            for step in steps:
                getattr(connection, step)()

    return run


def a_block(connection: Any) -> None:
    with connection:
        pass


def a_block_of(make: Callable[[Any], Any]) -> Callable[[Any], None]:
    def run(connection: Any) -> None:
        with make(connection):
            pass

    return run


def with_cursor(name: str, use: Callable[[Any], Any]) -> Callable[[Any], None]:
    def run(connection: Any) -> None:
        with connection.cursor(name) as cursor:
            use(cursor)

    return run


def copy_out(cursor: Any) -> None:
    with cursor.copy("COPY (SELECT 1) TO STDOUT") as copy:
        assert list(copy)


def fetch(method: str) -> Callable[[Any], None]:
    def run(cursor: Any) -> None:
        assert getattr(cursor.execute("SELECT 1"), method)() in ((1,), [(1,)])

    return run


CALLS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("Connection", "connect"): lambda connection: connection.connect(
        psycopg.Connection.connect, connection.info.dsn, password=connection.info.password, plugins="recorder", monitor_mode="off"
    ).close(),
    ("Connection", "execute"): lambda connection: connection.execute("SELECT 1"),
    ("Connection", "commit"): lambda connection: connection.commit(),
    ("Connection", "rollback"): lambda connection: connection.rollback(),
    ("Connection", "tpc_begin"): lambda connection: connection.tpc_begin("gid"),
    ("Connection", "tpc_prepare"): two_phases("tpc_prepare"),
    ("Connection", "tpc_commit"): two_phases("tpc_commit"),
    ("Connection", "tpc_rollback"): two_phases("tpc_rollback"),
    ("Connection", "tpc_recover"): lambda connection: connection.tpc_recover(),
    ("Connection", "transaction"): a_block_of(lambda connection: connection.transaction()),
    ("Connection", "pipeline"): a_block_of(lambda connection: connection.pipeline()),
    ("Connection", "__exit__"): a_block,
    ("Cursor", "execute"): with_cursor("", lambda cursor: cursor.execute("SELECT 1")),
    ("Cursor", "executemany"): with_cursor("", lambda cursor: cursor.executemany("SELECT %s", [(1,)])),
    ("Cursor", "stream"): with_cursor("", lambda cursor: list(cursor.stream("SELECT 1"))),
    ("Cursor", "copy"): with_cursor("", copy_out),
    ("ServerCursor", "execute"): with_cursor("named", lambda cursor: cursor.execute("SELECT 1")),
    ("ServerCursor", "stream"): with_cursor("named", lambda cursor: list(cursor.stream("SELECT 1"))),
    ("ServerCursor", "copy"): with_cursor("named", copy_out),
    ("ServerCursor", "fetchone"): with_cursor("named", fetch("fetchone")),
    ("ServerCursor", "fetchmany"): with_cursor("named", fetch("fetchmany")),
    ("ServerCursor", "fetchall"): with_cursor("named", fetch("fetchall")),
}


def test_every_routed_method_is_called_here() -> None:
    routed = {row for row in rows_covered_by("chain", "block") if row[0] in ("Connection", "Cursor", "ServerCursor")}
    assert CALLS.keys() == routed


@pytest.mark.parametrize(("name", "method"), CALLS)
def test_plugins_see_it(name: str, method: str, connect: Connect) -> None:
    connection = connect(plugins="recorder", monitor_mode="off", autocommit=False)
    seen.clear()
    CALLS[name, method](connection)
    assert set(listed(name)[method]["as"]) <= set(seen)


def test_a_stream_is_the_drivers(connect: Connect) -> None:
    """Nothing is sent before the first row is asked for, and an unfinished one ends with its iterator."""
    connection = connect(plugins="recorder", monitor_mode="off")
    seen.clear()
    rows = connection.cursor().stream("SELECT generate_series(1, 1000000)")
    assert not seen
    assert [next(rows), next(rows)] == [(1,), (2,)]
    rows.close()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert list(connection.cursor().stream("SELECT 1 WHERE false")) == []
