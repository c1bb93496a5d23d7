"""The parameters of mysql-connector-python: whose they are, which are refused, and what its connect function is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import mysql.connector
from mysql.connector.constants import CNX_POOL_ARGS, DEFAULT_CONFIGURATION

from wrapper.drivers.mysql_socket import Keepalive
from wrapper.errors import AwsWrapperError
from wrapper.settings import Settings

_READ_IT = "read the file yourself (mysql.connector.optionfiles) and pass what it says as keyword arguments"
# Parameters of the driver's by which connections would be chosen, shared or configured behind our back, and what to do instead.
REFUSED = {
    **dict.fromkeys(
        CNX_POOL_ARGS, "pool the wrapper's connections, or use a pooled connection provider (docs/connection-providers.md)"
    ),
    "failover": "the plugin failover_v2 finds the cluster's hosts by itself",
    "dns_srv": "give the endpoint itself as host",
    "option_files": _READ_IT,
    "option_groups": _READ_IT,
    "read_default_file": _READ_IT,
}


def is_known(name: str) -> bool:
    """Whether the driver's connect function takes a parameter of this name."""
    return name in DEFAULT_CONFIGURATION or name in REFUSED


def endpoint(parameters: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the host and port that the parameters lead to, None for a Unix socket."""
    if parameters.get("unix_socket"):
        return None
    return parameters.get("host") or str(DEFAULT_CONFIGURATION["host"]), _port(parameters)


def connect_arguments(parameters: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return the arguments of the connect function; `tcp_keepalive` among them is for ours around it.

    Raises `AwsWrapperError` for a parameter that cannot be used.
    """
    for name, instead in REFUSED.items():
        if parameters.get(name):
            raise AwsWrapperError(f"the driver's parameter {name} cannot be used through the wrapper: {instead}")
    if parameters.get("use_pure") is False and not mysql.connector.HAVE_CEXT:
        raise AwsWrapperError(f"use_pure=False: {_why_no_extension()}; use_pure=True always works")
    arguments = {name: value for name, value in parameters.items() if name not in REFUSED}
    if "port" in arguments:
        arguments["port"] = _port(parameters)
    # The C extension wants whole seconds; 0 means for ever.
    arguments["connection_timeout"] = math.ceil(settings["connect_timeout"]) or None
    timeout = settings["socket_timeout"]
    if timeout:
        for name in ("read_timeout", "write_timeout"):
            arguments.setdefault(name, max(1, math.ceil(timeout)))
    arguments["tcp_keepalive"] = Keepalive(
        settings["tcp_keepalive"] is not False,
        settings["tcp_keepalive_time"],
        settings["tcp_keepalive_interval"],
        settings["tcp_keepalive_probes"],
    )
    return arguments


def _port(parameters: Mapping[str, Any]) -> int:
    port = parameters.get("port") or DEFAULT_CONFIGURATION["port"]
    try:
        return int(str(port))
    except (TypeError, ValueError):
        raise AwsWrapperError(f"port={port!r} is not valid: expected one port number") from None


def _why_no_extension() -> str:
    try:
        import_module("_mysql_connector")
    except ImportError as error:
        reason = f"cannot be loaded ({error}); from version 26.7 on it needs OpenSSL 3.2: install 9.7 where Python has an older one"
    else:
        # As when ssl was imported first, with another OpenSSL, and the extension could be loaded only now.
        reason = "could not be loaded when mysql.connector was imported"
    return f"the C extension of mysql-connector-python {mysql.connector.__version__} {reason}"
