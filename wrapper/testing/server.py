"""One PostgreSQL server of the lab: a data directory and, at times, a process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from wrapper.testing.account import Account
from wrapper.testing.binaries import LabError
from wrapper.testing.processes import children, die_with_parent, freeze_tree, is_alive, remove_shared_memory, send

_PATIENCE = 20.0
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
max_wal_senders = 20
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


class Server:
    """A server at one address, started from the controller's main thread only: it dies when the *thread* that started it ends."""

    def __init__(
        self, binaries: Path, account: Account, directory: Path, instance_id: str, address: str, port: int, password: str
    ) -> None:
        self.binaries = binaries
        self.account = account
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self.view_file = directory / "view.json"
        self.password = password
        self.id = instance_id
        self.address = address
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.is_hung = False
        self._occupied: list[socket.socket] = []

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
        self.write_access()

    def clone(self, source: Server, application: str) -> None:
        """Become a fresh standby of a running server."""
        shutil.rmtree(self.data, ignore_errors=True)
        self._run(
            "pg_basebackup", "-D", str(self.data), "-d", source.conninfo, "-c", "fast", "-X", "stream", "--no-sync",
        )  # fmt: skip
        (self.data / "standby.signal").touch()
        self._own(self.data / "standby.signal")
        self.follow(source, application)

    def rewind(self, source: Server) -> bool:
        """Make the data directory of a former writer that is down follow `source`; say whether that worked.

        Much faster than `clone`, which is what remains to be done otherwise.
        """
        # Before its first checkpoint a promoted server's control file still says the old timeline, and pg_rewind believes it.
        source.ask("CHECKPOINT")
        try:
            self._run("pg_rewind", f"--target-pgdata={self.data}", f"--source-server={source.conninfo}", "--no-sync")
        except LabError:
            return False
        (self.data / "standby.signal").touch()
        self._own(self.data / "standby.signal")
        return True

    @property
    def was_writer(self) -> bool:
        """Whether the data directory is that of a writer, past or present."""
        return not (self.data / "standby.signal").exists()

    @property
    def conninfo(self) -> str:
        """Connection text of the superuser."""
        return f"host={self.address} port={self.port} user={SUPERUSER} password={self.password} dbname=postgres sslmode=disable"

    def follow(self, source: Server | None, application: str) -> None:
        """Write whom to stream from (None: nobody); takes effect at the next start or reload."""
        text = ""
        if source is not None:
            text = f"primary_conninfo = '{source.conninfo} application_name={application} connect_timeout=2'\n"
        self._replace(self.data / "lab.conf", text)

    def write_access(self, *, refused: bool = False) -> None:
        """Write who may log in; takes effect at the next start or reload."""
        lines = [
            f"host all {SUPERUSER} 127.0.0.0/8 md5",
            f"host replication {SUPERUSER} 127.0.0.0/8 md5",
            "host all all 127.0.0.0/8 reject" if refused else "host all all 127.0.0.0/8 md5",
        ]
        self._replace(self.data / "pg_hba.conf", "\n".join(lines) + "\n")

    def _replace(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self._own(path)

    def _own(self, path: Path) -> None:
        self.account.own(path)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self.account.prefix, str(self.binaries / program), *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=self.directory,
            check=False,
            timeout=120,
            env=_environment(),
            preexec_fn=die_with_parent,
            **self.account.identity,
        )
        if done.returncode != 0:
            raise LabError(f"{program} failed for {self.id}: {(done.stderr or done.stdout).strip()[-2000:]}")

    # -- running ---------------------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, options: dict[str, str]) -> None:
        """Start the server and wait until it answers."""
        command = [
            *self.account.prefix, str(self.binaries / "postgres"), "-D", str(self.data),
            "-c", f"listen_addresses={self.address}", "-c", f"port={self.port}",
        ]  # fmt: skip
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=_environment(),
                preexec_fn=die_with_parent,
                **self.account.identity,
            )
        self.is_hung = False
        self.wait(lambda: self.ask("SELECT 1"), "to answer")

    def session(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a session of the superuser's."""
        return psycopg.connect(self.conninfo, autocommit=True, connect_timeout=5, application_name=APPLICATION_NAME)

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement as superuser on a session of its own; return its rows."""
        with self.session() as connection:
            cursor = connection.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = _PATIENCE, pause: float = 0.005) -> None:
        """Wait until `condition` is true; database errors count as not yet."""
        deadline = time.monotonic() + timeout
        last = ""
        while time.monotonic() < deadline:
            if not self.is_running:
                break
            try:
                if condition():
                    return
            except psycopg.Error as error:
                last = f": {error}"
            time.sleep(pause)
        tail = self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""
        raise LabError(f"{self.id} did not come {what} within {timeout:g} s{last}\n{tail}")

    def reload(self) -> None:
        """Have the server read its configuration again; returns when new sessions get it."""
        loaded = "SELECT pg_conf_load_time()"
        # One session: it is told after the postmaster has read the files, and a new one for each look would cost the machine more
        # than the reload.
        with self.session() as session:
            before = session.execute(loaded).fetchone()
            self._signal(signal.SIGHUP)
            self.wait(lambda: session.execute(loaded).fetchone() != before, "to read its configuration")

    def promote(self, session: Any) -> None:
        """Have a standby become a primary; returns when it takes writes. One session does it all: a new one for each question would
        cost more time than the promotion, and everybody waits for its end."""
        session.execute("SELECT pg_promote(false)")
        self.wait(lambda: session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), "out of recovery", pause=0.001)

    def stop(self, *, patience: float = 3.0) -> None:
        """Shut down in order: sessions are ended with 57P01. An orderly end waits until the standbys have everything; after
        `patience` seconds it is cut short (57P02)."""
        if self.is_hung:
            self.resume()
        self.vacate()
        for how in (signal.SIGINT, signal.SIGQUIT):
            if self.process is not None and self.is_running:
                self._signal(how)
                try:
                    self.process.wait(patience if how is signal.SIGINT else _PATIENCE)
                except subprocess.TimeoutExpired:
                    continue
        self.kill()

    def kill(self) -> None:
        """SIGKILL the whole server at once; clients see a reset."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            pids = freeze_tree(process.pid)  # so that no session lives to say goodbye
            send([process.pid, *pids], signal.SIGKILL)
            process.wait()
            deadline = time.monotonic() + _PATIENCE
            while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
                time.sleep(0.001)  # a new server refuses to start beside an old one's sessions
            remove_shared_memory(self.data / "postmaster.pid")
        self.is_hung = False
        self.vacate()

    def hang(self, *, postmaster_only: bool = False) -> None:
        """SIGSTOP the server: the kernel goes on accepting, nobody answers."""
        if self.process is not None and self.is_running:
            if postmaster_only:
                self._signal(signal.SIGSTOP)
            else:
                freeze_tree(self.process.pid)
            self.is_hung = True

    def resume(self) -> None:
        """SIGCONT the server."""
        if self.process is not None and self.is_running:
            send([*self._children(), self.process.pid], signal.SIGCONT)
        self.is_hung = False

    def occupy(self, limit: int) -> None:
        """Take every connection slot that applications may have, `limit` being their number.

        A client that has sent its startup packet and no password holds a slot until `authentication_timeout`, and pg_stat_activity
        does not show it. Some of the superuser's slots are taken too, so that the server stays full when a few sessions end.
        """
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

    def _children(self) -> set[int]:
        return children(self.process.pid) if self.process is not None and self.is_running else set()

    @property
    def is_full(self) -> bool:
        return bool(self._occupied)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            send([self.process.pid], number)


def _environment() -> dict[str, str]:
    """Ours, without what would change what PostgreSQL's programs do or the language they speak."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}
