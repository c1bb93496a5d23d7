"""MySQL flavours: community, RDS, RDS Multi-AZ DB cluster, Aurora, and MariaDB.

Sources: MySQL manual (server system variables), Aurora user guide (`information_schema.replica_host_status`,
`@@aurora_server_id`), RDS user guide (Multi-AZ DB clusters: `mysql.rds_topology`).
No statement here depends on the session's database, `sql_mode` or collation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from wrapper.dialects.base import DatabaseDialect, Detection, InstanceTemplate, RoleAnswer, Row, endpoint_host, listed, own_word
from wrapper.hosts import HostRole
from wrapper.monitor.state import TopologyHost

# One round trip tells nearly every MySQL flavour apart. Asking for Aurora's variable by name is an error elsewhere. Two variables
# that all have say something by being among the rows: `server_id`, that there is a Multi-AZ DB cluster's table of members that this
# user may read; `port`, that there are both of a Global Database's tables.
DETECT_QUERY = """\
SHOW VARIABLES WHERE Variable_name IN ('aurora_version', 'version', 'version_comment', 'report_host')
   OR Variable_name = 'server_id' AND EXISTS (SELECT 1 FROM information_schema.tables t
                                               WHERE t.table_schema = 'mysql' AND t.table_name = 'rds_topology')
   OR Variable_name = 'port'
      AND 2 = (SELECT COUNT(*) FROM information_schema.tables t
                WHERE UPPER(t.table_schema) = 'INFORMATION_SCHEMA'
                  AND UPPER(t.table_name) IN ('AURORA_GLOBAL_DB_STATUS', 'AURORA_GLOBAL_DB_INSTANCE_STATUS'))"""
# What a Global Database has is more than one region.
REGIONS_QUERY = "SELECT COUNT(*) FROM information_schema.aurora_global_db_status"

# How servers write a switch that is off; one that is on has several values in newer versions of MariaDB.
_OFF = frozenset({"0", "OFF", "FALSE"})


def detect(rows: Sequence[Row]) -> str:
    """Return the dialect code that the rows of `DETECT_QUERY` stand for."""
    variables = _variables(rows)
    comment = variables.get("version_comment", "")
    if "aurora_version" in variables:
        return AuroraMySqlDialect.code
    if "mariadb" in variables.get("version", "") or "mariadb" in comment:
        return MariaDbDialect.code
    if comment == "source distribution" and variables.get("report_host"):
        # Where there is a table it may also be that of a single instance's Blue/Green Deployment: asking for the members tells.
        return (MultiAzMySqlDialect if "server_id" in variables else RdsMySqlDialect).code
    return MySqlDialect.code


def detection() -> Detection:
    """Ask a server which flavour it is."""
    rows = yield DETECT_QUERY
    code = detect(rows)
    if code == AuroraMySqlDialect.code and "port" in _variables(rows):
        ((regions,),) = yield REGIONS_QUERY
        if int(regions) > 1:
            return f"global-{code}"
    return code


def _variables(rows: Sequence[Row]) -> dict[str, str]:
    return {str(name).lower(): str(value or "").lower() for name, value in rows}


def is_on(switch: Any) -> bool:
    """Whether a value of a server's stands for true."""
    return str(switch).upper() not in _OFF


class MySqlDialect(DatabaseDialect):
    """Community MySQL: a host knows whether it takes writes, nobody knows the cluster. Claims have no rank."""

    code: ClassVar[str] = "mysql"
    engine: ClassVar[str] = "mysql"
    default_port: ClassVar[int] = 3306
    # How many columns `role_query` has.
    role_width: ClassVar[int] = 2
    role_query: ClassVar[str] = "SELECT @@global.read_only, @@global.innodb_read_only"

    @property
    def joined_query(self) -> str:
        """`role_query` and `topology_query` as one statement, since a protocol without multiple statements knows no other way to
        ask both in one round trip: each row begins with the role."""
        return f"SELECT * FROM ({self.role_query}) AS own LEFT JOIN ({self.topology_query}) AS members ON TRUE"

    def split(self, rows: Sequence[Row]) -> tuple[Row, list[Row]]:
        """Return the row of `role_query` and the rows of `topology_query` in those of `joined_query`."""
        return rows[0][: self.role_width], [row[self.role_width :] for row in rows if row[self.role_width] is not None]

    def role_answer(self, row: Row) -> RoleAnswer:
        return RoleAnswer(HostRole.READER if any(map(is_on, row)) else HostRole.WRITER)


class MariaDbDialect(MySqlDialect):
    """MariaDB, RDS for MariaDB included."""

    code: ClassVar[str] = "mariadb"


class RdsMySqlDialect(MySqlDialect):
    """A single RDS for MySQL instance."""

    code: ClassVar[str] = "rds-mysql"


class MultiAzMySqlDialect(MySqlDialect):
    """An RDS Multi-AZ DB cluster: every instance can list the three of them, by server ids.

    Who is the writer stands in no table. A host knows it of itself; of the others the writer knows that they are not. Claims have
    no rank: what GTIDs could say is how much a host has executed, and a writer whose last commits nobody got would for ever outrank
    its successor.
    """

    code: ClassVar[str] = "multi-az-mysql"
    without_members: ClassVar[str | None] = RdsMySqlDialect.code
    role_query: ClassVar[str] = """\
SELECT @@global.read_only AS ro, @@global.innodb_read_only AS iro, @@server_id AS own_id"""
    role_width: ClassVar[int] = 3
    # `role` is a column of the table for Blue/Green Deployments; where the table lacks it, it is that of `lacking`, which is NULL.
    topology_query: ClassVar[str | None] = """\
SELECT t.id, t.endpoint, t.port, @@server_id AS asked_id, @@global.read_only AS asked_ro, @@global.innodb_read_only AS asked_iro
  FROM mysql.rds_topology t
 WHERE NOT EXISTS (SELECT 1 FROM (SELECT NULL AS role) lacking
                    WHERE EXISTS (SELECT 1 FROM mysql.rds_topology WHERE role LIKE 'BLUE_GREEN%'))"""
    grants: ClassVar[str] = "SELECT on mysql.rds_topology"

    def role_answer(self, row: Row) -> RoleAnswer:
        *switches, server_id = row
        return own_word(any(map(is_on, switches)), str(server_id), 0)

    def topology_hosts(self, rows: Sequence[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
        return tuple(
            endpoint_host(server_id, endpoint, its_port, _listed_role(server_id, asked, switches), template, port)
            for server_id, endpoint, its_port, asked, *switches in rows
            if endpoint
        )


def _listed_role(server_id: Any, asked: Any, switches: Sequence[Any]) -> HostRole:
    """What the host `asked` knows of the role of host `server_id`."""
    is_writer = not any(map(is_on, switches))
    if str(server_id) == str(asked):
        return HostRole.WRITER if is_writer else HostRole.READER
    return HostRole.READER if is_writer else HostRole.UNKNOWN


class AuroraMySqlDialect(MySqlDialect):
    """Aurora MySQL: every instance can list the cluster. Claims are ranked by the time of the master session's row."""

    code: ClassVar[str] = "aurora-mysql"
    role_query: ClassVar[str] = """\
SELECT @@innodb_read_only AS iro, @@aurora_server_id AS own_id,
       (SELECT UNIX_TIMESTAMP(s.LAST_UPDATE_TIMESTAMP)
          FROM information_schema.replica_host_status s
         WHERE s.SESSION_ID = 'MASTER_SESSION_ID' AND s.SERVER_ID = @@aurora_server_id LIMIT 1) AS since"""
    role_width: ClassVar[int] = 3
    # Rows five minutes older than the newest belong to deleted instances, unless they claim to be the writer. They are not compared
    # with the time of day, which a session may have in another time zone.
    topology_query: ClassVar[str | None] = """\
SELECT s.SERVER_ID, s.SESSION_ID = 'MASTER_SESSION_ID' AS is_writer, s.CPU, s.REPLICA_LAG_IN_MILLISECONDS
  FROM information_schema.replica_host_status s
 WHERE s.SESSION_ID = 'MASTER_SESSION_ID' OR s.LAST_UPDATE_TIMESTAMP IS NULL
    OR s.LAST_UPDATE_TIMESTAMP >= (SELECT MAX(newest.LAST_UPDATE_TIMESTAMP)
                                     FROM information_schema.replica_host_status newest) - INTERVAL 300 SECOND"""
    # Every user may read the table and the variables.
    grants: ClassVar[str] = ""

    def role_answer(self, row: Row) -> RoleAnswer:
        is_read_only, instance, rank = row
        return own_word(is_on(is_read_only), instance, rank)

    def topology_hosts(self, rows: Sequence[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
        return listed(((name, is_on(is_writer), cpu, lag) for name, is_writer, cpu, lag in rows), template, port)
