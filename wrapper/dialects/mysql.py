"""MySQL flavours: community, RDS, Aurora, and MariaDB.

Sources: MySQL manual (server system variables), Aurora user guide (`information_schema.replica_host_status`, `@@aurora_server_id`).
No statement here depends on the session's database, `sql_mode` or collation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from wrapper.dialects.base import DatabaseDialect, Detection, InstanceTemplate, RoleAnswer, Row, listed, own_word
from wrapper.hosts import HostRole
from wrapper.monitor.state import TopologyHost

# A row means Aurora: asking for the variable itself is an error everywhere else. Only without one the second query is needed.
AURORA_QUERY = "SHOW VARIABLES LIKE 'aurora_version'"
FLAVOUR_QUERY = "SELECT @@version, @@version_comment, @@report_host"
# Both tables or none; what a Global Database has is more than one region.
GLOBAL_QUERY = """\
SELECT COUNT(*) FROM information_schema.tables t
 WHERE UPPER(t.TABLE_SCHEMA) = 'INFORMATION_SCHEMA'
   AND UPPER(t.TABLE_NAME) IN ('AURORA_GLOBAL_DB_STATUS', 'AURORA_GLOBAL_DB_INSTANCE_STATUS')"""
REGIONS_QUERY = "SELECT COUNT(*) FROM information_schema.aurora_global_db_status"

# How servers write a switch that is off; one that is on has several values in newer versions of MariaDB.
_OFF = frozenset({"0", "OFF", "FALSE"})


def detect(aurora: Sequence[Row], flavour: Row = ("", "", "")) -> str:
    """Return the dialect code that the rows of `AURORA_QUERY` and the row of `FLAVOUR_QUERY` stand for."""
    if aurora:
        return AuroraMySqlDialect.code
    version, comment, report_host = (str(value or "").lower() for value in flavour)
    if "mariadb" in version or "mariadb" in comment:
        return MariaDbDialect.code
    if comment == "source distribution" and report_host:
        return RdsMySqlDialect.code
    return MySqlDialect.code


def detection() -> Detection:
    """Ask a server which flavour it is."""
    if not (yield AURORA_QUERY):
        (flavour,) = yield FLAVOUR_QUERY
        return detect((), flavour)
    for query in (GLOBAL_QUERY, REGIONS_QUERY):
        ((count,),) = yield query
        if int(count) < 2:
            return AuroraMySqlDialect.code
    return f"global-{AuroraMySqlDialect.code}"


def is_on(switch: Any) -> bool:
    """Whether a value of a server's stands for true."""
    return str(switch).upper() not in _OFF


class MySqlDialect(DatabaseDialect):
    """Community MySQL: a host knows whether it takes writes, nobody knows the cluster. Claims have no rank."""

    code: ClassVar[str] = "mysql"
    engine: ClassVar[str] = "mysql"
    default_port: ClassVar[int] = 3306
    role_query: ClassVar[str] = "SELECT @@global.read_only, @@global.innodb_read_only"

    def role_answer(self, row: Row) -> RoleAnswer:
        return RoleAnswer(HostRole.READER if any(map(is_on, row)) else HostRole.WRITER)


class MariaDbDialect(MySqlDialect):
    """MariaDB, RDS for MariaDB included."""

    code: ClassVar[str] = "mariadb"


class RdsMySqlDialect(MySqlDialect):
    """A single RDS for MySQL instance."""

    code: ClassVar[str] = "rds-mysql"


class AuroraMySqlDialect(MySqlDialect):
    """Aurora MySQL: every instance can list the cluster. Claims are ranked by the time of the master session's row."""

    code: ClassVar[str] = "aurora-mysql"
    role_query: ClassVar[str] = """\
SELECT @@innodb_read_only, @@aurora_server_id,
       (SELECT UNIX_TIMESTAMP(s.LAST_UPDATE_TIMESTAMP)
          FROM information_schema.replica_host_status s
         WHERE s.SESSION_ID = 'MASTER_SESSION_ID' AND s.SERVER_ID = @@aurora_server_id LIMIT 1)"""
    # Rows five minutes older than the newest belong to deleted instances, unless they claim to be the writer. They are not compared
    # with the time of day, which a session may have in another time zone.
    topology_query: ClassVar[str | None] = """\
SELECT s.SERVER_ID, s.SESSION_ID = 'MASTER_SESSION_ID', s.CPU, s.REPLICA_LAG_IN_MILLISECONDS
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
