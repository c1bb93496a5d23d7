"""A cluster of PostgreSQL servers from nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zlib import crc32

import psycopg

from wrapper.testing.engine import DATABASE, USER, Engine
from wrapper.testing.options import Options
from wrapper.testing.postgresql.account import choose_account
from wrapper.testing.postgresql.binaries import find_binaries
from wrapper.testing.postgresql.server import RESERVED, SUPERUSER, PostgresServer, conninfo
from wrapper.testing.server import Server

_EXTENSIONS = {"aurora": "aurora_stat_utils,rds_tools", "multi-az": "rds_tools", "rds": "rds_tools"}
_SCRIPTS = {
    "aurora": ("rds.sql", "aurora.sql"),
    "multi-az": ("rds.sql", "rds_tools.sql"),
    "rds": ("rds.sql", "rds_tools.sql"),
    "": (),
}


class PostgresEngine(Engine):
    """PostgreSQL with streaming replication."""

    superuser = SUPERUSER
    usual_port = 5432

    def __init__(self, options: Options, password: str, superuser_password: str) -> None:
        super().__init__(options, password, superuser_password)
        self._binaries = find_binaries()
        self._account = choose_account(self._binaries, self.directory)

    def resource_id(self, identity: str) -> str:
        return f"db-{crc32(identity.encode()):08X}"

    def make_server(self, identity: str, address: str, port: int, direct_address: str) -> PostgresServer:
        settings = {"cluster_name": identity}
        if self.options.family:
            settings |= {"rds.extensions": _EXTENSIONS[self.options.family], "rds_lab.instance_id": identity}
            settings["rds_lab.resource_id"] = self.resource_id(identity)
        if self.certificates is not None:
            self._account.own(self.certificates.key)
            settings |= {
                "ssl": "on",
                "ssl_cert_file": str(self.certificates.certificate),
                "ssl_key_file": str(self.certificates.key),
            }
        folder = self.directory / identity
        return PostgresServer(self._binaries, self._account, folder, identity, address, port, self.superuser_password, settings)

    def found(self, writer: Server, readers: list[Server]) -> None:
        for server in (writer, *readers):
            self._account.own(server.directory)
        assert isinstance(writer, PostgresServer)
        settings = {
            "max_connections": str(self.options.max_connections + RESERVED),
            "superuser_reserved_connections": str(RESERVED),
        }
        if self.options.synchronous:
            settings["synchronous_standby_names"] = "ANY 1 (*)"
        writer.initialise(settings)
        writer.start(None)
        self._dress(writer)
        with ThreadPoolExecutor(len(readers) or 1) as pool:
            list(pool.map(lambda reader: reader.clone(writer), readers))
        # One after the other, here: the kernel ties a server to the thread that started it.
        for reader in readers:
            reader.start(writer)
        wanted = {reader.id for reader in readers}
        writer.wait(lambda: wanted <= writer.followers(readers), f"to stream to {', '.join(wanted)}")

    def _dress(self, writer: PostgresServer) -> None:
        scripts = _SCRIPTS[self.options.family]
        for database in ("template1", "postgres") if scripts else ():
            with psycopg.connect(conninfo(writer), dbname=database, autocommit=True) as connection:
                for name in scripts:
                    connection.execute((Path(__file__).parent / name).read_text(encoding="utf-8"))
        with writer.session() as connection:
            connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{self.password}'")
            if self.options.synchronous:
                connection.execute(f"ALTER ROLE {USER} SET synchronous_commit = on")
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}")
