"""Failover, failure detection and topology for Amazon Aurora and RDS, shared by all worker processes of a host.

Importing this package starts nothing and loads no driver; names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wrapper.version import __version__

if TYPE_CHECKING:
    from wrapper.connection import AwsWrapperConnection
    from wrapper.cursor import AwsWrapperCursor
    from wrapper.drivers.classify import ExceptionHandler, ExceptionManager
    from wrapper.errors import (
        AwsConnectError,
        AwsWrapperError,
        DatabaseError,
        DataError,
        Error,
        FailoverError,
        FailoverFailedError,
        FailoverSuccessError,
        IntegrityError,
        InterfaceError,
        InternalError,
        NotSupportedError,
        OperationalError,
        ProgrammingError,
        QueryTimeoutError,
        ReadWriteSplittingError,
        TransactionResolutionUnknownError,
        UnsupportedOperationError,
        Warning,
    )
    from wrapper.hosts import HostAvailability, HostInfo, HostRole
    from wrapper.log import set_logger
    from wrapper.pipeline import register_plugin
    from wrapper.plugin import Plugin, PluginFactory

# Where the names that are loaded on first use live; all others are exceptions.
_HOMES = {
    "AwsWrapperConnection": "wrapper.connection",
    "AwsWrapperCursor": "wrapper.cursor",
    "ExceptionHandler": "wrapper.drivers.classify",
    "ExceptionManager": "wrapper.drivers.classify",
    "HostAvailability": "wrapper.hosts",
    "HostInfo": "wrapper.hosts",
    "HostRole": "wrapper.hosts",
    "Plugin": "wrapper.plugin",
    "PluginFactory": "wrapper.plugin",
    "register_plugin": "wrapper.pipeline",
    "set_logger": "wrapper.log",
}

# PEP 249.
apilevel = "2.0"
threadsafety = 1
paramstyle = "pyformat"


def connect(target: Any = None, conninfo: str = "", **kwargs: Any) -> AwsWrapperConnection:
    """The same as `AwsWrapperConnection.connect`."""
    from wrapper.connection import AwsWrapperConnection

    return AwsWrapperConnection.connect(target, conninfo, **kwargs)


def release_resources() -> None:
    """Stop what the wrapper runs in this process. Open connections go on working; the next new one starts it again."""
    import sys

    # What was never imported runs nothing.
    profiles = sys.modules.get("wrapper.profiles")
    if profiles is not None:
        profiles.release_providers()
    providers = sys.modules.get("wrapper.providers.base")
    if providers is not None:
        providers.ConnectionProviderManager.release_resources()
    process = sys.modules.get("wrapper.monitor.process")
    if process is not None:
        process.close_client()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES.get(name, "wrapper.errors")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "AwsConnectError",
    "AwsWrapperConnection",
    "AwsWrapperCursor",
    "AwsWrapperError",
    "DataError",
    "DatabaseError",
    "Error",
    "ExceptionHandler",
    "ExceptionManager",
    "FailoverError",
    "FailoverFailedError",
    "FailoverSuccessError",
    "HostAvailability",
    "HostInfo",
    "HostRole",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "Plugin",
    "PluginFactory",
    "ProgrammingError",
    "QueryTimeoutError",
    "ReadWriteSplittingError",
    "TransactionResolutionUnknownError",
    "UnsupportedOperationError",
    "Warning",
    "__version__",
    "apilevel",
    "connect",
    "paramstyle",
    "register_plugin",
    "release_resources",
    "set_logger",
    "threadsafety",
]
