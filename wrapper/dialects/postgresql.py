"""PostgreSQL flavours: community, RDS, RDS Multi-AZ DB cluster, Aurora.

All SQL is schema-qualified, operators included, so that a session's `search_path` cannot change its meaning. Sources: PostgreSQL
manual (recovery and WAL functions), Aurora user guide (`aurora_replica_status`, `aurora_db_instance_identifier`), RDS user guide
(Multi-AZ DB clusters: the extension `rds_tools`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from wrapper.dialects.base import (
    CLIENT,
    DatabaseDialect,
    Detection,
    InstanceTemplate,
    RoleAnswer,
    Row,
    endpoint_host,
    listed,
    own_word,
)
from wrapper.hosts import HostRole
from wrapper.monitor.state import TopologyHost

# One round trip tells nearly every PostgreSQL flavour apart: the extensions RDS lists, whether Aurora's status function exists, how
# many of a Multi-AZ DB cluster's functions this user may call, and whether those of a Global Database may be called. The former are
# not looked up by `to_regproc`, which is an error where the schema exists and may not be used.
DETECT_QUERY = """\
SELECT (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name OPERATOR(pg_catalog.=) 'rds.extensions'),
       pg_catalog.to_regproc('pg_catalog.aurora_replica_status') IS NOT NULL,
       (SELECT pg_catalog.count(*)
          FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
         WHERE n.nspname OPERATOR(pg_catalog.=) 'rds_tools' AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
           AND p.proname OPERATOR(pg_catalog.=) ANY (ARRAY['multi_az_db_cluster_source_dbi_resource_id', 'dbi_resource_id'])
           AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')),
       pg_catalog.has_function_privilege(pg_catalog.to_regproc('pg_catalog.aurora_global_db_status')::pg_catalog.oid, 'EXECUTE')
           AND pg_catalog.has_function_privilege(
               pg_catalog.to_regproc('pg_catalog.aurora_global_db_instance_status')::pg_catalog.oid, 'EXECUTE')"""
# Every newer Aurora has these functions; what a Global Database has is more than one region.
REGIONS_QUERY = "SELECT pg_catalog.count(1) FROM pg_catalog.aurora_global_db_status()"


def detect(row: Row) -> str:
    """Return the dialect code that the row of `DETECT_QUERY` stands for."""
    extensions, has_replica_status, multi_az_functions = row[0] or "", row[1], row[2]
    if "aurora_stat_utils" in extensions and has_replica_status:
        return AuroraPostgresDialect.code
    if multi_az_functions >= 2:
        # Or a single instance with the same extension: the functions say which, when they are asked for the members.
        return MultiAzPostgresDialect.code
    if "rds_tools" in extensions:
        return RdsPostgresDialect.code
    return PostgresDialect.code


def detection() -> Detection:
    """Ask a server which flavour it is."""
    (row,) = yield DETECT_QUERY
    code = detect(row)
    if code == AuroraPostgresDialect.code and row[-1]:
        ((regions,),) = yield REGIONS_QUERY
        if regions > 1:
            return f"global-{code}"
    return code


# The first eight hex digits of a WAL file's name are its timeline; the function refuses to work during recovery.
_TIMELINE = """\
CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL
            ELSE ('x' OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
                 )::pg_catalog.bit(32)::pg_catalog.int8
       END"""


class PostgresDialect(DatabaseDialect):
    """Community PostgreSQL: a host knows its own role, nobody knows the cluster. Claims are ranked by timeline."""

    code: ClassVar[str] = "pg"
    engine: ClassVar[str] = "postgresql"
    default_port: ClassVar[int] = 5432
    role_query: ClassVar[str] = f"SELECT pg_catalog.pg_is_in_recovery(), NULL, {_TIMELINE}"

    def role_answer(self, row: Row) -> RoleAnswer:
        in_recovery, instance, rank = row
        return own_word(in_recovery, instance, rank)


class RdsPostgresDialect(PostgresDialect):
    """A single RDS PostgreSQL instance."""

    code: ClassVar[str] = "rds-pg"


class MultiAzPostgresDialect(PostgresDialect):
    """An RDS Multi-AZ DB cluster: every instance can list the three of them, by resource ids. Claims are ranked by timeline."""

    code: ClassVar[str] = "multi-az-pg"
    without_members: ClassVar[str | None] = RdsPostgresDialect.code
    role_query: ClassVar[str] = f"""\
SELECT pg_catalog.pg_is_in_recovery(), (SELECT dbi_resource_id FROM rds_tools.dbi_resource_id()),
       (SELECT multi_az_db_cluster_source_dbi_resource_id FROM rds_tools.multi_az_db_cluster_source_dbi_resource_id()),
       {_TIMELINE}"""
    # A single instance has the functions too. It has no source, and what it lists is a Blue/Green Deployment.
    topology_query: ClassVar[str | None] = f"""\
SELECT t.id, t.endpoint, t.port, t.id OPERATOR(pg_catalog.=) s.multi_az_db_cluster_source_dbi_resource_id
  FROM rds_tools.show_topology('{CLIENT}') t,
       (SELECT multi_az_db_cluster_source_dbi_resource_id FROM rds_tools.multi_az_db_cluster_source_dbi_resource_id()) s
 WHERE s.multi_az_db_cluster_source_dbi_resource_id IS NOT NULL"""
    grants: ClassVar[str] = "USAGE on schema rds_tools and EXECUTE on all functions in it"

    def role_answer(self, row: Row) -> RoleAnswer:
        in_recovery, instance, source, timeline = row
        # Promoted, but the cluster still has another source: it claims nothing yet.
        return own_word(in_recovery, instance, timeline if source in (None, instance) else None)

    def topology_hosts(self, rows: Sequence[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
        return tuple(
            endpoint_host(instance, endpoint, its_port, HostRole.WRITER if is_source else HostRole.READER, template, port)
            for instance, endpoint, its_port, is_source in rows
            if endpoint
        )


class AuroraPostgresDialect(PostgresDialect):
    """Aurora PostgreSQL: every instance can list the cluster. Claims are ranked by the time of the master session's row."""

    code: ClassVar[str] = "aurora-pg"
    role_query: ClassVar[str] = """\
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.aurora_db_instance_identifier(),
       (SELECT EXTRACT(EPOCH FROM COALESCE(s.LAST_UPDATE_TIMESTAMP, pg_catalog.now()))
          FROM pg_catalog.aurora_replica_status() s
         WHERE s.SESSION_ID OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID'
           AND s.SERVER_ID OPERATOR(pg_catalog.=) pg_catalog.aurora_db_instance_identifier() LIMIT 1)"""
    # Rows that were not refreshed for five minutes belong to deleted instances, unless they claim to be the writer.
    topology_query: ClassVar[str | None] = """\
SELECT s.SERVER_ID, s.SESSION_ID OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID', s.CPU, COALESCE(s.REPLICA_LAG_IN_MSEC, 0)
  FROM pg_catalog.aurora_replica_status() s
 WHERE EXTRACT(EPOCH FROM (pg_catalog.now() OPERATOR(pg_catalog.-) s.LAST_UPDATE_TIMESTAMP)) OPERATOR(pg_catalog.<=) 300
    OR s.SESSION_ID OPERATOR(pg_catalog.=) 'MASTER_SESSION_ID' OR s.LAST_UPDATE_TIMESTAMP IS NULL"""
    grants: ClassVar[str] = "EXECUTE on pg_catalog.aurora_replica_status() and pg_catalog.aurora_db_instance_identifier()"

    def topology_hosts(self, rows: Sequence[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
        return listed(rows, template, port)
