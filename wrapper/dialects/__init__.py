"""What differs per database flavour: the SQL that recognises it, reads its topology and asks a host for its role."""

from __future__ import annotations

from wrapper.dialects.base import DatabaseDialect, RoleAnswer
from wrapper.dialects.mysql import AuroraMySqlDialect, MariaDbDialect, MultiAzMySqlDialect, MySqlDialect, RdsMySqlDialect
from wrapper.dialects.postgresql import AuroraPostgresDialect, MultiAzPostgresDialect, PostgresDialect, RdsPostgresDialect

DIALECTS: dict[str, DatabaseDialect] = {
    dialect.code: dialect
    for dialect in (
        PostgresDialect(),
        RdsPostgresDialect(),
        AuroraPostgresDialect(),
        MultiAzPostgresDialect(),
        MySqlDialect(),
        MariaDbDialect(),
        RdsMySqlDialect(),
        AuroraMySqlDialect(),
        MultiAzMySqlDialect(),
    )
}


def settled(dialect: DatabaseDialect, has_members: bool) -> DatabaseDialect:
    """Return the flavour of a host that was recognised as `dialect`, once it was asked for the members of its cluster."""
    return dialect if has_members or dialect.without_members is None else DIALECTS[dialect.without_members]


__all__ = ["DIALECTS", "DatabaseDialect", "RoleAnswer", "settled"]
