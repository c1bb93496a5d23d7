"""Cursors: the driver's own objects with a class of ours mixed in.

`fetchone` of a client-side cursor *is* the driver's function, as is everything else that reads memory; only the methods that
reach the network are routed through the plugin chain. When the connection switches, the class of the old cursors is replaced
once more, by one that refuses: bound methods, iteration and all.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from wrapper.errors import AwsWrapperError, for_driver
from wrapper.monitor.generation import GENERATION

if TYPE_CHECKING:
    from wrapper.connection import Calls


class AwsWrapperCursor:
    """Mixed into the class of every cursor that a wrapper connection makes; `isinstance` holds for it and for the driver's
    class."""

    __slots__ = ()

    # Set on the class that `wrapped` makes.
    driver_class: type
    _conn: Any

    @property
    def target_cursor(self) -> Any:
        """The driver's cursor: this very object."""
        return self

    @property
    def connection(self) -> Any:
        """The wrapper connection that made the cursor (the driver's own, once that is gone)."""
        calls: Calls = self._conn._calls
        return calls.wrapper() or self._conn

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement through the plugin chain; returns this cursor where the driver does."""
        calls: Calls = self._conn._calls
        if GENERATION[0] != calls.seen:
            calls.look()
            # This cursor may have become one that refuses.
            return self.execute(*args, **kwargs)
        return calls.execute[self.driver_class](self, *args, **kwargs)

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        """Execute a statement with each of several sets of parameters through the plugin chain."""
        calls: Calls = self._conn._calls
        if GENERATION[0] != calls.seen:
            calls.look()
            return self.executemany(*args, **kwargs)
        return calls.executemany[self.driver_class](self, *args, **kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Iterate over a result as it arrives (psycopg). Sending and the first row go through the plugin chain; failures after it
        surface as the driver's errors."""
        calls: Calls = self._conn._calls
        if GENERATION[0] != calls.seen:
            calls.look()
            return self.stream(*args, **kwargs)
        rows = self.driver_class.stream(self, *args, **kwargs)  # type: ignore[attr-defined]
        return _routed_to_the_first(calls, self._conn, rows)

    def copy(self, *args: Any, **kwargs: Any) -> AbstractContextManager[Any]:
        """A COPY block (psycopg)."""
        calls: Calls = self._conn._calls
        if GENERATION[0] != calls.seen:
            calls.look()
            return self.copy(*args, **kwargs)
        manager = self.driver_class.copy(self, *args, **kwargs)  # type: ignore[attr-defined]
        wrapper = calls.wrapper()
        if wrapper is None:
            return manager  # type: ignore[no-any-return]
        return wrapper.driver_block("Cursor.copy", "Cursor.copy", manager)


class _NetworkFetch:
    """Mixed into server-side cursors, whose fetches reach the network."""

    __slots__ = ()

    driver_class: type
    _conn: Any

    def _fetch(self, name: str, *args: Any) -> Any:
        return self._conn._calls.run("ServerCursor.fetch", self, getattr(self.driver_class, name), self, *args)

    def fetchone(self) -> Any:
        return self._fetch("fetchone")

    def fetchmany(self, *args: Any) -> Any:
        return self._fetch("fetchmany", *args)

    def fetchall(self) -> Any:
        return self._fetch("fetchall")


_END = object()


def _routed_to_the_first(calls: Calls, connection: Any, rows: Generator[Any, None, None]) -> Iterator[Any]:
    """Yield the rows, the first one (which sends the statement) through the plugin chain."""
    with closing(rows):
        first = calls.run("Cursor.stream", connection, next, rows, _END)
        if first is not _END:
            yield first
            yield from rows


_SWEEP = 64


@cache
def wrapped(driver_class: type, fetches_from_network: bool) -> type:
    """Return `driver_class` with ours mixed in; its objects can be turned into ours in place."""
    bases = (AwsWrapperCursor, _NetworkFetch, driver_class) if fetches_from_network else (AwsWrapperCursor, driver_class)
    names: dict[str, Any] = {"__slots__": (), "__module__": driver_class.__module__, "driver_class": driver_class}
    made: type = type(driver_class.__name__, bases, names)
    return made


@cache
def refused(wrapped_class: type) -> type:
    """Return the class of cursors whose connection has switched: closing is allowed, everything else says what to do."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise for_driver(AwsWrapperError, self._conn.InterfaceError)(
            "this cursor belongs to a connection that has been replaced; make a new cursor"
        )

    def forget(self: Any) -> None:
        """Nothing is left to close, and no warning is due."""

    defined = {name for parent in wrapped_class.__mro__[:-1] for name in vars(parent)}
    public = {name for name in defined if not name.startswith("_") and callable(getattr(wrapped_class, name, None))}
    methods: dict[str, Any] = dict.fromkeys(public | {"__iter__", "__next__", "__enter__"} & defined, refuse)
    names: dict[str, Any] = {**methods, "close": forget, "__del__": forget, "__slots__": (), "__module__": wrapped_class.__module__}
    made: type = type(wrapped_class.__name__, (wrapped_class,), names)
    return made


class Cursors:
    """The cursors of a connection that still exist. A plain list of weak references, swept now and then: a `WeakSet` would cost
    more
    to add to than the cursor to make."""

    __slots__ = ("_references", "_sweep_at")

    def __init__(self) -> None:
        self._references: list[weakref.ref[Any]] = []
        self._sweep_at = _SWEEP

    def add(self, cursor: Any) -> None:
        """Remember a new cursor."""
        self._references.append(weakref.ref(cursor))
        if len(self._references) >= self._sweep_at:
            self._references = [reference for reference in self._references if reference() is not None]
            self._sweep_at = 2 * len(self._references) + _SWEEP

    def refuse(self) -> None:
        """Have every cursor refuse to be used from now on, and forget them."""
        references, self._references = self._references, []
        for reference in references:
            cursor = reference()
            if cursor is not None:
                cursor.__class__ = refused(cursor.__class__)
