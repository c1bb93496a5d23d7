"""What differs per database flavour: the SQL that recognises it, reads its topology and asks a host for its role."""

from __future__ import annotations

from wrapper.dialects.base import DatabaseDialect, RoleAnswer
from wrapper.dialects.global_database import GlobalAuroraMySqlDialect, GlobalAuroraPostgresDialect
from wrapper.dialects.mysql import AuroraMySqlDialect, MariaDbDialect, MultiAzMySqlDialect, MySqlDialect, RdsMySqlDialect
from wrapper.dialects.postgresql import AuroraPostgresDialect, MultiAzPostgresDialect, PostgresDialect, RdsPostgresDialect

DIALECTS: dict[str, DatabaseDialect] = {
    dialect.code: dialect
    for dialect in (
        PostgresDialect(),
        RdsPostgresDialect(),
        AuroraPostgresDialect(),
        GlobalAuroraPostgresDialect(),
        MultiAzPostgresDialect(),
        MySqlDialect(),
        MariaDbDialect(),
        RdsMySqlDialect(),
        AuroraMySqlDialect(),
        GlobalAuroraMySqlDialect(),
        MultiAzMySqlDialect(),
    )
}


def settled(dialect: DatabaseDialect, has_members: bool) -> DatabaseDialect:
    """Return the flavour of a host that was recognised as `dialect`, once it was asked for the members of its cluster."""
    return dialect if has_members or dialect.without_members is None else DIALECTS[dialect.without_members]


def what_it_may_lack(dialect: DatabaseDialect | None) -> str:
    """Return, for a log line, which right of the user's may be all that keeps a host from being recognised as what it is."""
    better = [other for other in DIALECTS.values() if dialect is not None and other.without_members == dialect.code]
    return "".join(f"; if it is one of {other.code!r}, grant {other.grants}" for other in better)


__all__ = ["DIALECTS", "DatabaseDialect", "RoleAnswer", "settled", "what_it_may_lack"]
