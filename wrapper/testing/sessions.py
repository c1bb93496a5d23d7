"""The client sessions that a server of the lab has, as the superuser sees them."""

from __future__ import annotations

from contextlib import closing
from typing import Any

_POSTGRESQL = """\
SELECT pid, usename, application_name, state, query FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND usename IS NOT NULL
   AND pid <> pg_backend_pid() AND application_name NOT LIKE 'lab%'"""
_MYSQL = """\
SELECT id AS pid, user AS usename, coalesce(attr_value, '') AS application_name, command AS state, coalesce(info, '') AS query
  FROM information_schema.processlist
  LEFT JOIN performance_schema.session_connect_attrs ON processlist_id = id AND attr_name = 'program_name'
 WHERE user NOT IN (substring_index(user(), '@', 1), 'system user', 'unauthenticated user', 'event_scheduler')"""


def client_sessions(engine: str, admin: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the sessions of the server that `admin` are the superuser's connection parameters for, without the lab's own."""
    if engine == "mysql":
        import mysql.connector

        with closing(mysql.connector.connect(use_pure=True, **admin)) as session:
            cursor = session.cursor(dictionary=True)
            cursor.execute(_MYSQL)
            return list(cursor.fetchall())
    import psycopg
    from psycopg.rows import dict_row

    with psycopg.connect(**admin, row_factory=dict_row, application_name="lab", connect_timeout=5) as connection:
        return connection.execute(_POSTGRESQL).fetchall()
