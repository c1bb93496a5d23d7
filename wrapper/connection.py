"""The wrapper connection: stands in for the driver's own and may lead to another host from one call to the next."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from wrapper.configuration import configuration_of
from wrapper.cursor import Cursors, wrapped
from wrapper.errors import TransactionResolutionUnknownError, for_driver
from wrapper.monitor.generation import GENERATION
from wrapper.monitor.process import catch_up
from wrapper.plugin import INIT_HOST_PROVIDER, Call, ConnectionEvent
from wrapper.plugin_service import PluginService

if TYPE_CHECKING:
    from types import TracebackType


class Calls:
    """The compiled chains of one wrapper connection.

    The driver's connection carries it (`_calls`), so that cursors reach it. It refers to the wrapper weakly: a connection that is
    dropped without being closed is then collected at once, as the driver's own is.
    """

    def __init__(self, service: PluginService) -> None:
        self._service = service
        self._chains: dict[str, Call] = {}
        self.wrapper: Callable[[], AwsWrapperConnection | None] = lambda: None
        # The generation of the shared state that was last looked at: the one comparison that a call pays for it.
        self.seen = 0
        self.execute = _Chains(service, "execute")
        self.executemany = _Chains(service, "executemany")
        self.cursor_classes = _cursor_classes(service.driver_dialect.cursor_mixins)

    def look(self) -> None:
        """The slow path before a call: the shared state has a new generation, or this is a forked child."""
        wrapper = self.wrapper()
        if wrapper is None or not self._service.manager.plugins:
            self.seen = GENERATION[0]
            return
        wrapper.leave_parent()
        catch_up()
        self.seen = GENERATION[0]
        self._service.notice_host_list()
        for plugin in self._service.manager.readers_of_shared_state():
            plugin.shared_state_changed()

    @property
    def interface_error(self) -> type[Exception]:
        """The driver's PEP 249 `InterfaceError`."""
        return self._service.driver_dialect.interface_error()

    def run(self, method: str, target: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run `call`, the driver's part of `method`, through the chain."""
        chain = self._chains.get(method)
        if chain is None:
            chain = self._chains[method] = self._service.manager.compile(method, _driver_call)
        return chain(target, call, *args, **kwargs)


class _Chains(dict[type, Call]):
    """The compiled chains of one cursor method, per class of the driver's cursors: each ends in that class's own function."""

    __slots__ = ("_name", "_service")

    def __init__(self, service: PluginService, name: str) -> None:
        self._service = service
        self._name = name

    def __missing__(self, driver_class: type) -> Call:
        chain = self[driver_class] = self._service.manager.compile(f"Cursor.{self._name}", getattr(driver_class, self._name))
        return chain


class _CursorClasses(dict[type, type]):
    """Class of a driver's cursor -> the one that its objects are given."""

    def __init__(self, mixins: Callable[[type], tuple[type, ...]]) -> None:
        super().__init__()
        self._mixins = mixins

    def __missing__(self, driver_class: type) -> type:
        made = self[driver_class] = wrapped(driver_class, self._mixins(driver_class))
        return made


# Connections that are made alike share one.
_cursor_classes = lru_cache(maxsize=64)(_CursorClasses)


def _driver_call(target: Any, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return call(*args, **kwargs)


class AwsWrapperConnection:
    """A connection to a database cluster, in place of the driver's.

    It is an instance of the driver's class as far as `isinstance` is concerned, and attributes it does not know are read from and
    written to the driver's connection. Make one with `AwsWrapperConnection.connect`.
    """

    __slots__ = ("__weakref__", "_blocks", "_broken", "_calls", "_cursors", "_pid", "_service", "_target")

    def __init__(self, service: PluginService, target: Any) -> None:
        put = object.__setattr__
        put(self, "_service", service)
        put(self, "_target", target)
        put(self, "_blocks", 0)
        put(self, "_broken", False)
        put(self, "_pid", os.getpid())
        put(self, "_cursors", Cursors())
        put(self, "_calls", Calls(service))
        self._calls.wrapper = weakref.ref(self)
        target._calls = self._calls
        service.attach(self)

    @staticmethod
    def connect(target: Callable[..., Any] | None = None, conninfo: str = "", **kwargs: Any) -> AwsWrapperConnection:
        """Connect through the driver's connect function `target`, such as `psycopg.Connection.connect`.

        `conninfo` is the driver's connection text, in which the wrapper's parameters may stand beside the driver's; keyword
        arguments win over it. See docs/parameters.md for the parameters. Raises `AwsWrapperError` for a parameter that is
        unknown or not valid, and whatever the driver raises when it cannot connect.
        """
        configuration = configuration_of(target, conninfo or "", kwargs)
        assert target is not None
        service = PluginService(target, configuration)
        if service.manager.is_subscribed(INIT_HOST_PROVIDER):
            service.manager.init_host_provider(service, configuration.settings, lambda: None)
        host_info = service.initial_connection_host_info
        connection = service.connect(host_info, dict(service.parameters))
        wrapper = service.driver_dialect.wrapper_class(service, connection)
        try:
            physical = service.physical(connection)
            if physical is not None and not physical.is_introduced:
                service.introduce(connection, needs_role=False)
            service.manager.notify_connection_changed({ConnectionEvent.INITIAL_CONNECTION})
            service.notice_host_list()
        except BaseException:
            service.discard(connection)
            raise
        wrapper._calls.seen = GENERATION[0]
        return wrapper

    # -- the driver's connection -----------------------------------------------------------------------------------------------

    @property
    def target_connection(self) -> Any:
        """The driver's connection in use; it changes with a failover."""
        return self._target

    @property
    def plugin_service(self) -> PluginService:
        """The services that this connection's plugins use."""
        return self._service  # type: ignore[no-any-return]

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._target)

    def __getattr__(self, name: str) -> Any:
        # A slot that is not filled yet must not send us round in circles.
        if name.startswith("__") or name in AwsWrapperConnection.__slots__:
            raise AttributeError(name)
        return getattr(self._target, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._target, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._target, name)

    def __repr__(self) -> str:
        return f"<AwsWrapperConnection of {self._target!r}>"

    # -- switching -------------------------------------------------------------------------------------------------------------

    def switch_to(self, connection: Any) -> None:
        """Lead to another driver connection from now on. Called by `PluginService.set_current_connection`, which has given it the
        session state."""
        put = object.__setattr__
        connection._calls = self._calls
        put(self, "_target", connection)
        put(self, "_broken", self._blocks > 0)
        self._cursors.refuse()
        self._calls.seen = GENERATION[0]

    def leave_parent(self) -> None:
        """In a forked child: let go of the parent's connection without touching it, and open one of our own to the same host."""
        service: PluginService = self._service
        old = self._target
        if self._pid == os.getpid() or service.driver_dialect.is_closed(old):
            return
        in_transaction = service.driver_dialect.is_in_transaction(old)
        host_info = service.current_host_info
        connection = service.connect(host_info, dict(service.parameters))
        confirmed = service.introduce(connection, needs_role=False)
        # The old one is the parent's: not ours to close.
        service.connections.leave_to_parent(old)
        service.set_current_connection(connection, confirmed, dispose=False)
        object.__setattr__(self, "_pid", os.getpid())
        if in_transaction:
            raise for_driver(TransactionResolutionUnknownError, service.driver_dialect.operational_error())(
                "this process was forked while a transaction was open; the transaction is the parent's. The connection leads to "
                "a session of this process now",
                outcome="not_sent",
            )

    def _check_block(self) -> None:
        if self._broken:
            raise for_driver(TransactionResolutionUnknownError, self._service.driver_dialect.operational_error())(
                "the connection was replaced inside an open block (transaction, pipeline, COPY or with): leave the outermost block "
                "and start it again",
                outcome="not_sent",
            )

    @contextmanager
    def _block(self) -> Iterator[None]:
        """Around everything that a switch must not happen inside of unnoticed. Leaving a broken one raises and commits nothing."""
        put = object.__setattr__
        put(self, "_blocks", self._blocks + 1)
        try:
            yield
            self._check_block()
        finally:
            put(self, "_blocks", self._blocks - 1)
            if self._blocks == 0:
                put(self, "_broken", False)

    @contextmanager
    def driver_block(self, enter: str, leave: str, manager: Any) -> Iterator[Any]:
        """A block of ours around a block of the driver's, whose entering and successful leaving go through the chain."""
        with self._block():
            inner = self._calls.run(enter, self._target, manager.__enter__)
            try:
                yield inner
            except BaseException as error:
                # The driver's block belongs to a connection that is gone; there is nothing left to roll back.
                if self._broken or not manager.__exit__(type(error), error, error.__traceback__):
                    raise
            else:
                self._check_block()
                self._calls.run(leave, self._target, manager.__exit__, None, None, None)

    def _look(self) -> None:
        self._check_block()
        if GENERATION[0] != self._calls.seen:
            self._calls.look()

    def _call(self, method: str, name: str, *args: Any, **kwargs: Any) -> Any:
        """Run a method of the driver's connection through the chain."""
        self._look()
        return self._calls.run(method, self._target, getattr(self._target, name), *args, **kwargs)

    # -- DB-API ----------------------------------------------------------------------------------------------------------------

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a new cursor: the driver's own, with the plugin chain on the methods that reach the network."""
        calls = self._calls
        if self._broken or GENERATION[0] != calls.seen:
            self._look()
        try:
            cursor = self._new_cursor(*args, **kwargs)
        except Exception:
            # The connection may have been lost unseen: then a plugin replaces it and raises what the application should know.
            calls.look()
            raise
        self._cursors.add(cursor)
        return cursor

    def _new_cursor(self, *args: Any, **kwargs: Any) -> Any:
        cursor = self._target.cursor(*args, **kwargs)
        cursor.__class__ = self._calls.cursor_classes[cursor.__class__]
        return cursor

    def commit(self) -> None:
        """Commit the open transaction."""
        self._call("Connection.commit", "commit")

    def rollback(self) -> None:
        """Roll the open transaction back."""
        self._call("Connection.rollback", "rollback")

    def close(self) -> None:
        """Close the connection, or give it back to the pool that it came from; plugins let go of what they hold."""
        service: PluginService = self._service
        target = self._target
        if service.connections.release(target):
            # The driver's connection serves others from now on, or belongs to our parent.
            object.__setattr__(self, "_target", service.driver_dialect.closed(target))
            self._cursors.refuse()
        service.manager.release_resources()

    def release_resources(self) -> None:
        """Let go of what plugins and the monitor's client hold for this connection; it goes on working as the driver's would."""
        self._service.release_resources()

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed; no network traffic."""
        return bool(self._service.driver_dialect.is_closed(self._target))

    # -- blocks ----------------------------------------------------------------------------------------------------------------

    def __enter__(self) -> AwsWrapperConnection:
        object.__setattr__(self, "_blocks", self._blocks + 1)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """As the driver's: commit on success, roll back on an error, close. A block that met a switch commits nothing and
        raises."""
        try:
            with self._leaving():
                if exc_type is None:
                    self._check_block()
                    if self._service.driver_dialect.commits_on_exit and not self.is_closed:
                        self.commit()
        finally:
            if exc_type is None:
                exc_type, exc_value, traceback = sys.exc_info()
            if self._service.connections.is_pooled(self._target):
                self.close()
            else:
                self._target.__exit__(exc_type, exc_value, traceback)
            if self.is_closed:
                self.release_resources()

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        put = object.__setattr__
        try:
            yield
        finally:
            put(self, "_blocks", self._blocks - 1)
            put(self, "_broken", self._broken and self._blocks > 0)
