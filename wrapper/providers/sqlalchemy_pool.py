"""Pooled connections: one SQLAlchemy `QueuePool` per host, user, database and way of connecting.

The pools belong to the process that made them. A forked child starts with none, and neither uses nor closes its parent's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as QueueTimeoutError

from wrapper.chance import chance
from wrapper.decisions.selection import LEAST_CONNECTIONS, Rule, choose, eligible
from wrapper.dialects import DatabaseDialect
from wrapper.drivers.base import DriverDialect
from wrapper.errors import AwsConnectError, AwsWrapperError, PoolTimeoutError, for_driver
from wrapper.hosts import HostInfo, HostRole
from wrapper.providers.base import DriverConnectionProvider
from wrapper.providers.host_pools import HostPool, HostPools, PooledConnection, PoolKey, Slot
from wrapper.session_state import SessionState
from wrapper.urls import EndpointKind, parse_endpoint

_EXPIRATION_NS = 30 * 60 * 10**9
_CLEANUP_INTERVAL_NS = 10 * 60 * 10**9
# Arguments that are fields of the key, or none of its business: a token that was renewed makes no other pool.
_NOT_COMPARED = frozenset({"host", "port", "user", "dbname", "database", "password"})


class SqlAlchemyPooledConnectionProvider:
    """Keeps closed connections for the next one who wants the same; needs SQLAlchemy.

    `pool_configurator(host_info, props)` returns arguments for SQLAlchemy's `QueuePool`. `pool_mapping(host_info, props)` returns a
    text that replaces the user in the key of a pool: users for whom it is the same share connections. `accept_url_func(host_info,
    props)` says which hosts are pooled, instead of instance endpoints only; a name that moves between hosts should not be. A pool
    that nobody has used for `pool_expiration_check_ns` (-1: 30 minutes) is closed by a later connect; they are looked at once in
    `pool_cleanup_interval_ns` (-1: 10 minutes). Raises `AwsWrapperError` for other values below 1.
    """

    def __init__(
        self,
        pool_configurator: Callable[[HostInfo, Mapping[str, Any]], Mapping[str, Any]] | None = None,
        pool_mapping: Callable[[HostInfo, Mapping[str, Any]], str] | None = None,
        accept_url_func: Callable[[HostInfo, Mapping[str, Any]], bool] | None = None,
        pool_expiration_check_ns: int = -1,
        pool_cleanup_interval_ns: int = -1,
    ) -> None:
        self._configurator = pool_configurator
        self._mapping = pool_mapping
        self._accepts = accept_url_func or is_instance
        self._expiration = _duration("pool_expiration_check_ns", pool_expiration_check_ns, _EXPIRATION_NS)
        self._cleanup_interval = _duration("pool_cleanup_interval_ns", pool_cleanup_interval_ns, _CLEANUP_INTERVAL_NS)
        self._by_process: dict[int, HostPools] = {}
        self._selection = DriverConnectionProvider()

    @property
    def _pools(self) -> HostPools:
        # What other processes had stays where it is, never to be touched or collected.
        return self._by_process.get(os.getpid()) or self._by_process.setdefault(os.getpid(), HostPools())

    # -- hosts -----------------------------------------------------------------------------------------------------------------

    def accepts_host_info(self, host_info: HostInfo, props: Mapping[str, Any]) -> bool:
        return self._accepts(host_info, props)

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        return strategy == LEAST_CONNECTIONS or self._selection.accepts_strategy(role, strategy)

    def get_host_info_by_strategy(
        self, hosts: Sequence[HostInfo], role: HostRole, strategy: str, props: Mapping[str, Any]
    ) -> HostInfo | None:
        if strategy != LEAST_CONNECTIONS:
            return self._selection.get_host_info_by_strategy(hosts, role, strategy, props)
        found = eligible(hosts, None if role is HostRole.UNKNOWN else role)
        in_use = self._in_use()
        counted = [replace(host, connections=in_use.get(_url(host), 0)) for host in found]
        return choose(Rule(LEAST_CONNECTIONS), counted, draw=chance.random())

    def _in_use(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for key, pool in self._pools.copy().items():
            counts[key.url] = counts.get(key.url, 0) + pool.queue.checkedout()
        return counts

    # -- connections -----------------------------------------------------------------------------------------------------------

    def connect(
        self,
        target_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        database_dialect: DatabaseDialect | None,
        host_info: HostInfo,
        props: dict[str, Any],
    ) -> PooledConnection:
        """Return a connection of the host's pool. Raises what the driver raises for a new connection, and `PoolTimeoutError`."""
        for expired in self._pools.expired(self._cleanup_interval, self._expiration):
            expired.release()
        arguments = driver_dialect.prepare_connect_info(host_info, props)
        # Set on every connection that is handed out: a row factory made for this one call needs no pool of its own.
        session = {name: arguments[name] for name in driver_dialect.session_attributes if arguments.get(name) is not None}
        key = self._key(target_func, host_info, arguments, session)
        pool = self._pools.get(key) or self._pools.add(key, self._new_pool(host_info, arguments))

        def open_slot() -> Slot:
            return Slot(driver_dialect.unwrap(target_func(**arguments)), driver_dialect.close)

        try:
            pooled = pool.connect(open_slot)
        except QueueTimeoutError as error:
            raise for_driver(PoolTimeoutError, driver_dialect.operational_error())(
                f"none of the {pool.queue.checkedout()} pooled connections to {host_info.get_host_and_port()} became free within "
                f"{pool.queue.timeout():g} s: close connections sooner, or have pool_configurator return a larger pool_size, "
                "max_overflow or timeout"
            ) from error
        except SQLAlchemyError as error:
            # A listener among the pool's arguments refused every connection.
            raise for_driver(AwsConnectError, driver_dialect.operational_error())(
                f"the pool for {host_info.get_host_and_port()} gave no connection: {error}"
            ) from error
        try:
            driver_dialect.set_session_state(pooled.slot.driver_connection, SessionState(session))
        except BaseException:
            pooled.invalidate()
            raise
        return pooled

    def _key(
        self, target: Callable[..., Any], host_info: HostInfo, arguments: Mapping[str, Any], session: Mapping[str, Any]
    ) -> PoolKey:
        if self._mapping is not None:
            extra = self._mapping(host_info, arguments)
            if not isinstance(extra, str):
                raise AwsWrapperError(f"pool_mapping returned a value of type {type(extra).__name__}: expected text")
        else:
            extra = arguments.get("user") or ""
            if not extra:
                raise AwsWrapperError("user is not given: a pool must know whose connections it holds; give user or pool_mapping")
        compared = frozenset(
            (name, _comparable(... if name in session else value)) for name, value in arguments.items() if name not in _NOT_COMPARED
        )
        return PoolKey(_url(host_info), extra, arguments.get("dbname", arguments.get("database")), target, compared)

    def _new_pool(self, host_info: HostInfo, arguments: Mapping[str, Any]) -> HostPool:
        options = {} if self._configurator is None else self._configurator(host_info, arguments)
        if not isinstance(options, Mapping):
            raise AwsWrapperError(f"pool_configurator returned a value of type {type(options).__name__}: expected a dict")
        if options.get("pre_ping"):
            raise AwsWrapperError(
                "pool_configurator returned pre_ping, which needs an engine of SQLAlchemy's; dead connections are found without it"
            )
        try:
            return HostPool(options)
        except TypeError as error:
            raise AwsWrapperError(f"pool_configurator returned arguments that QueuePool does not take: {error}") from error

    # -- the pools of this process ---------------------------------------------------------------------------------------------

    @property
    def num_pools(self) -> int:
        """How many pools there are."""
        return len(self._pools.copy())

    @property
    def pool_urls(self) -> set[str]:
        """The hosts that have pools, as `host:port/`."""
        return {key.url for key in self._pools.copy()}

    def keys(self) -> list[PoolKey]:
        """What the pools are for."""
        return list(self._pools.copy())

    def release_resources(self) -> None:
        """Close the idle connections of all pools, and those in use when they are given back. Later connects make new pools."""
        for pool in self._pools.take_all():
            pool.release()


def is_instance(host_info: HostInfo, props: Mapping[str, Any]) -> bool:
    """Whether a host's name leads to one instance for good: RDS's name for one, or the name under which its cluster lists it."""
    kind = parse_endpoint(host_info.host).kind
    return kind is EndpointKind.INSTANCE or (not kind.is_rds and host_info.host_id is not None)


def _url(host_info: HostInfo) -> str:
    return host_info.url.lower()


def _comparable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _duration(name: str, value: int, default: int) -> int:
    if value == -1:
        return default
    if not isinstance(value, int) or value < 1:
        raise AwsWrapperError(
            f"{name}={value!r} is not valid: expected nanoseconds, at least 1, or -1 for {default // 10**9 // 60} minutes"
        )
    return value
