"""A cluster of MariaDB servers from nothing."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from zlib import crc32

from wrapper.testing.engine import DATABASE, USER, Engine
from wrapper.testing.errors import LabError
from wrapper.testing.mysql.binaries import find_programs
from wrapper.testing.mysql.server import EXTRA_PORT, SUPERUSER, MySqlServer, as_root
from wrapper.testing.options import Options
from wrapper.testing.processes import die_with_parent
from wrapper.testing.server import Server

# Everything that is not replicated: what the servers have in common from the start. Run by a server without log and without users.
_TEMPLATE = f"""\
FLUSH PRIVILEGES;
DELETE FROM mysql.global_priv WHERE user <> 'mariadb.sys';
FLUSH PRIVILEGES;
CREATE USER {SUPERUSER}@'%' IDENTIFIED BY '{{superuser_password}}';
GRANT ALL PRIVILEGES ON *.* TO {SUPERUSER}@'%' WITH GRANT OPTION;
CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci;
CREATE USER {USER}@'%' IDENTIFIED BY '{{password}}';
GRANT ALL PRIVILEGES ON {DATABASE}.* TO {USER}@'%';
"""
# What a family needs beside the layer: a script, and what applications may read of it.
_AURORA = ("replica_host_status", "aurora_global_db_status", "aurora_global_db_instance_status", "aurora_lab_tables")
_DRESS = {
    "aurora": ("aurora.sql", _AURORA),
    "multi-az": ("rds_topology.sql", ("rds_topology",)),
    "rds": ("rds_topology.sql", ("rds_topology",)),
}


class MySqlEngine(Engine):
    """MariaDB with GTID replication; a flavor of AWS's has a layer in front of each server."""

    superuser = SUPERUSER
    usual_port = 3306
    other_ports = (EXTRA_PORT,)

    def __init__(self, options: Options, password: str, superuser_password: str) -> None:
        super().__init__(options, password, superuser_password)
        self.direct_offset = 100 if options.family else 0
        self._programs = find_programs()
        self._template = self.directory / "template"
        self._server_ids = itertools.count(1)

    def admin_port(self, port: int) -> int:
        return port + EXTRA_PORT

    def resource_id(self, identity: str) -> int:
        return crc32(identity.encode())

    def make_server(self, identity: str, address: str, port: int, direct_address: str) -> MySqlServer:
        settings = [f"--max-connections={self.options.max_connections}"]
        if self.options.synchronous:
            # A commit waits for a reader as long as it takes, also when there is none. A reader that stops takes leave of its
            # writer on a new connection, for one second at most if that hangs.
            settings += ["--rpl-semi-sync-slave-enabled=1", "--rpl-semi-sync-master-timeout=1000000000"]
            settings += ["--rpl-semi-sync-slave-kill-conn-timeout=1"]
        if self.certificates is None:
            settings.append("--skip-ssl")
        else:
            settings += [f"--ssl-cert={self.certificates.certificate}", f"--ssl-key={self.certificates.key}"]
        return MySqlServer(
            self._programs, self._template, self._server_ids, self.directory / identity, identity, address, port, direct_address,
            (self.superuser_password, self.password), tuple(settings), self.certificates,
            family=self.options.family, synchronous=self.options.synchronous,
        )  # fmt: skip

    def found(self, writer: Server, readers: list[Server]) -> None:
        self._make_template()
        servers = [server for server in (writer, *readers) if isinstance(server, MySqlServer)]
        for server in servers:
            shutil.copytree(self._template, server.data)
            server.spawn()
        for server in servers:
            server.come_up(None if server is writer else writer)

    def _make_template(self) -> None:
        self._template.mkdir()
        sql = "CREATE DATABASE mysql;\nUSE mysql;\n"
        for name in ("*_system_tables.sql", "*_system_tables_data.sql"):
            (script,) = self._programs.scripts.glob(name)
            sql += script.read_text(encoding="utf-8")
        sql += _TEMPLATE.format(superuser_password=self.superuser_password, password=self.password)
        if self.options.family:
            folder = Path(__file__).parent
            dress, views = _DRESS[self.options.family]
            sql += (folder / "lab_view.sql").read_text(encoding="utf-8") + (folder / dress).read_text(encoding="utf-8")
            sql += "".join(f"GRANT SELECT ON mysql.{view} TO {USER}@'%';\n" for view in views)
        command = [
            str(self._programs.server), "--no-defaults", "--bootstrap", *as_root(), f"--basedir={self._programs.base}",
            f"--lc-messages-dir={self._programs.scripts}", f"--datadir={self._template}", f"--tmpdir={self.directory}",
            "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=16M", "--innodb-buffer-pool-dump-at-shutdown=0",
            "--log-warnings=0",
        ]  # fmt: skip
        done = subprocess.run(
            command, input=sql, capture_output=True, text=True, cwd=self.directory, check=False, timeout=120,
            preexec_fn=die_with_parent, env={**os.environ, **self._programs.environment},
        )  # fmt: skip
        if done.returncode != 0 or "ERROR" in done.stderr:
            raise LabError(f"mariadbd --bootstrap failed: {done.stderr.strip()[-2000:]}")
