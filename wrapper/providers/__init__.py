"""Connection providers: where physical connections come from, the driver itself or a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wrapper.providers.base import ConnectionProvider, ConnectionProviderManager, DriverConnectionProvider

if TYPE_CHECKING:
    from wrapper.providers.sqlalchemy_pool import SqlAlchemyPooledConnectionProvider


def __getattr__(name: str) -> Any:
    if name == "SqlAlchemyPooledConnectionProvider":
        # SQLAlchemy is loaded by those who use it.
        from wrapper.providers.sqlalchemy_pool import SqlAlchemyPooledConnectionProvider

        return SqlAlchemyPooledConnectionProvider
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ConnectionProvider",
    "ConnectionProviderManager",
    "DriverConnectionProvider",
    "SqlAlchemyPooledConnectionProvider",
]
