"""Aurora Global Database, PostgreSQL and MySQL: one cluster over several regions, with one writer.

A host says of itself what any Aurora says; the list of members is another one, with the region of each. Source: Aurora user guide
(`aurora_global_db_status`, `aurora_global_db_instance_status`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from wrapper.dialects.base import InstanceTemplate, Row
from wrapper.dialects.mysql import AuroraMySqlDialect, is_on
from wrapper.dialects.postgresql import AuroraPostgresDialect
from wrapper.hosts import HostRole
from wrapper.monitor.state import TopologyHost
from wrapper.urls import parse_endpoint

# The region of a host that has none: is in nobody's list.
UNKNOWN_REGION = "unknown"


class GlobalAuroraPostgresDialect(AuroraPostgresDialect):
    """Aurora PostgreSQL as a Global Database."""

    code: ClassVar[str] = "global-aurora-pg"
    topology_query: ClassVar[str | None] = """\
SELECT s.SERVER_ID, s.SESSION_ID OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID', s.VISIBILITY_LAG_IN_MSEC, s.AWS_REGION
  FROM pg_catalog.aurora_global_db_instance_status() s"""
    grants: ClassVar[str] = f"{AuroraPostgresDialect.grants} and pg_catalog.aurora_global_db_instance_status()"

    def topology_hosts(self, rows: Sequence[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
        return _listed(rows, template, port)


class GlobalAuroraMySqlDialect(AuroraMySqlDialect):
    """Aurora MySQL as a Global Database."""

    code: ClassVar[str] = "global-aurora-mysql"
    topology_query: ClassVar[str | None] = """\
SELECT s.SERVER_ID, s.SESSION_ID = 'MASTER_SESSION_ID' AS is_writer, s.VISIBILITY_LAG_IN_MSEC, s.AWS_REGION
  FROM information_schema.aurora_global_db_instance_status s"""

    def topology_hosts(self, rows: Sequence[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
        return _listed(((name, is_on(is_writer), lag, region) for name, is_writer, lag, region in rows), template, port)


def _listed(rows: Iterable[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
    """Return the members that rows of name, whether it is the writer, lag in milliseconds and region stand for."""
    members: dict[tuple[str, str], TopologyHost] = {}
    for instance, is_writer, lag, region in rows:
        if not instance:
            continue
        region = (region or "").lower()
        own = template.in_region(region) or InstanceTemplate("")
        endpoint = own.endpoint(instance)
        member = TopologyHost(
            host=endpoint,
            port=own.port or port,
            id=instance,
            role=(HostRole.WRITER if is_writer else HostRole.READER).value,
            lag_ms=None if lag is None else float(lag),
            region=region or parse_endpoint(endpoint).region or UNKNOWN_REGION,
        )
        members[member.key, instance] = member
    return tuple(members.values())
