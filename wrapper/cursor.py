"""Cursors: the driver's own objects with a class of ours mixed in.

`fetchone` of a client-side cursor *is* the driver's function, as is everything else that reads memory; only the methods that
reach the network are routed through the plugin chain. When the connection switches, the class of the old cursors is replaced
once more, by one that refuses: bound methods, iteration and all.
"""

from __future__ import annotations

import weakref
from functools import cache
from types import FunctionType
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


_SWEEP = 64
REPLACED = "this cursor belongs to a connection that has been replaced; make a new cursor"


@cache
def wrapped(driver_class: type, mixins: tuple[type, ...]) -> type:
    """Return `driver_class` with ours mixed in; its objects can be turned into ours in place."""
    names: dict[str, Any] = {"__slots__": (), "__module__": driver_class.__module__, "driver_class": driver_class}
    # The driver's class must be the first base, or the layout may differ from that of its objects; what ours define goes on top.
    for mixin in reversed(mixins):
        for parent in reversed(mixin.__mro__[:-1]):
            names.update((name, value) for name, value in vars(parent).items() if isinstance(value, (FunctionType, property)))
    made: type = type(driver_class.__name__, (driver_class, *mixins), names)
    return made


@cache
def refused(wrapped_class: type) -> type:
    """Return the class of cursors whose connection has switched: closing is allowed, everything else says what to do."""

    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise for_driver(AwsWrapperError, self._conn._calls.interface_error)(REPLACED)

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
