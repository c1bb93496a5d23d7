"""What an endpoint's name says about it: RDS instance, cluster, reader, custom, proxy, global, or none of these.

Source: the endpoint formats of the Amazon RDS and Aurora user guides, for the public, China, GovCloud and isolated partitions; and
`.rds.test`, under which labs imitate them (.test is reserved for this, RFC 2606).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from wrapper.hosts import HostRole


class EndpointKind(Enum):
    """What kind of endpoint a host name is."""

    # Members are what they are: Enum's own would hash the name, in Python, at every connect.
    __hash__ = object.__hash__

    WRITER_CLUSTER = "writer cluster"
    READER_CLUSTER = "reader cluster"
    CUSTOM_CLUSTER = "custom cluster"
    GLOBAL_CLUSTER = "global cluster"
    PROXY = "proxy"
    SHARD_GROUP = "limitless shard group"
    INSTANCE = "instance"
    IP_ADDRESS = "IP address"
    OTHER = "other"

    @property
    def is_rds(self) -> bool:
        """Whether RDS gave the name, so that it says how the cluster's instances are called."""
        return self not in (EndpointKind.IP_ADDRESS, EndpointKind.OTHER)


_ROLES = {
    EndpointKind.WRITER_CLUSTER: HostRole.WRITER,
    EndpointKind.GLOBAL_CLUSTER: HostRole.WRITER,
    EndpointKind.READER_CLUSTER: HostRole.READER,
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host name taken apart.

    `template` is the instance template that its domain implies, None when it implies none. `role`: that of every host that the
    name leads to, None when it says nothing of it. `is_one_host`: whether it leads to the same host always, as far as it says.
    """

    host: str
    kind: EndpointKind
    name: str = ""
    region: str | None = None
    template: str | None = None
    role: HostRole | None = field(init=False)
    is_one_host: bool = field(init=False)

    def __post_init__(self) -> None:
        # Worked out once per name: every connect asks.
        object.__setattr__(self, "role", _ROLES.get(self.kind))
        object.__setattr__(self, "is_one_host", self.role is None and self.kind is not EndpointKind.CUSTOM_CLUSTER)


_TOKENS = {
    "cluster-": EndpointKind.WRITER_CLUSTER,
    "cluster-ro-": EndpointKind.READER_CLUSTER,
    "cluster-custom-": EndpointKind.CUSTOM_CLUSTER,
    "shardgrp-": EndpointKind.SHARD_GROUP,
    "proxy-": EndpointKind.PROXY,
    "global-": EndpointKind.GLOBAL_CLUSTER,
    None: EndpointKind.INSTANCE,
}
_RDS = re.compile(
    r"""(?P<name>.+?)\.
        (?P<token>cluster-custom-|cluster-ro-|cluster-|shardgrp-|proxy-|global-)?
        (?P<domain>(?P<id>[a-z0-9]+)\.
          (?: (?P<region1>[a-z0-9-]+)\.rds(?:-fips)?\.(?:amazonaws\.(?:com|com\.cn|eu|au|uk)|test)
            | rds\.(?P<region2>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|c2s\.ic\.gov|sc2s\.sgov\.gov) ))
        \Z""",
    re.VERBOSE,
)


def other_endpoint(host: str) -> str | None:
    """Return the reader endpoint of the cluster whose writer endpoint this is, and the reverse; None for other names.

    >>> other_endpoint("db.cluster-xyz.us-east-2.rds.amazonaws.com")
    'db.cluster-ro-xyz.us-east-2.rds.amazonaws.com'
    """
    endpoint = parse_endpoint(host)
    if endpoint.kind is EndpointKind.WRITER_CLUSTER:
        return endpoint.host.replace(".cluster-", ".cluster-ro-", 1)
    if endpoint.kind is EndpointKind.READER_CLUSTER:
        return endpoint.host.replace(".cluster-ro-", ".cluster-", 1)
    return None


@lru_cache(maxsize=1024)
def parse_endpoint(host: str) -> Endpoint:
    """Return what the name of a host says. Case and a trailing dot do not matter."""
    name = host.strip().lower().rstrip(".")
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        pass
    else:
        return Endpoint(name, EndpointKind.IP_ADDRESS)
    match = _RDS.fullmatch(name)
    if match is None:
        return Endpoint(name, EndpointKind.OTHER)
    kind = _TOKENS[match["token"]]
    region = match["region1"] or match["region2"]
    if kind is EndpointKind.GLOBAL_CLUSTER:
        return Endpoint(name, kind, match["name"])
    template = None if kind is EndpointKind.PROXY else f"?.{match['domain']}"
    return Endpoint(name, kind, match["name"], region, template)
