"""`LocalAurora`: a local Aurora cluster of real servers, from Python."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wrapper.resolver import HOSTS_FILE_VARIABLE
from wrapper.testing.binaries import LabError
from wrapper.testing.cluster import Options
from wrapper.testing.controller import SOCKET
from wrapper.testing.isolation import isolated
from wrapper.testing.processes import kill_inside, remove_shared_memory

_PREFIX = "aurora-lab-"
LOCK = "lock"
# sun_path of unix(7) holds 108 bytes, the last of which is zero.
_LONGEST_SOCKET_PATH = 107


@dataclass(frozen=True)
class Instance:
    """An instance of the lab. `endpoint` is its name, `address` what the name stands for."""

    id: str
    endpoint: str
    address: str
    port: int


@dataclass(frozen=True)
class FailoverReport:
    """What a failover did. `timings`: seconds from its start. `at`: when the new writer was published (CLOCK_MONOTONIC)."""

    old_writer: str
    new_writer: str
    timings: dict[str, float]
    at: float


class LabClient:
    """Commands to a running lab, given the directory that it lives in."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._facts: dict[str, Any] | None = None

    def request(self, command: str, **arguments: Any) -> Any:
        """Send one command to the controller and return its result. Raises `LabError`."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(str(self.directory / SOCKET))
            except OSError as error:
                raise LabError(f"no lab is running in {self.directory}: start one with python -m wrapper.testing up") from error
            connection.sendall((json.dumps({"command": command, "arguments": arguments}) + "\n").encode())
            line = connection.makefile("r", encoding="utf-8").readline()
        if not line:
            raise LabError(f"the lab in {self.directory} went away during {command!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(answer["error"])
        return answer["result"]

    # -- facts -----------------------------------------------------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, Any]:
        if self._facts is None:
            self._facts = self.request("facts")
        return self._facts

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances, in the order of their names."""
        return tuple(Instance(**facts) for facts in self.facts["instances"])

    def instance(self, identity: str) -> Instance:
        """Return the instance with this id."""
        return next(instance for instance in self.instances if instance.id == identity)

    @property
    def writer(self) -> Instance:
        """The writer, as the lab itself knows it."""
        return self.instance(self.status()["writer"])

    @property
    def readers(self) -> tuple[Instance, ...]:
        """All instances but the writer."""
        writer = self.writer
        return tuple(instance for instance in self.instances if instance != writer)

    @property
    def writer_endpoint(self) -> str:
        """The name that leads to the writer (with `address_names`: the first writer's address)."""
        return str(self.facts["writer_endpoint"])

    @property
    def reader_endpoint(self) -> str:
        """The name that leads to a reader."""
        return str(self.facts["reader_endpoint"])

    @property
    def instance_host_pattern(self) -> str:
        """The value of `cluster_instance_host_pattern` for this lab."""
        return str(self.facts["pattern"])

    @property
    def port(self) -> int:
        return int(self.facts["port"])

    @property
    def database(self) -> str:
        return str(self.facts["database"])

    @property
    def user(self) -> str:
        return str(self.facts["user"])

    @property
    def password(self) -> str:
        return str(self.facts["password"])

    @property
    def hosts_file(self) -> str:
        return str(self.facts["hosts_file"])

    def environment(self) -> dict[str, str]:
        """What the environment of processes that use the lab's names must have."""
        return {HOSTS_FILE_VARIABLE: self.hosts_file}

    def dsn(self, instance: str | None = None, *, by_address: bool = False, **extra: Any) -> str:
        """Return libpq connection text for the application's user: to the writer endpoint, or to an instance.

        `by_address` gives numeric addresses, for drivers that do not read the lab's hosts file.
        """
        if by_address:
            host = self.instance(instance).address if instance else self.writer.address
        else:
            host = self.instance(instance).endpoint if instance else self.writer_endpoint
        values = {"host": host, "port": self.port, "dbname": self.database, "user": self.user, "password": self.password, **extra}
        return _conninfo(values)

    def admin_dsn(self, instance: str) -> str:
        """Return connection text for the superuser of one instance, by address."""
        return _conninfo(
            {
                "host": self.instance(instance).address,
                "port": self.port,
                "dbname": self.database,
                "user": self.facts["superuser"],
                "password": self.facts["superuser_password"],
            }
        )

    # -- commands --------------------------------------------------------------------------------------------------------------

    def kill(self, instance: str) -> None:
        """SIGKILL an instance: sessions get a reset, connects are refused. `writer` and `reader` name one by its role."""
        self.request("kill", name=instance)

    def hang(self, instance: str, *, postmaster_only: bool = False) -> None:
        """SIGSTOP an instance: connects are accepted by the kernel, nobody answers."""
        self.request("hang", name=instance, postmaster_only=postmaster_only)

    def resume(self, instance: str) -> None:
        """SIGCONT an instance. One that hung while another became the writer goes on as the writer it was, with the view it had,
        until `rejoin`, `start` or `reset`."""
        self.request("resume", name=instance)

    def stop(self, instance: str) -> None:
        """Shut an instance down in order."""
        self.request("stop", name=instance)

    def start(self, instance: str) -> None:
        """Start an instance again; it joins as a reader if another one is the writer."""
        self.request("start", name=instance)

    def rejoin(self, instance: str) -> None:
        """Make any instance but the writer a proper reader, whatever its state: above all a former writer that was resumed."""
        self.request("rejoin", name=instance)

    def failover(
        self,
        target: str | None = None,
        *,
        rejoin: bool = True,
        promote_delay: float | None = None,
        drop_sessions: bool | None = None,
    ) -> FailoverReport:
        """Move the writer to `target`, or to the most advanced reader; return when the cluster is whole again.

        The old writer is shut down first, unless it hangs, and joins again as a reader, unless `rejoin` is false. `promote_delay`:
        seconds that the cluster is without a writer. Other commands are served meanwhile.
        """
        return FailoverReport(
            **self.request("failover", target=target, rejoin=rejoin, promote_delay=promote_delay, drop_sessions=drop_sessions)
        )

    def promote_later(
        self, delay: float | None = None, target: str | None = None, *, rejoin: bool = True, drop_sessions: bool | None = None
    ) -> None:
        """Have a reader promoted `delay` seconds from now; returns at once."""
        self.request("promote_later", delay=delay, target=target, rejoin=rejoin, drop_sessions=drop_sessions)

    def wait_for_promotion(self, timeout: float = 30.0) -> FailoverReport:
        """Wait until a promotion that was scheduled has happened; return its report."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            reports = self.request("promotions")
            if reports:
                if "error" in reports[-1]:
                    raise LabError(reports[-1]["error"])
                return FailoverReport(**reports[-1])
            time.sleep(0.01)
        raise LabError(f"no promotion within {timeout:g} s")

    def refuse_logins(self, instance: str, on: bool = True) -> None:
        """Have an instance refuse the application's logins (SQLSTATE 28000); sessions that exist stay."""
        self.request("refuse_logins", name=instance, on=on)

    def too_many_connections(self, instance: str, on: bool = True) -> None:
        """Have an instance run out of connections (SQLSTATE 53300), for ten minutes at most; sessions that exist stay."""
        self.request("too_many_connections", name=instance, on=on)

    def drop_sessions(self, instance: str) -> int:
        """End every client session of an instance; return how many there were."""
        return int(self.request("drop_sessions", name=instance))

    def status(self) -> dict[str, Any]:
        """Return the state of every instance."""
        status: dict[str, Any] = self.request("status")
        return status

    def reset(self) -> None:
        """Undo every fault: one writer, all others reading from it."""
        self.request("reset")

    def sessions(self, instance: str) -> list[dict[str, Any]]:
        """Return the client sessions of an instance, as `pg_stat_activity` has them, without the one that asks.

        Where the lab runs in namespaces of its own, `pid` is what PostgreSQL calls the process, not what this machine does.
        """
        import psycopg
        from psycopg.rows import dict_row

        with psycopg.connect(
            self.admin_dsn(instance), row_factory=dict_row, application_name="lab", connect_timeout=5
        ) as connection:
            return connection.execute(
                "SELECT pid, usename, application_name, state, query, backend_start FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND usename IS NOT NULL "
                "AND pid <> pg_backend_pid() AND application_name NOT LIKE 'lab%'"
            ).fetchall()

    def monitoring_sessions(self, application_name: str = "aws-shared-monitor") -> dict[str, int]:
        """Return how many monitoring sessions each instance that answers carries."""
        running = [entry["id"] for entry in self.status()["instances"] if entry["state"] == "running"]
        return {
            identity: sum(session["application_name"] == application_name for session in self.sessions(identity))
            for identity in running
        }


class LocalAurora(LabClient):
    """A local Aurora cluster: real PostgreSQL servers, one writer and streaming readers.

    Use it as a context manager. It lives in one directory and goes away with it, also when this process is killed.

    `instances`: how many. `flavor`: `aurora-pg`, or `pg` for plain PostgreSQL. `promote_delay`: seconds before a promotion, as a
    default for `failover` and `promote_later`. `drop_sessions`: end the sessions of a promoted instance, as Aurora's restart does.
    `synchronous`: acknowledge commits only when a reader has them, so that no failover loses one. `dns_delay`: seconds until the
    writer endpoint's name follows. `address_names`: call the instances by the last number of their address, so that drivers which
    know nothing of the lab's names reach them.

    Raises `LabError` when it cannot start.
    """

    def __init__(
        self,
        instances: int = 3,
        flavor: str = "aurora-pg",
        *,
        promote_delay: float = 0.0,
        drop_sessions: bool = True,
        synchronous: bool = False,
        dns_delay: float = 0.0,
        max_connections: int = 200,
        address_names: bool = False,
        suffix: str = "local-1.rds.test",
        directory: str | Path | None = None,
    ) -> None:
        sweep()
        if directory is None:
            directory = tempfile.mkdtemp(prefix=_PREFIX)
            os.chmod(directory, 0o755)  # the servers' account has to get in
        else:
            try:
                Path(directory).mkdir(mode=0o755)
            except FileExistsError:
                raise LabError(f"directory {str(directory)!r} exists: is a lab running there? Otherwise remove it") from None
        super().__init__(directory)
        self.options = Options(
            str(self.directory),
            instances,
            flavor,
            promote_delay,
            drop_sessions,
            synchronous,
            dns_delay,
            max_connections,
            address_names,
            suffix,
        )
        self._process: subprocess.Popen[str] | None = None
        self._owner = os.getpid()
        # Locked before it has its name: no other lab may take this one for a dead one's.
        draft = self.directory / "lock.new"
        self._lock = open(draft, "w")  # noqa: SIM115  handed to the controller
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        draft.rename(self.directory / LOCK)
        try:
            if len(os.fsencode(self.directory / SOCKET)) > _LONGEST_SOCKET_PATH:
                raise LabError(
                    f"directory {str(self.directory)!r} is too long a path for a socket in it: use a shorter one (or set TMPDIR)"
                )
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        command = [*isolated(), sys.executable, "-m", "wrapper.testing.controller", json.dumps(asdict(self.options))]
        # A handle on this process tells the controller of its end, even where a forked child keeps the pipe open.
        owner = os.pidfd_open(os.getpid())
        try:
            self._process = subprocess.Popen(
                [*command, str(owner)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                pass_fds=[self._lock.fileno(), owner],
            )
        finally:
            os.close(owner)
            self._lock.close()  # it is the controller's now: the directory is stale when that is gone
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LabError(f"the lab's controller ended with status {self._process.wait()} before it was ready")
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(answer["error"])
        self._facts = answer["ready"]

    def __enter__(self) -> LocalAurora:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def wait(self) -> None:
        """Wait until the lab is told to go down."""
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """End the servers and remove the directory. Does nothing in a forked child of the process that started the lab."""
        if self._owner != os.getpid():
            return
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._lock.close()
        clear(self.directory)


def sweep() -> None:
    """Remove what labs left behind whose controller was killed and whose owner did not see to it."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{LOCK}"):
        try:
            with open(lock) as file:
                if os.fstat(file.fileno()).st_uid == os.getuid():
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    clear(lock.parent)
        except OSError:
            continue  # it is in use, was removed meanwhile, or is another user's


def clear(directory: Path) -> None:
    """End what still runs in a lab's directory (servers that hung when their parent died, above all), and remove it."""
    kill_inside(directory)
    for pid_file in directory.glob("*/data/postmaster.pid"):
        remove_shared_memory(pid_file)
    shutil.rmtree(directory, ignore_errors=True)


def _conninfo(values: dict[str, Any]) -> str:
    def quoted(text: str) -> str:
        if text and not set(text) & set(" '\\\t\n"):
            return text
        escaped = text.replace("\\", r"\\").replace("'", r"\'")
        return f"'{escaped}'"

    return " ".join(f"{name}={quoted(str(value))}" for name, value in values.items())
