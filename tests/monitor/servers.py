"""Real PostgreSQL servers for the monitor's tests: a plain one, and three that look like an Aurora cluster.

The "readers" are standbys without a primary: they answer as standbys and can be promoted, which is all a monitor asks of them. The
Aurora functions read a JSON file per instance, so that a stopped instance keeps its stale view.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psycopg

PASSWORD = "correct horse"
FUNCTIONS = """
CREATE FUNCTION pg_catalog.aurora_db_instance_identifier() RETURNS text STABLE LANGUAGE sql
  AS $$ SELECT current_setting('lab.instance') $$;
CREATE FUNCTION pg_catalog.aurora_replica_status() RETURNS TABLE (server_id text, session_id text, cpu float8,
  replica_lag_in_msec float8, last_update_timestamp timestamptz) STABLE LANGUAGE sql SECURITY DEFINER
  AS $$ SELECT * FROM jsonb_to_recordset(pg_read_file(current_setting('lab.topology'))::jsonb)
        AS t(server_id text, session_id text, cpu float8, replica_lag_in_msec float8, last_update_timestamp timestamptz) $$;
CREATE ROLE app LOGIN PASSWORD 'correct horse';
CREATE ROLE limited LOGIN PASSWORD 'correct horse' CONNECTION LIMIT 0;
"""
HBA = "local all all trust\nhost all admin all trust\nhost all all all scram-sha-256\n"


def eventually(condition: Callable[[], Any], what: str, timeout: float = 15.0) -> Any:
    """Return the first true result of `condition`. Fails with what was waited for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout:g} s for {what}")


def find_binaries() -> Path | None:
    """Return where PostgreSQL's server programs are."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
    on_path = shutil.which("initdb")
    return Path(on_path or found[-1]).parent if on_path or found else None


def _account() -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    # PostgreSQL refuses to run as root.
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


_prctl = ctypes.CDLL(None).prctl


def _die_with_parent() -> None:
    _prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing survives an interrupted test run


class Server:
    """One PostgreSQL server on an address of its own."""

    def __init__(self, binaries: Path, data: Path, address: str, port: int, instance: str) -> None:
        self.address, self.port, self.instance = address, port, instance
        self.data = data
        self.topology_file = data.parent / f"topology-{instance}.json"
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def key(self) -> str:
        return f"{self.address}:{self.port}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        self.spawn()
        self.wait()

    def wait(self) -> None:
        eventually(self._answers, f"server {self.key} to start")

    def spawn(self, *, standby: bool = False) -> None:
        signal_file = self.data / "standby.signal"
        if standby:
            signal_file.touch()
            if os.getuid() == 0:
                shutil.chown(signal_file, "nobody")
        with (self.data.parent / f"log-{self.instance}").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binaries / "postgres",
                    *("-D", str(self.data)),
                    *("-p", str(self.port)),
                    *("-c", f"listen_addresses={self.address}"),
                    *("-c", f"lab.instance={self.instance}"),
                    *("-c", f"lab.topology={self.topology_file}"),
                ],
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_die_with_parent,
                **_account(),
            )

    def _answers(self) -> bool:
        try:
            self.admin("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def admin(self, query: str) -> list[tuple[Any, ...]]:
        """Run SQL as superuser."""
        with psycopg.connect(host=self.address, port=self.port, user="admin", dbname="postgres", autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def sessions(self) -> int:
        """The number of the monitor's sessions here."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'aws-shared-monitor'"
        return int(self.admin(query)[0][0])

    def _signal(self, number: int) -> None:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (pid, *map(int, children)):
            try:
                os.kill(one, number)
            except ProcessLookupError:
                pass  # it ended by itself meanwhile

    def hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End every process at once, so that the kernel resets the connections."""
        assert self._process is not None
        self.hang()
        self._signal(signal.SIGKILL)
        self._process.wait()
        # A killed server cannot remove its System V segment, whose id is in line 7 of its pid file.
        segment = (self.data / "postmaster.pid").read_text().splitlines()[6].split()[1]
        subprocess.run(["ipcrm", "-m", segment], check=False, stderr=subprocess.DEVNULL)

    def quit(self) -> None:
        """Begin an immediate shutdown."""
        if self.is_running:
            self._signal(signal.SIGQUIT)
            self.resume()

    def stop(self) -> None:
        self.quit()
        if self._process is not None:
            self._process.wait(20)

    def promote(self) -> None:
        self.admin("SELECT pg_promote(true)")

    def drop_sessions(self) -> None:
        self.admin(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


class Template:
    """A database directory with everything installed, to be copied."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.root = Path(tempfile.mkdtemp(prefix="monitor-tests-", dir="/tmp"))
        if os.getuid() == 0:
            shutil.chown(self.root, "nobody")
        self._labs = 0
        data = self.root / "template"
        subprocess.run(
            [binaries / "initdb", "-D", str(data), "-U", "admin", "--no-sync", "-A", "trust", "--wal-segsize=1"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            **_account(),
        )
        (data / "pg_hba.conf").write_text(HBA)
        with (data / "postgresql.conf").open("a") as file:
            file.write(
                "fsync = off\nshared_buffers = 2MB\nmax_connections = 30\nunix_socket_directories = ''\nautovacuum = off\n"
                "max_wal_senders = 0\nmax_wal_size = 4MB\nmin_wal_size = 2MB\ndynamic_shared_memory_type = mmap\n"
            )
        first = Server(binaries, data, "127.0.77.1", free_port("127.0.77.1"), "template")
        first.start()
        first.admin("SET allow_system_table_mods = on;" + FUNCTIONS + "CHECKPOINT")
        assert first._process is not None
        first._process.send_signal(signal.SIGINT)
        first._process.wait(20)

    def copy(self, address: str, port: int, instance: str) -> Server:
        self._labs += 1
        data = self.root / f"{self._labs}" / "data"
        data.parent.mkdir()
        subprocess.run(["cp", "-a", str(self.root / "template"), str(data)], check=True)
        return Server(self.binaries, data, address, port, instance)

    def remove(self) -> None:
        shutil.rmtree(self.root)


def free_port(address: str) -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class Aurora:
    """Three servers that list each other: instances 1, 2, 3 on 127.0.78.1-3, instance 1 the writer at first."""

    pattern = "127.0.78.?"

    def __init__(self, template: Template) -> None:
        port = free_port("127.0.78.1")
        self.servers = [template.copy(f"127.0.78.{number}", port, str(number)) for number in (1, 2, 3)]
        self.writer = self.servers[0]
        self._frozen: set[str] = set()
        self.publish()
        for server in self.servers:
            server.spawn(standby=server is not self.writer)
        for server in self.servers:
            server.wait()

    @property
    def readers(self) -> list[Server]:
        return [server for server in self.servers if server is not self.writer]

    def publish(self) -> None:
        """Write every live instance's view of the cluster."""
        now = datetime.now(timezone.utc).isoformat()
        rows = [
            {
                "server_id": server.instance,
                "session_id": "MASTER_SESSION_ID" if server is self.writer else f"session-{server.instance}",
                "cpu": 1.5,
                "replica_lag_in_msec": 0 if server is self.writer else 12.5,
                "last_update_timestamp": now,
            }
            for server in self.servers
        ]
        for server in self.servers:
            if server.instance in self._frozen:
                continue
            new = server.topology_file.with_suffix(".new")
            new.write_text(json.dumps(rows))
            new.chmod(0o644)
            new.rename(server.topology_file)

    def hang_writer(self) -> Server:
        self._frozen.add(self.writer.instance)
        self.writer.hang()
        return self.writer

    def fail_over(self, to: Server, *, drop_sessions: bool = True) -> None:
        """Promote, drop sessions, publish: in Aurora's order."""
        to.promote()
        if drop_sessions:
            to.drop_sessions()
        self.writer = to
        self.publish()

    @property
    def is_as_new(self) -> bool:
        """Whether the next test can have it as it is."""
        return len(self.servers) == 3 and self.writer is self.servers[0] and all(one.is_running for one in self.servers)

    def stop(self) -> None:
        for server in self.servers:
            server.quit()
        for server in self.servers:
            server.stop()
