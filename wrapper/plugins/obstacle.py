"""Where there is no failover, and how the application learns of it: by a note on the driver's own error, and once from the log."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from wrapper.dialects import what_it_may_lack
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import add_note
from wrapper.urls import EndpointKind

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

logger = logging.getLogger(__name__)

_said: set[str] = set()


def obstacle(service: PluginService) -> str | None:
    """Return why connections to the endpoint never fail over; None where they do."""
    assert service.watch is not None
    host, dialect = service.watch.host, service.database_dialect
    if service.known_cluster.endpoint_kind is EndpointKind.PROXY:
        return f"no failover: {host} is an RDS Proxy, which chooses the host itself"
    if dialect is None or dialect.is_topology_aware:
        return None
    return f"no failover: {host} leads to a database of the kind {dialect.code!r}, which knows of no other hosts"


def has_obstacle(service: PluginService, error: Exception) -> bool:
    """Whether the loss that `error` tells of starts no failover. A note on the error then says why; else it is as the driver made
    it."""
    reason = obstacle(service)
    if reason is None:
        return False
    add_note(error, reason)
    if reason not in _said:
        _said.add(reason)
        logger.warning("%s%s", reason, what_it_may_lack(service.database_dialect))
    return True


def is_in_vain(service: PluginService) -> bool:
    """Whether a connection that should be left leads where there is no failover."""
    if obstacle(service) is None:
        return False
    # Plugins also look when the driver has just refused to make a cursor of a lost connection, while that error is on its way.
    error = sys.exc_info()[1]
    if isinstance(error, Exception) and service.driver_dialect.classify(error) is ErrorKind.NETWORK:
        has_obstacle(service, error)
    return True
