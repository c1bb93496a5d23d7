"""MySQL flavours: community, RDS, Aurora, and MariaDB.

Sources: MySQL manual (server system variables), Aurora user guide (`information_schema.replica_host_status`, `@@aurora_server_id`).
No statement here depends on the session's database, `sql_mode` or collation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from wrapper.dialects.base import DatabaseDialect, InstanceTemplate, RoleAnswer, Row, listed, own_word
from wrapper.hosts import HostRole
from wrapper.monitor.state import TopologyHost

# One round trip tells every flavour apart: a variable that a server does not have is no row here, and an error in any other way of
# asking for it.
DETECT_QUERY = "SHOW VARIABLES WHERE Variable_name IN ('aurora_version', 'version', 'version_comment', 'report_host')"

# A member in `topology_query`: name, whether it is the writer, CPU, lag.
_MEMBER_COLUMNS = 4

# How servers write a switch that is off; one that is on has several values in newer versions of MariaDB.
_OFF = frozenset({"0", "OFF", "FALSE"})


def detect(rows: Sequence[Row]) -> str:
    """Return the dialect code that the rows of `DETECT_QUERY` stand for."""
    variables = {str(name): str(value or "").lower() for name, value in rows}
    comment = variables.get("version_comment", "")
    if "aurora_version" in variables:
        return AuroraMySqlDialect.code
    if "mariadb" in variables.get("version", "") or "mariadb" in comment:
        return MariaDbDialect.code
    if comment == "source distribution" and variables.get("report_host"):
        return RdsMySqlDialect.code
    return MySqlDialect.code


def role_and_members(dialect: DatabaseDialect) -> str:
    """Return `role_query` and `topology_query` as one: each row is the host's own word, and then a member; without members there is
    one row with nothing but NULL behind the word."""
    return f"SELECT * FROM ({dialect.role_query}) AS own LEFT JOIN ({dialect.topology_query}) AS member ON TRUE"


def split(rows: Sequence[Row]) -> tuple[Row, list[Row]]:
    """Return the row of `role_query` and the rows of `topology_query` that the rows of both together hold."""
    return rows[0][:-_MEMBER_COLUMNS], [row[-_MEMBER_COLUMNS:] for row in rows]


def _is_on(switch: Any) -> bool:
    return str(switch).upper() not in _OFF


class MySqlDialect(DatabaseDialect):
    """Community MySQL: a host knows whether it takes writes, nobody knows the cluster. Claims have no rank."""

    code: ClassVar[str] = "mysql"
    engine: ClassVar[str] = "mysql"
    default_port: ClassVar[int] = 3306
    role_query: ClassVar[str] = "SELECT @@global.read_only, @@global.innodb_read_only"

    def role_answer(self, row: Row) -> RoleAnswer:
        return RoleAnswer(HostRole.READER if any(map(_is_on, row)) else HostRole.WRITER)


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
         WHERE s.SESSION_ID = 'MASTER_SESSION_ID' AND s.SERVER_ID = @@aurora_server_id LIMIT 1) AS claimed_at"""
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
        return own_word(_is_on(is_read_only), instance, rank)

    def topology_hosts(self, rows: Sequence[Row], template: InstanceTemplate, port: int) -> tuple[TopologyHost, ...]:
        return listed(((name, _is_on(is_writer), cpu, lag) for name, is_writer, cpu, lag in rows), template, port)
