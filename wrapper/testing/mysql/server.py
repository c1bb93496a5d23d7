"""A MariaDB server of the lab, with the layer in front of it that makes it one of RDS's or Aurora's."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mysql.connector
from mysql.connector.abstracts import MySQLConnectionAbstract

from wrapper.testing.certificates import Certificates
from wrapper.testing.engine import USER
from wrapper.testing.errors import LabError
from wrapper.testing.mysql.binaries import Programs
from wrapper.testing.mysql.settings import SETTINGS
from wrapper.testing.processes import is_alive, send
from wrapper.testing.server import PATIENCE, Server

SUPERUSER = "lab"
# Where the superuser and the replication connect, past what makes a server full; as a difference to the port.
EXTRA_PORT = 1
_FEWEST_CONNECTIONS = 10  # what MariaDB lets max_connections be at least

_SESSIONS = f"""\
SELECT id FROM information_schema.processlist
 WHERE user NOT IN ('{SUPERUSER}', 'system user', 'unauthenticated user', 'event_scheduler')"""


class MySqlServer(Server):
    """A MariaDB server. `address` is where applications connect; where the server itself listens is `direct_address`, the same when
    no layer is between. A reader's data begin as those of `template`, the history of the writer makes the rest."""

    driver_error = mysql.connector.Error

    def __init__(
        self,
        programs: Programs,
        template: Path,
        server_ids: Iterator[int],
        directory: Path,
        instance_id: str,
        address: str,
        port: int,
        direct_address: str,
        passwords: tuple[str, str],
        settings: tuple[str, ...],
        certificates: Certificates | None,
        *,
        family: str,
        synchronous: bool,
    ) -> None:
        super().__init__(directory, instance_id, address, port)
        self.programs = programs
        self.template = template
        self.server_ids = server_ids
        self.settings = settings
        self.certificates = certificates
        self.password, self.application_password = passwords
        self.family = family
        self.synchronous = synchronous
        self.server_id = next(server_ids)
        self._direct_address = direct_address
        self._layer: subprocess.Popen[bytes] | None = None
        self._was_writer = False
        self._max_connections = 0

    @property
    def direct_address(self) -> str:
        return self._direct_address

    @property
    def was_writer(self) -> bool:
        return self._was_writer

    # -- sessions --------------------------------------------------------------------------------------------------------------

    def session(self) -> closing[MySQLConnectionAbstract]:
        session = mysql.connector.connect(
            host=self.direct_address, port=self.port + EXTRA_PORT, user=SUPERUSER, password=self.password, database="mysql",
            autocommit=True, connection_timeout=5, use_pure=True, ssl_disabled=True,
        )  # fmt: skip
        assert isinstance(session, MySQLConnectionAbstract)
        return closing(session)

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.session() as session:
            return query(session, sql, *parameters)

    # -- starting --------------------------------------------------------------------------------------------------------------

    def clone(self, source: Server) -> None:
        """Return to the template. Under its old number a server would skip what it once wrote itself and was replicated."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(self.template, self.data)
        self.server_id = next(self.server_ids)
        self._was_writer = False

    def convert(self, source: Server) -> None:
        """Nothing while it is down: as it starts, the writer looks whether its history has this one's end in it."""

    def start(self, source: Server | None) -> None:
        self.spawn()
        self.come_up(source)

    def spawn(self) -> None:
        """Start the processes."""
        if self.direct_address != self.address:
            command = [sys.executable, "-m", "wrapper.testing.mysql.layer", self.family]
            command += [self.address, str(self.port), self.direct_address]
            if self.certificates is not None:
                command += [str(self.certificates.certificate), str(self.certificates.key)]
            self._layer = self.launch(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        command = [
            str(self.programs.server), "--no-defaults", *as_root(), f"--basedir={self.programs.base}",
            f"--lc-messages-dir={self.programs.scripts}", f"--datadir={self.data}", f"--tmpdir={self.directory}", "--socket=socket",
            "--pid-file=pid", f"--bind-address={self.direct_address}", f"--port={self.port}",
            f"--extra-port={self.port + EXTRA_PORT}", f"--server-id={self.server_id}", f"--report-host={self.id}",
            "--read-only=1", *SETTINGS, *self.settings,
        ]  # fmt: skip
        self.process = self.launch(command, env={**os.environ, **self.programs.environment})
        self.is_hung = False

    def come_up(self, source: Server | None) -> None:
        """Take the role, then let applications in: to a reader once it follows. A former writer that is not fit to stays closed."""
        self.source = source
        self.wait(lambda: self.ask("SELECT 1"), "to answer", pause=0.01)
        with self.session() as session:
            self._write_access(session)
            if source is None:
                self._take_writes(session)
            else:
                self._replicate(session, source)
        if source is None or not source.is_responsive:
            self._open()
        else:
            self.follows(source, PATIENCE)

    def _open(self) -> None:
        """Let applications in, if they are not yet."""
        if self._layer is not None:
            assert self._layer.stdin is not None
            assert self._layer.stdout is not None
            if self._layer.stdin.closed:
                return
            self._layer.stdin.write(b"\n")
            self._layer.stdin.close()
            if not self._layer.stdout.readline():
                raise LabError(f"the layer of {self.id} did not start:\n{self.log.read_text(errors='replace')[-1500:]}")

    # -- replication -----------------------------------------------------------------------------------------------------------

    def follow(self, source: Server) -> None:
        self.source = source
        if self.is_responsive:
            with self.session() as session:
                self._replicate(session, source)

    def refresh(self) -> None:
        status = self._replica_status() if self.source is not None else {}
        if self.source is not None and status.get("Master_Host") != self.source.direct_address:
            self.follow(self.source)

    def renew_certificate(self) -> None:
        self.ask("FLUSH SSL")  # the layer reads its file for each session

    def _replicate(self, session: MySQLConnectionAbstract, source: Server) -> None:
        query(session, "STOP SLAVE")
        if self._was_writer:
            query(session, "SET GLOBAL gtid_slave_pos = @@gtid_binlog_pos")
        query(
            session,
            "CHANGE MASTER TO MASTER_HOST = %s, MASTER_PORT = %s, MASTER_USER = %s, MASTER_PASSWORD = %s, "
            "MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = 1",
            source.direct_address, source.port + EXTRA_PORT, SUPERUSER, self.password,
        )  # fmt: skip
        query(session, "START SLAVE")

    def _replica_status(self, session: MySQLConnectionAbstract | None = None) -> dict[str, Any]:
        """Return the row of SHOW SLAVE STATUS; empty for a writer."""
        if session is None:
            with self.session() as session:
                return self._replica_status(session)
        with session.cursor(dictionary=True) as cursor:
            cursor.execute("SHOW SLAVE STATUS")
            row: dict[str, Any] | None = cursor.fetchone()  # type: ignore[assignment]
            return row or {}

    def follows(self, source: Server, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        with self.session() as session:
            if self._replica_status(session).get("Slave_IO_Running") == "Connecting":
                self._replicate(session, source)  # at once, instead of at its next attempt
            while not replicates(status := self._replica_status(session), source):
                has_failed = status.get("Slave_IO_Running") == "No" or status.get("Slave_SQL_Running") == "No"
                if has_failed or not self.is_running or time.monotonic() > deadline:
                    return False
                time.sleep(0.005)
            reached = query(session, "SELECT MASTER_GTID_WAIT(%s, %s)", source.ask("SELECT @@gtid_binlog_pos")[0][0], timeout)
        if reached != [(0,)]:
            return False
        self._was_writer = False
        self._open()
        return True

    def followers(self, readers: Iterable[Server]) -> set[str]:
        return {reader.id for reader in readers if isinstance(reader, MySqlServer) and replicates(reader._replica_status(), self)}

    def position(self) -> int:
        with self.session() as session:
            received = self._replica_status(session).get("Gtid_IO_Pos", "")
            return max(_sequence(received), _sequence(str(query(session, "SELECT @@gtid_slave_pos")[0][0])))

    def promote(self, *, drop_sessions: bool) -> float:
        with self.session() as session:
            query(session, "STOP SLAVE IO_THREAD")
            received = self._replica_status(session).get("Gtid_IO_Pos", "")
            if query(session, "SELECT MASTER_GTID_WAIT(%s, %s)", received, PATIENCE) != [(0,)]:
                raise LabError(f"{self.id} did not apply what it had received within {PATIENCE:g} s")
            query(session, "STOP SLAVE")
            query(session, "RESET SLAVE ALL")
            self._take_writes(session)
            promoted_at = time.monotonic()
            self.source = None
            if drop_sessions:
                self._end_sessions(session)
        return promoted_at

    def _take_writes(self, session: MySQLConnectionAbstract) -> None:
        self._was_writer = True
        if self.synchronous:
            query(session, "SET GLOBAL rpl_semi_sync_master_enabled = 1")
        query(session, "SET GLOBAL read_only = 0")

    # -- faults ----------------------------------------------------------------------------------------------------------------

    def drop_sessions(self) -> int:
        with self.session() as session:
            return self._end_sessions(session)

    def _end_sessions(self, session: MySQLConnectionAbstract) -> int:
        ended = {row[0] for row in query(session, _SESSIONS)}
        for number in ended:
            try:
                query(session, f"KILL {number}")
            except mysql.connector.Error:
                continue  # it has ended by itself
        self.wait(lambda: not ended & {row[0] for row in query(session, _SESSIONS)}, "to end its sessions")
        return len(ended)

    def refuse_logins(self, on: bool) -> None:
        self.refuses_logins = on
        if self.is_responsive:
            with self.session() as session:
                self._write_access(session)

    def _write_access(self, session: MySQLConnectionAbstract) -> None:
        query(session, "SET sql_log_bin = 0")  # on this server alone
        password = secrets.token_hex(8) if self.refuses_logins else self.application_password
        query(session, f"ALTER USER {USER}@'%' IDENTIFIED BY %s", password)

    def occupy(self, limit: int) -> None:
        # A client that does not answer the greeting holds a slot until `connect_timeout`. When these alone are more than the server
        # may have it stays full whoever goes.
        for _ in range(_FEWEST_CONNECTIONS + 2):
            client = socket.create_connection((self.direct_address, self.port), timeout=5)
            self._occupied.append(client)
            client.recv(1)  # it greets once it has a slot
        self._max_connections = limit
        self.ask(f"SET GLOBAL max_connections = {_FEWEST_CONNECTIONS}")

    def vacate(self) -> None:
        occupied, self._occupied = self._occupied, []
        for client in occupied:
            client.close()
        if occupied and self.is_responsive:
            self.ask(f"SET GLOBAL max_connections = {self._max_connections}")

    # -- ending ----------------------------------------------------------------------------------------------------------------

    def stop(self, *, patience: float = 3.0) -> None:
        if self.is_hung:
            self.resume()
        self.vacate()
        if self.process is not None and self.is_running:
            if self._layer is not None:
                self._layer.terminate()  # it listens no more
            try:
                self.ask("SHUTDOWN WAIT FOR ALL SLAVES" if self._was_writer else "SHUTDOWN")
                self.process.wait(patience)
                if self._layer is not None:
                    self._layer.wait(patience)  # it passes on the last words
            except (mysql.connector.Error, subprocess.TimeoutExpired):
                pass  # cut short, as promised
        self.kill()

    def kill(self) -> None:
        super().kill()
        layer, self._layer = self._layer, None
        if layer is not None:
            layer.kill()
            layer.wait()
            for pipe in (layer.stdin, layer.stdout):
                assert pipe is not None
                pipe.close()

    def _freeze(self) -> set[int]:
        send(self._pids(), signal.SIGSTOP)
        return self._pids()

    def _hang_acceptor(self) -> None:
        raise LabError("MariaDB is one process: only all of it can hang")

    def _pids(self) -> set[int]:
        return {process.pid for process in (self._layer, self.process) if process is not None and is_alive(process.pid)}


def query(session: MySQLConnectionAbstract, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run a statement; return its rows."""
    with session.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []  # type: ignore[arg-type]


def replicates(status: dict[str, Any], source: Server) -> bool:
    """Whether a row of SHOW SLAVE STATUS is that of a reader of `source` which is well."""
    return (status.get("Master_Host"), status.get("Slave_IO_Running"), status.get("Slave_SQL_Running")) == (
        source.direct_address,
        "Yes",
        "Yes",
    )


def as_root() -> list[str]:
    """What the server wants to hear from root."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _sequence(gtid: str) -> int:
    return int(gtid.rpartition("-")[2] or 0)
