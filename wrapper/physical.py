"""The physical connections under one wrapper connection: opening them, carrying session state over, giving them back."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wrapper.cluster import KnownCluster
from wrapper.decisions.verdict import covers
from wrapper.dialects import DatabaseDialect, RoleAnswer
from wrapper.drivers.base import DriverDialect
from wrapper.drivers.classify import ErrorKind
from wrapper.hosts import HostInfo
from wrapper.monitor.handles import Handle, is_severed
from wrapper.providers.base import ConnectionProvider
from wrapper.session_state import Hook, SessionState, SessionStateTransferHandlers, TrackedSession
from wrapper.settings import Settings

logger = logging.getLogger(__name__)

# A connect to a host with failing evidence, and every connect of a failover, may wait this long for the first byte.
PREFLIGHT_TIMEOUT = 0.6
# Connections of a pool that turn out to be dead are thrown away and another one is asked for, this many times.
_STALE_CONNECTIONS = 100
# Attribute of a driver's connection that waits in a pool: the handle lives as long as the connection.
_IDLE_HANDLE = "_idle_handle"


@dataclass(slots=True)
class Physical:
    """What is kept about a physical connection.

    `reference`: ends this record with the connection. `arguments`: what it was asked for with, a password among them. `proxy`: what
    a pool returned around it, None for a connection of our own. `is_introduced`: it is known which host it leads to, and the
    monitor was told. `pristine`: its session state when it was opened, `last`: when it was given up. `failed`: the guard at the
    driver's I/O point saw it fail. `pid`: the process that opened it.
    """

    reference: weakref.ref[Any]
    host_info: HostInfo
    handle: Handle | None
    opened_at: float
    pristine: Callable[[], SessionState]
    arguments: Mapping[str, Any] = field(repr=False)
    proxy: Any = None
    is_introduced: bool = False
    role: RoleAnswer | None = None
    failed: BaseException | None = None
    last: Callable[[], SessionState] | None = None
    pid: int = field(default_factory=os.getpid)

    @property
    def is_inherited(self) -> bool:
        """Whether this is a forked child and the connection is its parent's: not ours to close, nor to roll back."""
        return self.pid != os.getpid()


class PhysicalConnections:
    """Opens physical connections for one wrapper connection and keeps what is known about each of them."""

    def __init__(
        self,
        target: Callable[..., Any],
        driver_dialect: DriverDialect,
        settings: Settings,
        cluster: KnownCluster,
    ) -> None:
        self._target = driver_dialect.opener(target)
        self._driver = driver_dialect
        self._settings = settings
        self._cluster = cluster
        # By the identity of the driver's connection, for as long as that lives.
        self._known: dict[int, Physical] = {}

    def get(self, connection: Any) -> Physical | None:
        """What is kept about a connection opened here."""
        return self._known.get(id(connection))

    def is_pooled(self, connection: Any) -> bool:
        """Whether a connection goes back to a pool."""
        physical = self.get(connection)
        return physical is not None and physical.proxy is not None

    # -- opening ---------------------------------------------------------------------------------------------------------------

    def open(
        self, host_info: HostInfo, props: dict[str, Any], provider: ConnectionProvider, dialect: DatabaseDialect | None = None
    ) -> Any:
        """Open a connection to a host: the end of the connect pipelines."""
        evidence = self._cluster.evidence(self._cluster.key(host_info))
        if evidence is not None and evidence.is_failing and self._driver.preflight_is_free:
            self.preflight(host_info, PREFLIGHT_TIMEOUT)
        arguments = self._driver.connect_arguments(props, self._settings)
        for _ in range(_STALE_CONNECTIONS):
            returned = provider.connect(self._target, self._driver, dialect, host_info, arguments)
            connection = self._driver.unwrap(returned)
            physical = self._keep(connection, host_info, arguments, None if returned is connection else returned)
            if physical.proxy is None or not self._is_stale(connection, physical):
                return connection
            self.discard(connection)
        raise self._driver.operational_error()(f"the pool for {host_info.get_host_and_port()} gives nothing but dead connections")

    def open_elsewhere(self, props: dict[str, Any]) -> Any:
        """Open a connection that leads to no single TCP endpoint; nothing is kept about it."""
        connection = self._driver.unwrap(self._target(**self._driver.connect_arguments(props, self._settings)))
        self._guard(connection)
        return connection

    def _keep(self, connection: Any, host_info: HostInfo, arguments: Mapping[str, Any], proxy: Any) -> Physical:
        # A pooled connection is as old as it is, not as its use by this wrapper connection.
        opened_at = connection.__dict__.setdefault("_opened_at", time.monotonic())
        idle: Handle | None = connection.__dict__.pop(_IDLE_HANDLE, None)
        if idle is not None:
            idle.close()
        handle = None
        self._guard(connection)
        if self._cluster.is_followed:
            handle = self._handle(connection, host_info, opened_at)
        pristine = self._driver.take_session_state(connection)
        identity, known = id(connection), self._known
        reference = weakref.ref(connection, lambda _: known.pop(identity, None))
        physical = known[identity] = Physical(reference, host_info, handle, opened_at, pristine, arguments, proxy)
        return physical

    def _guard(self, connection: Any) -> None:
        limit = self._settings["socket_timeout"]
        if limit or self._cluster.is_followed:
            self._driver.guard(connection, self, limit)

    def _handle(self, connection: Any, host_info: HostInfo, opened_at: float) -> Handle | None:
        fileno = self._driver.fileno(connection)
        if fileno is None:
            return None
        assert self._cluster.watch is not None
        return Handle(fileno, self._cluster.watch.key, host_info.key, opened_at, self._driver.in_use(connection))

    def _is_stale(self, connection: Any, physical: Physical) -> bool:
        """Whether a connection from a pool was lost while it was idle: by what the kernel knows, and by the evidence about its
        host."""
        if physical.handle is None:
            fileno = self._driver.fileno(connection)
            return fileno is not None and is_severed(fileno)
        evidence = self._cluster.evidence(physical.handle.key)
        return physical.handle.is_severed() or (evidence is not None and covers(evidence, physical.opened_at))

    def preflight(self, host_info: HostInfo, timeout: float) -> None:
        """Ask a host for one byte. Raises the driver's `OperationalError` when there is none within `timeout` seconds."""
        port = host_info.port if host_info.is_port_specified() else self._cluster.default_port
        try:
            self._driver.preflight(host_info.host, port, timeout, self._cluster.address(host_info))
        except OSError as error:
            text = f"connection failed: {host_info.get_host_and_port()} does not answer: {error}"
            raise self._driver.operational_error()(text) from error

    # -- giving back -----------------------------------------------------------------------------------------------------------

    def discard(self, connection: Any) -> None:
        """Shut down and close a connection that is no longer wanted, whatever state it is in."""
        physical = self.get(connection)
        if physical is not None and physical.is_inherited:
            self.leave_to_parent(connection)
            return
        if physical is not None:
            physical.last = self._driver.take_session_state(connection)
            # Its traceback leads to the connection, which would be kept as long as we are.
            physical.failed = None
            if physical.handle is not None:
                physical.handle.shut_down()
                physical.handle.close()
            if physical.proxy is not None:
                physical.proxy.invalidate()
        self._driver.close(connection)

    def release(self, connection: Any) -> bool:
        """Close a connection in order, or give it back to its pool in the state that it came from there. Returns whether it lives
        on, in a pool or in the process that this one was forked from."""
        physical = self.get(connection)
        if physical is not None and physical.is_inherited:
            self.leave_to_parent(connection)
            return True
        if physical is None or physical.proxy is None:
            connection.close()
            if physical is not None and physical.handle is not None:
                physical.handle.close()
            return False
        try:
            self._driver.settle(connection)
            self._reset_session_state(connection, physical)
        except Exception as error:  # noqa: BLE001  whatever it is, nobody may get this connection
            logger.info("a connection to %s does not go back to its pool: %s", physical.host_info, error)
            self.discard(connection)
            return False
        if physical.handle is not None:
            # It is watched over in the pool too: the next user is to find it ended, not to trip over it.
            physical.handle.is_pooled = True
            connection.__dict__[_IDLE_HANDLE] = physical.handle
            physical.handle = None
        self._driver.unguard(connection)
        proxy, physical.proxy = physical.proxy, None
        proxy.close()
        return True

    def leave_to_parent(self, connection: Any) -> None:
        """In a forked child: have nobody touch a connection that belongs to the parent, nor collect it."""
        self._driver.disown(connection)
        _inherited.append(connection)
        physical = self.get(connection)
        if physical is not None and physical.proxy is not None:
            physical.proxy.detach()
            physical.proxy = None

    # -- session state ---------------------------------------------------------------------------------------------------------

    def transfer_session_state(self, old: Any, new: Any) -> None:
        """Give `new` what was set on `old`, before anybody uses it. Raises what the server or a hook has against it; `new` is of no
        use then."""
        self._driver.adopt(old, new)
        if not self._settings["transfer_session_state_on_switch"]:
            return
        physical = self.get(old)
        last = physical.last if physical is not None else None
        current = (last or self._driver.take_session_state(old))()
        pristine = SessionState() if physical is None else physical.pristine()
        hook = SessionStateTransferHandlers.get_transfer_session_state_on_switch_func()
        if hook is not None and self._is_done_by(hook, TrackedSession(current, pristine), new):
            return
        # What the application never touched is the new server's own business: it is as that connection was opened.
        fresh = self.get(new)
        untouched = {} if fresh is None else fresh.pristine().parameters
        parameters = {**untouched, **current.beyond(pristine).parameters}
        self._driver.set_session_state(new, SessionState(current.attributes, parameters))

    def _reset_session_state(self, connection: Any, physical: Physical) -> None:
        if not self._settings["reset_session_state_on_close"]:
            return
        hook = SessionStateTransferHandlers.get_reset_session_state_on_close_func()
        state = TrackedSession(self._driver.take_session_state(connection)(), physical.pristine())
        if hook is None or not self._is_done_by(hook, state, connection):
            self._driver.set_session_state(connection, state.pristine)

    def _is_done_by(self, hook: Hook, state: TrackedSession, connection: Any) -> bool:
        done = hook(state, connection)
        if self._driver.is_in_transaction(connection):
            # What the hook has set must outlive the transaction that the driver began for it.
            connection.commit()
        return done

    # -- failures --------------------------------------------------------------------------------------------------------------

    def physical_failure(self, connection: Any, error: BaseException) -> None:
        """Called by the guard: note that the connection failed, and let everybody know."""
        if self._driver.classify(error) is not ErrorKind.NETWORK or not self._driver.is_closed(connection):
            return
        physical = self.get(connection)
        # A handle that was given back: the application closed the connection itself.
        if physical is not None and physical.failed is None and physical.handle is not None and physical.handle.is_open:
            physical.failed = error
            logger.debug("a connection to %s failed: %s", physical.host_info, error)
            self.report(physical, "network")

    def report(self, physical: Physical, error: str) -> None:
        """Tell the monitor that a physical connection failed."""
        if self._cluster.watch is not None:
            self._cluster.client.report(self._cluster.watch, physical.host_info.key, error, physical.opened_at)


# Connections of the process that this one was forked from: kept, so that nothing closes or rolls them back here.
_inherited: list[Any] = []
