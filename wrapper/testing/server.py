"""One PostgreSQL server of the lab: a data directory and, at times, a process."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from wrapper.testing.binaries import LabError

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_PATIENCE = 20.0
SUPERUSER = "postgres"

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
wal_keep_size = 64MB
wal_retrieve_retry_interval = 50ms
wal_receiver_timeout = 5s
wal_sender_timeout = 5s
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
autovacuum = off
synchronous_commit = local
password_encryption = md5
unix_socket_directories = ''
include_if_exists = 'lab.conf'
"""


class Server:
    """A server at one address, started from the controller's main thread only: it dies when the *thread* that started it ends."""

    def __init__(self, binaries: Path, directory: Path, instance_id: str, address: str, port: int) -> None:
        self.binaries = binaries
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self.view_file = directory / "view.json"
        self.id = instance_id
        self.address = address
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.is_hung = False

    # -- making ----------------------------------------------------------------------------------------------------------------

    def initialise(self, settings: dict[str, str]) -> None:
        """Make a new, empty database cluster."""
        self._run(
            "initdb",
            "-D",
            str(self.data),
            "-U",
            SUPERUSER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--wal-segsize=1",
        )
        with open(self.data / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(_SETTINGS + "".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        self.write_access()

    def clone(self, source: Server, application: str) -> None:
        """Become a fresh standby of a running server."""
        shutil.rmtree(self.data, ignore_errors=True)
        self._run(
            "pg_basebackup", "-D", str(self.data), "-h", source.address, "-p", str(source.port), "-U", SUPERUSER,
            "-c", "fast", "-X", "stream", "--no-sync",
        )  # fmt: skip
        (self.data / "standby.signal").touch()
        self._own(self.data / "standby.signal")
        self.follow(source, application)

    def follow(self, source: Server | None, application: str) -> None:
        """Write whom to stream from (None: nobody); takes effect at the next start or reload."""
        text = ""
        if source is not None:
            text = (
                f"primary_conninfo = 'host={source.address} port={source.port} user={SUPERUSER} application_name={application} "
                "connect_timeout=2'\n"
            )
        self._replace(self.data / "lab.conf", text)

    def write_access(self, *, refused: bool = False) -> None:
        """Write who may log in; takes effect at the next start or reload."""
        lines = [
            f"host all {SUPERUSER} 127.0.0.0/8 trust",
            f"host replication {SUPERUSER} 127.0.0.0/8 trust",
            "host all all 127.0.0.0/8 reject" if refused else "host all all 127.0.0.0/8 md5",
        ]
        self._replace(self.data / "pg_hba.conf", "\n".join(lines) + "\n")

    def _replace(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self._own(path)

    def _own(self, path: Path) -> None:
        user = server_user()
        if user is not None:
            os.chown(path, user.pw_uid, user.pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, check=False, timeout=120, **_identity())
        if done.returncode != 0:
            raise LabError(f"{program} failed for {self.id}: {(done.stderr or done.stdout).strip()[-2000:]}")

    # -- running ---------------------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, options: dict[str, str]) -> None:
        """Start the server and wait until it answers."""
        command = [
            str(self.binaries / "postgres"), "-D", str(self.data),
            "-c", f"listen_addresses={self.address}", "-c", f"port={self.port}",
        ]  # fmt: skip
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        parent = os.getpid()

        def die_with_parent() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                preexec_fn=die_with_parent,
                **_identity(),
            )
        self.is_hung = False
        self.wait(lambda: self.ask("SELECT 1"), "to answer")

    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement as superuser on a session of its own; return its rows."""
        with psycopg.connect(
            host=self.address, port=self.port, user=SUPERUSER, dbname="postgres", autocommit=True, connect_timeout=5,
            application_name="lab",
        ) as connection:  # fmt: skip
            cursor = connection.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = _PATIENCE) -> None:
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
            time.sleep(0.005)
        tail = self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""
        raise LabError(f"{self.id} did not come {what} within {timeout:g} s{last}\n{tail}")

    def reload(self) -> None:
        """Have the server read its configuration again."""
        self._signal(signal.SIGHUP)

    def promote(self) -> None:
        """Have a standby become a primary; returns when it takes writes."""
        (self.data / "promote").touch()
        self._own(self.data / "promote")
        self._signal(signal.SIGUSR1)
        self.wait(lambda: not self.ask("SELECT pg_is_in_recovery()")[0][0], "out of recovery")

    def stop(self) -> None:
        """Shut down in order: sessions are ended with 57P01."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the whole server at once; clients see a reset."""
        self.hang()  # so that no session lives to say goodbye
        for pid in self._processes():
            _kill(pid, signal.SIGKILL)
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self._signal(how)
            if self.is_hung and how is not signal.SIGKILL:
                self.resume()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None
        self.is_hung = False

    def hang(self, *, postmaster_only: bool = False) -> None:
        """SIGSTOP the server: the kernel goes on accepting, nobody answers."""
        stopped: set[int] = set()
        while True:
            found = set(self._processes()[:1] if postmaster_only else self._processes())
            for pid in found - stopped:
                _kill(pid, signal.SIGSTOP)
            if found <= stopped:
                break
            stopped |= found
        self.is_hung = True

    def resume(self) -> None:
        """SIGCONT the server."""
        for pid in reversed(self._processes()):
            _kill(pid, signal.SIGCONT)
        self.is_hung = False

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            _kill(self.process.pid, number)

    def _processes(self) -> list[int]:
        """The postmaster and its children."""
        if self.process is None:
            return []
        parent = self.process.pid
        children = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                children.append(int(entry.name))
        return [parent, *children]


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def server_user() -> pwd.struct_passwd | None:
    """The account that servers run under: PostgreSQL refuses to be root. None for an ordinary user, who runs them himself."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise LabError("running as root, and neither a postgres nor a nobody account exists to run the servers")


def _identity() -> dict[str, Any]:
    user = server_user()
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
