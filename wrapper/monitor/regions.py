"""The regions of a Global Database: where a host is, and which hosts may be reached at all. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from ..hosts import split_host_key
from ..urls import parse_endpoint
from .state import ClusterState, TopologyHost

Regions = tuple[str, ...]


def either(*accessible: Regions) -> Regions:
    """Return the regions that anybody may reach; none stands for all."""
    if not all(accessible):
        return ()
    return tuple(sorted({region for regions in accessible for region in regions}))


def is_within(member: TopologyHost, accessible: Regions) -> bool:
    """Whether a member may be reached. One of which nobody knows the endpoint may not; regions matter in Global Databases only."""
    return bool(member.host) and (not accessible or member.region in ("", *accessible))


def split(members: Iterable[TopologyHost], accessible: Regions) -> tuple[tuple[TopologyHost, ...], tuple[TopologyHost, ...]]:
    """Return the members that may be reached, and the others."""
    found = tuple(members)
    near = tuple(member for member in found if is_within(member, accessible))
    return near, tuple(member for member in found if not is_within(member, accessible))


def within(cluster: ClusterState, accessible: Regions) -> ClusterState:
    """Return the cluster as somebody sees it who may reach these regions only: nothing is known of hosts elsewhere but that they
    are listed."""
    topology = cluster.topology
    near, far = split(topology.hosts, accessible) if accessible else (topology.hosts, ())
    if not far:
        return cluster
    gone = {member.key for member in far}
    moved = tuple(
        replace(member, role="writer" if member.key == topology.writer else "reader") if topology.writer else member
        for member in far
    )
    topology = replace(
        topology,
        hosts=near,
        elsewhere=(*topology.elsewhere, *moved),
        writer=None if topology.writer in gone else topology.writer,
        conflict=() if gone.intersection(topology.conflict) else topology.conflict,
    )
    return replace(cluster, topology=topology, health={key: health for key, health in cluster.health.items() if key not in gone})


def region_of(key: str, views: Iterable[ClusterState]) -> str | None:
    """Return the region of a host: as the cluster lists it, else as its name says; None when neither does."""
    for view in views:
        member = view.topology.member(key)
        if member is not None and member.region:
            return member.region
    return parse_endpoint(split_host_key(key)[0]).region
