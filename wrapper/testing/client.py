"""Commands to a running lab."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wrapper.resolver import HOSTS_FILE_VARIABLE
from wrapper.testing.errors import LabError
from wrapper.testing.sessions import client_sessions

SOCKET = "control.sock"


@dataclass(frozen=True)
class Instance:
    """An instance of the lab. `endpoint` is its name, `address` what the name stands for, `direct_address` the server itself."""

    id: str
    endpoint: str
    address: str
    port: int
    direct_address: str


@dataclass(frozen=True)
class FailoverReport:
    """What a failover did. `timings`: seconds from its start; `without_writer`, where the lab itself ended the old one: how long
    there was none. `at`: when the new writer was published, `promoted_at`: from when it took writes (CLOCK_MONOTONIC)."""

    old_writer: str
    new_writer: str
    timings: dict[str, float]
    at: float
    promoted_at: float


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
    def engine(self) -> str:
        """`postgresql` or `mysql`."""
        return str(self.facts["engine"])

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

    @property
    def certificate_authority(self) -> str:
        """The file by which clients verify the servers' certificate. Raises `LabError` without `tls`."""
        if self.facts["authority"] is None:
            raise LabError("the lab has no certificates: start it with tls=True")
        return str(self.facts["authority"])

    def environment(self) -> dict[str, str]:
        """What the environment of processes that use the lab's names must have."""
        return {HOSTS_FILE_VARIABLE: self.hosts_file}

    def parameters(
        self, instance: str | None = None, *, by_address: bool = False, direct: bool = False, **extra: Any
    ) -> dict[str, Any]:
        """Return what the driver's `connect` takes, for the application's user: to the writer endpoint, or to an instance.

        `by_address` gives numeric addresses, for drivers that do not read the lab's hosts file. `direct` gives the address of the
        server itself, past the layer that answers an Aurora MySQL's SQL (elsewhere there is none); benchmarks want that.
        """
        if direct:
            host = (self.instance(instance) if instance else self.writer).direct_address
        elif by_address:
            host = (self.instance(instance) if instance else self.writer).address
        else:
            host = self.instance(instance).endpoint if instance else self.writer_endpoint
        return {"host": host, "port": self.port, self._dbname: self.database, "user": self.user, "password": self.password, **extra}

    def admin_parameters(self, instance: str) -> dict[str, Any]:
        """Return what the driver's `connect` takes, for the superuser of one instance, by address."""
        return {
            "host": self.instance(instance).direct_address,
            "port": self.facts["superuser_port"],
            self._dbname: self.database,
            "user": self.facts["superuser"],
            "password": self.facts["superuser_password"],
        }

    @property
    def _dbname(self) -> str:
        return "database" if self.engine == "mysql" else "dbname"

    def dsn(self, instance: str | None = None, *, by_address: bool = False, direct: bool = False, **extra: Any) -> str:
        """Return `parameters` as text: libpq's for PostgreSQL; in the same syntax, with the driver's own words, for MySQL."""
        return _text(self.parameters(instance, by_address=by_address, direct=direct, **extra))

    def admin_dsn(self, instance: str) -> str:
        """Return `admin_parameters` as text."""
        return _text(self.admin_parameters(instance))

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

    def remove(self, instance: str) -> None:
        """Delete a reader: it shuts down in order, and neither the cluster nor the names know it, until `add` or `reset`."""
        self.request("remove", name=instance)

    def add(self, instance: str) -> None:
        """Have an instance that was removed appear as a new reader; returns when the cluster lists it."""
        self.request("add", name=instance)

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

    def upgrade(self, *, pause: float = 0.0) -> FailoverReport:
        """Play the minor upgrade of an RDS Multi-AZ DB cluster: the readers restart one after the other, each being down for
        `pause` seconds, then the writer moves to one of them and the old one restarts as a reader. Returns when all is done."""
        return FailoverReport(**self.request("upgrade", pause=pause))

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
        """Have an instance refuse the application's logins (SQLSTATE 28000; MySQL error 1045); sessions that exist stay."""
        self.request("refuse_logins", name=instance, on=on)

    def too_many_connections(self, instance: str, on: bool = True) -> None:
        """Have an instance run out of connections (53300; MySQL error 1040), for ten minutes at most; sessions that exist stay."""
        self.request("too_many_connections", name=instance, on=on)

    def drop_sessions(self, instance: str) -> int:
        """End every client session of an instance; return how many there were."""
        return int(self.request("drop_sessions", name=instance))

    def set_load(self, instance: str, *, cpu: float = 5.0, lag_ms: float = 10.0) -> None:
        """Have the cluster's table list an instance with this load: percent of CPU, milliseconds behind the writer."""
        self.request("set_load", name=instance, cpu=cpu, lag_ms=lag_ms)

    def expire_certificate(self, on: bool = True) -> None:
        """Have the servers show new sessions a certificate that has expired (with `tls`); sessions that exist stay."""
        self.request("expire_certificate", on=on)

    def status(self) -> dict[str, Any]:
        """Return the state of every instance."""
        status: dict[str, Any] = self.request("status")
        return status

    def reset(self) -> None:
        """Undo every fault: one writer, all others reading from it."""
        self.request("reset")

    def sessions(self, instance: str) -> list[dict[str, Any]]:
        """Return the client sessions of an instance without the lab's own: `pid`, `usename`, `application_name`, `state`, `query`.

        These are PostgreSQL's words; MySQL's are ID, USER, the connection attribute `program_name`, COMMAND and INFO. Where the lab
        runs in namespaces of its own, the `pid` of PostgreSQL is not what this machine calls the process.
        """
        return client_sessions(self.engine, self.admin_parameters(instance))

    def monitoring_sessions(self, application_name: str = "aws-shared-monitor") -> dict[str, int]:
        """Return how many monitoring sessions each instance that answers carries."""
        running = [entry["id"] for entry in self.status()["instances"] if entry["state"] == "running"]
        return {
            identity: sum(session["application_name"] == application_name for session in self.sessions(identity))
            for identity in running
        }


def _text(values: dict[str, Any]) -> str:
    def quoted(text: str) -> str:
        if text and not set(text) & set(" '\\\t\n"):
            return text
        escaped = text.replace("\\", r"\\").replace("'", r"\'")
        return f"'{escaped}'"

    return " ".join(f"{name}={quoted(str(value))}" for name, value in values.items())
