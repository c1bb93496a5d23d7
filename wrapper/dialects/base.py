"""The contract of a database dialect: SQL as text, and pure functions from rows to values. Whoever runs the SQL (a worker's
connection, the monitor's asynchronous session) brings the driver."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from wrapper.errors import AwsWrapperError
from wrapper.hosts import HostRole
from wrapper.monitor.state import TopologyHost
from wrapper.parameters.forms import REGION_PATTERN
from wrapper.urls import EndpointKind, parse_endpoint
from wrapper.version import __version__

Row = Sequence[Any]
# Statements to ask a server one after the other, each answered with its rows; returns the code of its dialect.
Detection = Generator[str, Sequence[Row], str]
# What databases list as the client that asked for their topology.
CLIENT = f"aws_shared_monitor_wrapper-{__version__}"
_NO_INSTANCES = {EndpointKind.PROXY: "an RDS Proxy", EndpointKind.CUSTOM_CLUSTER: "a custom endpoint"}
_REGIONAL = re.compile(rf"\s*(?P<region>{REGION_PATTERN}):(?P<pattern>.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class RoleAnswer:
    """What a session on a host says of that host. `rank` orders claims to be the writer; `id` is the cluster's name for it."""

    role: HostRole
    rank: float = 0.0
    id: str = ""


@dataclass(frozen=True, slots=True)
class InstanceTemplate:
    """How an instance's name becomes an endpoint: `?` stands for the name. `port` replaces the connection's own. `regions`: the
    templates of a Global Database, one for each region."""

    pattern: str = "?"
    port: int | None = None
    regions: tuple[tuple[str, InstanceTemplate], ...] = ()

    @classmethod
    def parse(cls, text: str) -> InstanceTemplate:
        """Read `pattern[:port]`, or a list of `region:pattern[:port]`. Raises `AwsWrapperError` when one has no `?`, for ports that
        are none and names that no instance has."""
        regional = [_REGIONAL.fullmatch(item) for item in text.split(",")]
        if all(regional):
            return cls(regions=tuple((match["region"].lower(), cls.parse(match["pattern"])) for match in regional if match))
        pattern, colon, port = text.strip().partition(":")
        if "?" not in pattern:
            raise AwsWrapperError(
                f"cluster_instance_host_pattern={text!r} has no '?'; write the endpoint of any instance with '?' in place of the "
                "instance's name, for example '?.xyz.us-east-2.rds.amazonaws.com'"
            )
        if colon and not (port.isdecimal() and 0 < int(port) < 65536):
            raise AwsWrapperError(f"cluster_instance_host_pattern={text!r} has the port {port!r}; expected 1 to 65535")
        other = _NO_INSTANCES.get(parse_endpoint(pattern.replace("?", "x")).kind)
        if other is not None:
            raise AwsWrapperError(
                f"cluster_instance_host_pattern={text!r} is the name of {other}; expected the endpoint of an instance with '?' in "
                "place of the instance's name"
            )
        return cls(pattern, int(port) if colon else None)

    def __str__(self) -> str:
        if self.regions:
            return ",".join(f"{region}:{template}" for region, template in self.regions)
        return self.pattern if self.port is None else f"{self.pattern}:{self.port}"

    def in_region(self, region: str) -> InstanceTemplate | None:
        """Return the template for the instances of a region; None when it is not known how they are called."""
        if self.regions:
            return dict(self.regions).get(region)
        own = parse_endpoint(self.endpoint("instance")).region
        return self if own in (None, region) else None

    def endpoint(self, name: str) -> str:
        """Return the endpoint of the instance called `name`."""
        return self.pattern.replace("?", name)


class DatabaseDialect:
    """One database flavour. Instances hold no state; one serves the whole process."""

    code: ClassVar[str]
    engine: ClassVar[str]
    default_port: ClassVar[int]
    # Asks a host for its role on a session of its own: one row for `role_answer`.
    role_query: ClassVar[str]
    # Lists the cluster's members: rows for `topology_hosts`; None where the flavour has no such table.
    topology_query: ClassVar[str | None] = None
    # What a monitoring user must be granted, named when the server refuses a query above.
    grants: ClassVar[str] = ""
    # The flavour of a host that has what this one is recognised by, and lists no members all the same.
    without_members: ClassVar[str | None] = None

    @property
    def is_topology_aware(self) -> bool:
        """Whether the database itself can list the hosts of its cluster."""
        return self.topology_query is not None

    def role_answer(self, row: Row) -> RoleAnswer:
        """Return what the row of `role_query` says."""
        raise NotImplementedError

    def topology_hosts(self, rows: Sequence[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
        """Return the members that the rows of `topology_query` list, `port` being the connection's own; empty for "no data"."""
        return ()


def own_word(is_reader: bool, instance: str | None, rank: Any) -> RoleAnswer:
    """Return what a host says of itself; `rank` of its claim to be the writer, None where the cluster's table does not list it."""
    if is_reader:
        return RoleAnswer(HostRole.READER, id=instance or "")
    if rank is None:
        # Promoted, but the cluster's own table does not list it as the writer yet: it claims nothing.
        return RoleAnswer(HostRole.UNKNOWN, id=instance or "")
    return RoleAnswer(HostRole.WRITER, rank=float(rank), id=instance or "")


def endpoint_host(
    identity: Any, endpoint: str, port: Any, role: HostRole, template: InstanceTemplate, own_port: int
) -> TopologyHost:
    """Return the member that a table lists by its whole endpoint, of which a template that says something replaces all but the
    instance's name."""
    host = endpoint if template.pattern == "?" else template.endpoint(endpoint.partition(".")[0])
    return TopologyHost(host=host, port=template.port or int(port or own_port), id=str(identity), role=role.value)


def listed(rows: Iterable[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
    """Return the members that a cluster's table lists: rows of name, whether it is the writer, CPU load in percent, lag in
    milliseconds. Rows without a name are skipped."""
    members: dict[str, TopologyHost] = {}
    for instance, is_writer, cpu, lag in rows:
        if not instance:
            continue
        member = TopologyHost(
            host=template.endpoint(instance),
            port=template.port or port,
            id=instance,
            role=(HostRole.WRITER if is_writer else HostRole.READER).value,
            cpu=None if cpu is None else float(cpu),
            lag_ms=None if lag is None else float(lag),
        )
        members[member.key] = member
    return tuple(members.values())


def detected(detection: Detection, ask: Callable[[str], Sequence[Row]]) -> str:
    """Return what a detection comes to, `ask` being how a statement is run."""
    try:
        sql = next(detection)
        while True:
            sql = detection.send(ask(sql))
    except StopIteration as stop:
        return str(stop.value)
