"""What differs per database flavour: the SQL that recognises it, reads its topology and asks a host for its role."""

from __future__ import annotations

from wrapper.dialects.base import DatabaseDialect, RoleAnswer
from wrapper.dialects.global_database import GlobalAuroraMySqlDialect, GlobalAuroraPostgresDialect
from wrapper.dialects.mysql import AuroraMySqlDialect, MariaDbDialect, MySqlDialect, RdsMySqlDialect
from wrapper.dialects.postgresql import AuroraPostgresDialect, PostgresDialect, RdsPostgresDialect

DIALECTS: dict[str, DatabaseDialect] = {
    dialect.code: dialect
    for dialect in (
        PostgresDialect(),
        RdsPostgresDialect(),
        AuroraPostgresDialect(),
        GlobalAuroraPostgresDialect(),
        MySqlDialect(),
        MariaDbDialect(),
        RdsMySqlDialect(),
        AuroraMySqlDialect(),
        GlobalAuroraMySqlDialect(),
    )
}

__all__ = ["DIALECTS", "DatabaseDialect", "RoleAnswer"]
