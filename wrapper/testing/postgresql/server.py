"""A PostgreSQL server of the lab."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg

from wrapper.testing.errors import LabError
from wrapper.testing.postgresql.account import Account
from wrapper.testing.processes import children, freeze_tree, remove_shared_memory, send
from wrapper.testing.server import PATIENCE, Server

SUPERUSER = "postgres"
APPLICATION_NAME = "lab"
# Connections that only the superuser may use: the lab's own, and room to keep a full server full (see `occupy`).
RESERVED = 30

_SETTINGS = """\
# Speed, since nothing here has to survive the machine; otherwise as a replicated server is set up.
fsync = off
full_page_writes = on
wal_log_hints = on
wal_level = replica
hot_standby = on
max_wal_senders = 40
max_replication_slots = 20
max_prepared_transactions = 20
wal_keep_size = 256MB
wal_retrieve_retry_interval = 20ms
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
autovacuum = off
synchronous_commit = local
password_encryption = md5
authentication_timeout = 600s
unix_socket_directories = ''
include_if_exists = 'lab.conf'
"""


# Who has no user name has not logged in yet: what fills a full server (shown since PostgreSQL 18).
_END_SESSIONS = f"""\
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND usename IS NOT NULL AND application_name <> '{APPLICATION_NAME}'"""
# Readers that have on their disks what this server had at a position, by default now. One that was only sent it may lose it when
# the writer is killed; one whose history is another's is sent no more than what was before this server's own began.
_FOLLOWERS = (
    "SELECT application_name FROM pg_stat_replication "
    "WHERE state = 'streaming' AND least(sent_lsn, flush_lsn) >= coalesce(%s::pg_lsn, pg_current_wal_flush_lsn())"
)


class PostgresServer(Server):
    """A PostgreSQL server. `settings`: given on the command line, since configuration files are copied from server to server."""

    driver_error = psycopg.Error

    def __init__(
        self,
        binaries: Path,
        account: Account,
        directory: Path,
        instance_id: str,
        address: str,
        port: int,
        password: str,
        settings: dict[str, str],
    ) -> None:
        super().__init__(directory, instance_id, address, port)
        self.binaries = binaries
        self.account = account
        self.password = password
        self.settings = settings

    # -- making ----------------------------------------------------------------------------------------------------------------

    def initialise(self, settings: dict[str, str]) -> None:
        """Make a new, empty database cluster."""
        password = self.directory / "password"
        password.touch(mode=0o600)
        self._replace(password, self.password)
        self._run(
            "initdb", "-D", str(self.data), "-U", SUPERUSER, f"--pwfile={password}", "-A", "md5", "-E", "UTF8", "--locale=C",
            "--no-sync", "--wal-segsize=1",
        )  # fmt: skip
        password.unlink()
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(_SETTINGS + "".join(f"{name} = '{value}'\n" for name, value in settings.items()))

    def clone(self, source: Server) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        self._run("pg_basebackup", "-D", str(self.data), "-d", conninfo(source), "-c", "fast", "-X", "stream", "--no-sync")
        self._become_standby()

    def convert(self, source: Server) -> None:
        # Before its first checkpoint a promoted server's control file still says the old timeline, and pg_rewind believes it.
        source.ask("CHECKPOINT")
        try:
            self._run("pg_rewind", f"--target-pgdata={self.data}", f"--source-server={conninfo(source)}", "--no-sync")
        except LabError:
            self.clone(source)  # much slower, and always right
        else:
            self._become_standby()

    def _become_standby(self) -> None:
        (self.data / "standby.signal").touch()
        self.account.own(self.data / "standby.signal")

    @property
    def was_writer(self) -> bool:
        return not (self.data / "standby.signal").exists()

    def _write_source(self) -> None:
        text = ""
        if self.source is not None:
            text = f"primary_conninfo = '{conninfo(self.source)} application_name={self.id} connect_timeout=2'\n"
        self._replace(self.data / "lab.conf", text)

    def _write_access(self) -> None:
        lines = [
            f"host all {SUPERUSER} 127.0.0.0/8 md5",
            f"host replication {SUPERUSER} 127.0.0.0/8 md5",
            "host all all 127.0.0.0/8 reject" if self.refuses_logins else "host all all 127.0.0.0/8 md5",
        ]
        self._replace(self.data / "pg_hba.conf", "\n".join(lines) + "\n")

    def _replace(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self.account.own(path)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self.account.prefix, str(self.binaries / program), *arguments]
        self.run(program, command, env=_environment(), **self.account.identity)

    # -- running ---------------------------------------------------------------------------------------------------------------

    def start(self, source: Server | None) -> None:
        self.source = source
        self._write_source()
        self._write_access()
        command = [
            *self.account.prefix, str(self.binaries / "postgres"), "-D", str(self.data),
            "-c", f"listen_addresses={self.address}", "-c", f"port={self.port}",
        ]  # fmt: skip
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        self.process = self.launch(command, env=_environment(), **self.account.identity)
        self.is_hung = False
        self.wait(lambda: self.ask("SELECT 1"), "to answer")

    def session(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(conninfo(self), autocommit=True, connect_timeout=5, application_name=APPLICATION_NAME)

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.session() as connection:
            cursor = connection.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def refresh(self) -> None:
        """Have the server read its configuration again; returns when new sessions get it."""
        loaded = "SELECT pg_conf_load_time()"
        # One session: it is told after the postmaster has read the files, and a new one for each look would cost the machine more
        # than the reload.
        with self.session() as session:
            before = session.execute(loaded).fetchone()
            self._signal(signal.SIGHUP)
            self.wait(lambda: session.execute(loaded).fetchone() != before, "to read its configuration")

    def renew_certificate(self) -> None:
        self.refresh()

    def follow(self, source: Server) -> None:
        self.source = source
        self._write_source()
        if self.is_responsive:
            self.refresh()

    def follows(self, source: Server, timeout: float) -> bool:
        assert isinstance(source, PostgresServer)
        reached = source.ask("SELECT pg_current_wal_flush_lsn()::text")[0][0]
        try:
            source.wait(lambda: self.id in source.followers([self], reached), f"to stream to {self.id}", timeout)
        except LabError:
            return False
        return True

    def followers(self, readers: Iterable[Server], reached: str | None = None) -> set[str]:
        return {row[0] for row in self.ask(_FOLLOWERS, reached)} & {reader.id for reader in readers}

    def position(self) -> int:
        return int(self.ask("SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), '0/0'), '0/0')")[0][0])

    def promote(self, *, drop_sessions: bool) -> float:
        # One session does it all: a new one for each question would cost more time than the promotion, and everybody waits for its
        # end.
        with self.session() as session:
            session.execute("SELECT pg_promote(false)")
            recovering = "SELECT pg_is_in_recovery()"
            self.wait(lambda: session.execute(recovering).fetchone() == (False,), "out of recovery", pause=0.001)
            promoted_at = time.monotonic()
            self.source = None
            if drop_sessions:
                session.execute(_END_SESSIONS)
        return promoted_at

    def drop_sessions(self) -> int:
        ended = [row[0] for row in self.ask(_END_SESSIONS)]
        if ended:
            # Not until nobody is there: clients come back at once.
            self.wait(lambda: not self.ask("SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", ended), "to end its sessions")
        return len(ended)

    def refuse_logins(self, on: bool) -> None:
        self.refuses_logins = on
        self._write_access()
        if self.is_responsive:
            self.refresh()

    def stop(self, *, patience: float = 3.0) -> None:
        """Shut down in order: sessions are ended with 57P01; cut short, with 57P02."""
        if self.is_hung:
            self.resume()
        self.vacate()
        for how in (signal.SIGINT, signal.SIGQUIT):
            if self.process is not None and self.is_running:
                self._signal(how)
                try:
                    self.process.wait(patience if how is signal.SIGINT else PATIENCE)
                except subprocess.TimeoutExpired:
                    continue
        self.kill()

    def kill(self) -> None:
        super().kill()
        remove_shared_memory(self.data / "postmaster.pid")

    def occupy(self, limit: int) -> None:
        # A client that has sent its startup packet and no password holds a slot until `authentication_timeout`, and does not show
        # in pg_stat_activity. Some of the superuser's slots are taken too, so that the server stays full when a few sessions end.
        used = self.ask("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")[0][0]
        words = f"user\0{SUPERUSER}\0database\0postgres\0\0".encode()
        packet = (8 + len(words)).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + words
        for _ in range(limit + RESERVED * 2 // 3 - used):
            client = socket.create_connection((self.address, self.port), timeout=5)
            self._occupied.append(client)
            client.sendall(packet)
            client.recv(1)  # it asks for the password once it has a slot

    def vacate(self) -> None:
        """Give the slots back; returns when the server has noticed."""
        occupied, self._occupied = self._occupied, []
        before = len(self._children())
        for client in occupied:
            client.close()
        # A few others may come meanwhile, so the count is not waited for to the last.
        deadline = time.monotonic() + 2.0
        while occupied and not self.is_hung and len(self._children()) > before - len(occupied) + 5 and time.monotonic() < deadline:
            time.sleep(0.005)

    def _freeze(self) -> set[int]:
        assert self.process is not None
        return {self.process.pid} | freeze_tree(self.process.pid)

    def _hang_acceptor(self) -> None:
        self._signal(signal.SIGSTOP)

    def _pids(self) -> set[int]:
        return self._children() | ({self.process.pid} if self.process is not None else set())

    def _children(self) -> set[int]:
        return children(self.process.pid) if self.process is not None and self.is_running else set()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            send([self.process.pid], number)


def conninfo(server: Server) -> str:
    """Connection text of the superuser."""
    assert isinstance(server, PostgresServer)
    return f"host={server.address} port={server.port} user={SUPERUSER} password={server.password} dbname=postgres sslmode=disable"


def _environment() -> dict[str, str]:
    """Ours, without what would change what PostgreSQL's programs do or the language they speak."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}
