"""`gdb_failover`: the failover of a connection to a Global Database, which has a home region.

Where the connection may end up depends on whether its home has the writer. Everything else is `wrapper.plugins.failover_v2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wrapper.decisions.failover import FailoverMode, Policy
from wrapper.errors import AwsWrapperError
from wrapper.monitor.regions import Regions
from wrapper.plugin import Plugin
from wrapper.plugins.failover_v2 import FailoverV2Plugin
from wrapper.settings import Settings
from wrapper.urls import Endpoint, EndpointKind, parse_endpoint

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

_WRITERS = frozenset({EndpointKind.WRITER_CLUSTER, EndpointKind.GLOBAL_CLUSTER})


def policy_of(endpoint: Endpoint, settings: Settings, accessible: Regions) -> Policy:
    """Return what the parameters and the endpoint say. Raises `AwsWrapperError` for what is missing or cannot be."""
    home = settings["failover_home_region"] or endpoint.region
    if home is None:
        raise AwsWrapperError(
            f"gdb_failover needs failover_home_region: {endpoint.host} is a {endpoint.kind.value} endpoint, which has no region"
            if endpoint.kind.is_rds
            else f"gdb_failover needs failover_home_region: the name {endpoint.host} says nothing of a region"
        )
    if accessible and home not in accessible:
        raise AwsWrapperError(f"gdb_accessible_regions={','.join(accessible)!r} leaves out the home region {home}")
    if not settings["global_cluster_instance_host_patterns"] and not settings["cluster_instance_host_pattern"]:
        raise AwsWrapperError(
            "gdb_failover needs global_cluster_instance_host_patterns: the endpoint of the instances of each region, such as "
            f"{home}:?.xyz.{home}.rds.amazonaws.com"
        )
    default = FailoverMode.STRICT_WRITER if endpoint.kind in _WRITERS else FailoverMode.HOME_READER_OR_WRITER
    active, inactive = (
        default if settings[name] is None else FailoverMode(settings[name])
        for name in ("active_home_failover_mode", "inactive_home_failover_mode")
    )
    return Policy(active, inactive, home)


class GdbFailoverPluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        assert isinstance(props, Settings)
        if plugin_service.watch is None:
            return FailoverV2Plugin(plugin_service, props)  # there is nothing to fail over to, and no region either
        endpoint = parse_endpoint(plugin_service.watch.host)
        policy = policy_of(endpoint, props, plugin_service.known_cluster.accessible_regions)
        return FailoverV2Plugin(plugin_service, props, policy=policy)
