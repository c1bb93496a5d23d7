"""The pools under `SqlAlchemyPooledConnectionProvider`: lending connections of SQLAlchemy's `QueuePool`, and taking them back."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy.pool import PoolProxiedConnection, QueuePool


@dataclass(frozen=True, slots=True)
class PoolKey:
    """Connections with equal keys may stand in for each other.

    `extra`: the user, or what `pool_mapping` says instead. `target`: the driver's connect function. `arguments`: all its other
    arguments but the password; some may be secret, so they are not shown.
    """

    url: str
    extra: str
    database: str | None
    target: Callable[..., Any] = field(repr=False)
    arguments: frozenset[tuple[str, Any]] = field(repr=False)


class Slot:
    """What the `QueuePool` takes for the driver's connection.

    SQLAlchemy keeps what it has lent out reachable until it is given back. So the slot holds the connection only until somebody
    has taken it: one that is forgotten then can be collected.
    """

    def __init__(self, connection: Any, close: Callable[[Any], None]) -> None:
        self._reference = weakref.ref(connection)
        self._idle: Any = connection
        self._close = close
        self._pid = os.getpid()

    @property
    def driver_connection(self) -> Any:
        """The driver's connection, None when it was collected."""
        return self._reference()

    def lend(self) -> Any:
        """Return the connection and hold it no longer."""
        connection, self._idle = self._reference(), None
        return connection

    def take_back(self) -> None:
        """Hold the connection again."""
        self._idle = self._reference()

    def close(self) -> None:
        """Close the connection; called by the `QueuePool`."""
        connection = self.lend()
        if connection is not None and self._pid == os.getpid():
            self._close(connection)


class PooledConnection:
    """A connection that a pool has lent out. In a forked child, nothing that is done to it reaches the parent's pool or session.

    Forgetting the driver's connection without closing this frees its place in the pool.
    """

    def __init__(self, pool: HostPool, proxied: PoolProxiedConnection) -> None:
        self._pool = pool
        self._proxied = proxied
        self.slot = cast(Slot, proxied.dbapi_connection)
        self._watch: Any = weakref.ref(self.slot.driver_connection, self._forgotten)
        pool.lent.add(self)

    @property
    def driver_connection(self) -> Any:
        """The driver's connection, which is held by those alone who have asked for it."""
        return self.slot.lend()

    def close(self) -> None:
        """Give the connection back to the pool."""
        if self._leave():
            self.slot.take_back()
            self._proxied.close()
            if self._pool.is_released:
                self._pool.queue.dispose()

    def invalidate(self) -> None:
        """Close the connection and free its place in the pool."""
        if self._leave():
            self._proxied.invalidate()

    def detach(self) -> None:
        """Free the connection's place in the pool and leave the connection alone."""
        if self._leave():
            self._proxied.detach()

    def _forgotten(self, reference: object) -> None:
        self.invalidate()

    def _leave(self) -> bool:
        """Return whether there is a pool of this process that waits for the connection."""
        if self._pool.pid != os.getpid() or self not in self._pool.lent:
            return False
        self._pool.lent.discard(self)
        self._watch = None
        return True


class HostPool:
    """One `QueuePool`. Connections are opened with the arguments of whoever asks for one, above all the password."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.pid = os.getpid()
        self.lent: set[PooledConnection] = set()
        self.used_at = time.monotonic_ns()
        self.is_released = False
        # The queue opens connections on the thread that waits for one.
        self._asking = threading.local()
        # Whoever gives a connection back has reset it.
        self.queue = QueuePool(**{**options, "creator": self._open, "reset_on_return": None})

    def _open(self) -> Any:
        return self._asking.open()

    def connect(self, open_slot: Callable[[], Slot]) -> PooledConnection:
        """Return an idle connection, or a new one made by `open_slot`. Raises what that raises, and SQLAlchemy's errors."""
        self._asking.open = open_slot
        try:
            return PooledConnection(self, self.queue.connect())
        finally:
            del self._asking.open

    def release(self) -> None:
        """Close what is idle now, and what is given back later."""
        self.is_released = True
        self.queue.dispose()


class HostPools:
    """The pools of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[PoolKey, HostPool] = {}
        self._looked_at = time.monotonic_ns()

    def get(self, key: PoolKey) -> HostPool | None:
        with self._lock:
            pool = self._pools.get(key)
            if pool is not None:
                pool.used_at = time.monotonic_ns()
            return pool

    def add(self, key: PoolKey, pool: HostPool) -> HostPool:
        """Return the pool for a key: `pool`, if no other thread was faster."""
        with self._lock:
            return self._pools.setdefault(key, pool)

    def copy(self) -> dict[PoolKey, HostPool]:
        with self._lock:
            return self._pools.copy()

    def expired(self, interval: int, expiration: int) -> list[HostPool]:
        """Take out and return the pools that nobody has used for `expiration` ns; look once in `interval` ns."""
        now = time.monotonic_ns()
        with self._lock:
            if now - self._looked_at < interval:
                return []
            self._looked_at = now
            for pool in self._pools.values():
                if pool.queue.checkedout() > 0:
                    pool.used_at = now
            keys = [key for key, pool in self._pools.items() if now - pool.used_at >= expiration]
            return [self._pools.pop(key) for key in keys]

    def take_all(self) -> list[HostPool]:
        with self._lock:
            pools = list(self._pools.values())
            self._pools.clear()
            return pools
