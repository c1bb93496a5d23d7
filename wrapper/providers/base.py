"""The contract of connection providers, the one that uses the driver, and the manager that chooses between them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from wrapper.chance import chance
from wrapper.decisions.selection import ROUND_ROBIN, STRATEGIES, Line, Rule, choose, eligible, line_of
from wrapper.errors import AwsWrapperError, UnsupportedOperationError
from wrapper.hosts import HostInfo, HostRole

if TYPE_CHECKING:
    from wrapper.dialects import DatabaseDialect
    from wrapper.drivers.base import DriverDialect


class ConnectionProvider(Protocol):
    """Where the end of the connect pipeline gets its connections from."""

    def accepts_host_info(self, host_info: HostInfo, props: Mapping[str, Any]) -> bool:
        """Whether connections to this host come from here; otherwise the driver makes them."""
        ...

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        """Whether `get_host_info_by_strategy` knows the strategy."""
        ...

    def get_host_info_by_strategy(
        self, hosts: Sequence[HostInfo], role: HostRole, strategy: str, props: Mapping[str, Any]
    ) -> HostInfo | None:
        """Return one of the hosts, None when none of them has the role and is available. Raises `UnsupportedOperationError` for an
        unknown strategy."""
        ...

    def connect(
        self,
        target_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        database_dialect: DatabaseDialect | None,
        host_info: HostInfo,
        props: dict[str, Any],
    ) -> Any:
        """Return a connection to the host: `target_func(**driver_dialect.prepare_connect_info(host_info, props))`, or one that did
        this earlier. `props` has the driver's parameters only. A pool returns what SQLAlchemy calls a proxied connection: an
        object with `driver_connection`, `close()` (back to the pool), `invalidate()` and `detach()`."""
        ...


class Turns:
    """The running numbers of round robin in this process.

    Each line of hosts has its own, so that nobody's turn is taken by who chooses among other hosts, or by other weights. It begins
    anywhere: a hundred workers that start together must not begin with the same host.
    """

    _MOST = 1024

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, Line], Iterator[int]] = {}

    def take(self, line: Line) -> int:
        """Return the next number of a line."""
        key = (os.getpid(), line)
        number = self._numbers.get(key)
        if number is None:
            if len(self._numbers) >= self._MOST:
                self._numbers.clear()
            first = chance.randrange(sum(length for _, length in line) or 1)
            # One of the threads that come here together wins; taking a number is a single step.
            number = self._numbers.setdefault(key, itertools.count(first))
        return next(number)


TURNS = Turns()


class DriverConnectionProvider:
    """Opens every connection with the driver."""

    def accepts_host_info(self, host_info: HostInfo, props: Mapping[str, Any]) -> bool:
        return True

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        return strategy in STRATEGIES

    def get_host_info_by_strategy(
        self, hosts: Sequence[HostInfo], role: HostRole, strategy: str, props: Mapping[str, Any]
    ) -> HostInfo | None:
        # `props` may be the registry's settings, which know their defaults, or plain text parameters of a user's.
        rule = Rule.of(strategy, props)
        found = eligible(hosts, None if role is HostRole.UNKNOWN else role)
        turn = TURNS.take(line_of(rule, found)) if found and strategy == ROUND_ROBIN else 0
        return choose(rule, found, draw=chance.random(), turn=turn)

    def connect(
        self,
        target_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        database_dialect: DatabaseDialect | None,
        host_info: HostInfo,
        props: dict[str, Any],
    ) -> Any:
        return target_func(**driver_dialect.prepare_connect_info(host_info, props))


class ConnectionProviderManager:
    """Chooses the provider of one connection's physical connections: its own, else the process's, else the driver.

    `own` is the connection's `connection_provider` parameter.
    """

    _default: ClassVar[ConnectionProvider] = DriverConnectionProvider()
    _installed: ClassVar[ConnectionProvider | None] = None

    def __init__(self, own: ConnectionProvider | None = None) -> None:
        if own is not None:
            _check(own)
        self._own = own

    @staticmethod
    def set_connection_provider(provider: ConnectionProvider) -> None:
        """Install a provider for all later connections of this process."""
        _check(provider)
        ConnectionProviderManager._installed = provider

    @staticmethod
    def reset_provider() -> None:
        """Forget the installed provider, without releasing what it holds."""
        ConnectionProviderManager._installed = None

    @staticmethod
    def release_resources() -> None:
        """Let the installed provider go of what it holds: a pooled one closes its idle connections."""
        provider = ConnectionProviderManager._installed
        release = getattr(provider, "release_resources", None)
        if release is not None:
            release()

    @property
    def default_provider(self) -> ConnectionProvider:
        """The one that uses the driver."""
        return self._default

    @property
    def _custom(self) -> ConnectionProvider | None:
        return self._own or ConnectionProviderManager._installed

    def get_connection_provider(self, host_info: HostInfo, props: Mapping[str, Any]) -> ConnectionProvider:
        """Return the provider for connections to a host."""
        custom = self._own or ConnectionProviderManager._installed
        return custom if custom is not None and custom.accepts_host_info(host_info, props) else self._default

    def accepts_strategy(self, role: HostRole, strategy: str) -> bool:
        """Whether either provider knows the strategy."""
        custom = self._custom
        return (custom is not None and custom.accepts_strategy(role, strategy)) or self._default.accepts_strategy(role, strategy)

    def get_host_info_by_strategy(
        self, hosts: Sequence[HostInfo], role: HostRole, strategy: str, props: Mapping[str, Any]
    ) -> HostInfo | None:
        """Return the choice of the custom provider if it knows the strategy, else the default one's."""
        custom = self._custom
        if custom is not None and custom.accepts_strategy(role, strategy):
            try:
                return custom.get_host_info_by_strategy(hosts, role, strategy, props)
            except UnsupportedOperationError:
                pass  # not with these hosts: the default may
        return self._default.get_host_info_by_strategy(hosts, role, strategy, props)


def _check(provider: Any) -> None:
    missing = [
        name
        for name in ("accepts_host_info", "accepts_strategy", "get_host_info_by_strategy", "connect")
        if not callable(getattr(provider, name, None))
    ]
    if missing:
        raise AwsWrapperError(f"{provider!r} is not a connection provider: it has no {', '.join(missing)}")
