"""The lab's cluster: who is the writer, what each instance believes, and everything that can be done to it."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from wrapper.testing.binaries import LabError, find_binaries
from wrapper.testing.server import SUPERUSER, Server, server_user

DATABASE = "app"
USER = "app"
EXTENSIONS = "aurora_stat_utils,rds_tools"


@dataclass
class Options:
    """How a lab is set up; see `LocalAurora`."""

    directory: str
    instances: int = 3
    flavor: str = "aurora-pg"
    promote_delay: float = 0.0
    drop_sessions: bool = True
    synchronous: bool = False
    dns_delay: float = 0.0
    max_connections: int = 200
    address_names: bool = False
    suffix: str = "local-1.rds.test"


@dataclass
class Instance:
    """An instance and what its cluster thinks of it.

    `is_stale`: its view of the cluster is frozen, because it was hung when somebody else became the writer. `seen_at`: when it last
    took part (seconds since the Unix epoch).
    """

    id: str
    endpoint: str
    address: str
    server: Server
    is_stale: bool = False
    seen_at: float = 0.0
    refuses_logins: bool = False
    occupied: list[Any] = field(default_factory=list)


class Cluster:
    """The instances and the commands. Used by the controller alone, on its main thread."""

    def __init__(self, options: Options) -> None:
        if options.instances < 1 or options.instances > 15:
            raise LabError(f"instances={options.instances} is not valid: expected 1 to 15")
        if options.flavor not in ("aurora-pg", "pg"):
            raise LabError(f"flavor={options.flavor!r} is not valid: expected aurora-pg or pg")
        self.options = options
        self.directory = Path(options.directory)
        self.binaries = find_binaries()
        self.password = secrets.token_hex(8)
        self.hash = secrets.token_hex(4)
        prefix, self.port = _free_addresses(options.instances)
        self.pattern = f"{prefix}.?" if options.address_names else f"?.{self.hash}.{options.suffix}"
        self.instances: dict[str, Instance] = {}
        for number in range(1, options.instances + 1):
            identity = str(number) if options.address_names else f"instance-{number}"
            address = f"{prefix}.{number}"
            folder = self.directory / identity
            server = Server(self.binaries, folder, identity, address, self.port)
            self.instances[identity] = Instance(identity, self.pattern.replace("?", identity), address, server)
        self.writer_id = next(iter(self.instances))
        self.named_writer_id = self.writer_id  # what the writer endpoint's name leads to
        self.is_promoting = False

    # -- facts -----------------------------------------------------------------------------------------------------------------

    @property
    def writer_endpoint(self) -> str:
        return f"lab.cluster-{self.hash}.{self.options.suffix}"

    @property
    def reader_endpoint(self) -> str:
        return f"lab.cluster-ro-{self.hash}.{self.options.suffix}"

    @property
    def hosts_file(self) -> Path:
        return self.directory / "hosts"

    def facts(self) -> dict[str, Any]:
        """What a client needs to know once."""
        return {
            "port": self.port,
            "database": DATABASE,
            "user": USER,
            "password": self.password,
            "superuser": SUPERUSER,
            "pattern": self.pattern,
            "writer_endpoint": self._writer.address if self.options.address_names else self.writer_endpoint,
            "reader_endpoint": self._readers()[0].address
            if self.options.address_names and self._readers()
            else self.reader_endpoint,
            "hosts_file": str(self.hosts_file),
            "address_names": self.options.address_names,
            "instances": [
                {"id": instance.id, "endpoint": instance.endpoint, "address": instance.address, "port": self.port}
                for instance in self.instances.values()
            ],
        }

    def status(self) -> dict[str, Any]:
        """The state of every instance."""
        return {
            "writer": self.writer_id,
            "promoting": self.is_promoting,
            "instances": [
                {
                    "id": instance.id,
                    "endpoint": instance.endpoint,
                    "address": f"{instance.address}:{self.port}",
                    "role": "writer" if instance.id == self.writer_id else "reader",
                    "state": "hung" if instance.server.is_hung else "running" if instance.server.is_running else "down",
                    "stale": instance.is_stale,
                    "refuses_logins": instance.refuses_logins,
                    "full": bool(instance.occupied),
                }
                for instance in self.instances.values()
            ],
        }

    @property
    def _writer(self) -> Instance:
        return self.instances[self.writer_id]

    def _readers(self) -> list[Instance]:
        return [instance for instance in self.instances.values() if instance.id != self.writer_id]

    def resolve(self, name: str) -> Instance:
        """Return the instance called `name`; `writer` and `reader` name one by its role."""
        if name == "writer":
            return self._writer
        if name == "reader":
            usable = [reader for reader in self._readers() if reader.server.is_running and not reader.server.is_hung]
            if not usable:
                raise LabError("no reader is running")
            return usable[0]
        if name not in self.instances:
            raise LabError(f"no instance {name!r}: expected writer, reader, {', '.join(self.instances)}")
        return self.instances[name]

    # -- up --------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the servers and start them."""
        user = server_user()
        for instance in self.instances.values():
            instance.server.directory.mkdir(mode=0o755)
            if user is not None:
                os.chown(instance.server.directory, user.pw_uid, user.pw_gid)
        self.publish()
        writer = self._writer
        settings = {"max_connections": str(self.options.max_connections)}
        if self.options.synchronous:
            settings["synchronous_standby_names"] = "ANY 1 (*)"
        writer.server.initialise(settings)
        writer.server.follow(None, writer.id)
        writer.server.start(self._options(writer))
        self._dress(writer)
        readers = self._readers()
        with ThreadPoolExecutor(len(readers) or 1) as pool:
            list(pool.map(lambda reader: reader.server.clone(writer.server, reader.id), readers))
        # One after the other, here: the kernel ties a server to the thread that started it.
        for reader in readers:
            reader.server.start(self._options(reader))
        self._wait_for_readers()
        self.publish()

    def _options(self, instance: Instance) -> dict[str, str]:
        """What is given on the command line: the configuration files are copied from instance to instance, identity must not be."""
        options = {"cluster_name": instance.id}
        if self.options.flavor == "aurora-pg":
            options |= {
                "rds.extensions": EXTENSIONS,
                "aurora_lab.instance_id": instance.id,
                "aurora_lab.view_file": str(instance.server.view_file),
            }
        return options

    def _dress(self, writer: Instance) -> None:
        sql = (Path(__file__).parent / "sql" / "aurora.sql").read_text(encoding="utf-8")
        where: dict[str, Any] = {"host": writer.address, "port": self.port, "user": SUPERUSER, "autocommit": True}
        if self.options.flavor == "aurora-pg":
            for database in ("template1", "postgres"):
                with psycopg.connect(dbname=database, **where) as connection:
                    connection.execute(sql)
        with psycopg.connect(dbname="postgres", **where) as connection:
            connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{self.password}'")
            if self.options.synchronous:
                connection.execute(f"ALTER ROLE {USER} SET synchronous_commit = on")
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}")

    def _wait_for_readers(self) -> None:
        wanted = sum(
            1 for reader in self._readers() if reader.server.is_running and not reader.server.is_hung and not reader.is_stale
        )
        self._writer.server.wait(
            lambda: self._writer.server.ask("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")[0][0] >= wanted,
            f"to stream to {wanted} readers",
        )

    def stop_all(self) -> None:
        """End every server."""
        for instance in self.instances.values():
            self._release_slots(instance)
            if instance.server.is_running:
                instance.server.kill()

    # -- what instances believe --------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Refresh the view of every instance that takes part, and the names."""
        now = time.time()
        for instance in self.instances.values():
            if instance.server.is_running and not instance.server.is_hung and not instance.is_stale:
                instance.seen_at = now
        view = {
            "instances": [
                {
                    "id": instance.id,
                    "writer": instance.id == self.writer_id,
                    "lag_ms": 10.0,
                    "cpu": 5.0,
                    "updated_at": instance.seen_at or now,
                }
                for instance in self.instances.values()
            ]
        }
        for instance in self.instances.values():
            if not instance.server.is_hung and not instance.is_stale:
                _replace(instance.server.view_file, json.dumps(view))
        self._write_hosts()

    def _write_hosts(self) -> None:
        readers = [reader for reader in self._readers() if reader.server.is_running] or [self._writer]
        lines = [f"{instance.address} {instance.endpoint}" for instance in self.instances.values()]
        lines.append(f"{self.instances[self.named_writer_id].address} {self.writer_endpoint}")
        lines.append(f"{readers[0].address} {self.reader_endpoint}")
        _replace(self.hosts_file, "\n".join(lines) + "\n")

    def flip_name(self) -> None:
        """Have the writer endpoint's name lead to the writer."""
        self.named_writer_id = self.writer_id
        self._write_hosts()

    # -- faults ----------------------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL an instance."""
        self.resolve(name).server.kill()

    def stop(self, name: str) -> None:
        """Shut an instance down in order."""
        self.resolve(name).server.stop()

    def hang(self, name: str, postmaster_only: bool = False) -> None:
        """SIGSTOP an instance."""
        self.resolve(name).server.hang(postmaster_only=postmaster_only)

    def resume(self, name: str) -> None:
        """SIGCONT an instance. If another one became the writer meanwhile, this one goes on believing that it is."""
        self.resolve(name).server.resume()
        self.publish()

    def refuse_logins(self, name: str, on: bool = True) -> None:
        """Have an instance refuse the application's logins (28000)."""
        instance = self.resolve(name)
        instance.refuses_logins = on
        instance.server.write_access(refused=on)
        instance.server.reload()
        instance.server.wait(lambda: self._can_log_in(instance) is not on, "to read its access rules")

    def _can_log_in(self, instance: Instance) -> bool:
        try:
            self._log_in(instance).close()
        except psycopg.OperationalError as error:
            if "pg_hba.conf" in str(error):
                return False
            raise
        return True

    def _log_in(self, instance: Instance) -> Any:
        return psycopg.connect(
            host=instance.address, port=self.port, user=USER, password=self.password, dbname=DATABASE, autocommit=True,
            application_name="lab-occupier",
        )  # fmt: skip

    def too_many_connections(self, name: str, on: bool = True) -> None:
        """Occupy every connection that an instance has left, so that logins fail with 53300; or release them."""
        instance = self.resolve(name)
        if not on:
            self._release_slots(instance)
            instance.server.wait(lambda: self._can_log_in(instance), "to release its connections")
            return
        while True:
            try:
                instance.occupied.append(self._log_in(instance))
            except psycopg.OperationalError as error:
                if any(text in str(error) for text in ("too many clients", "remaining connection slots")):
                    return
                raise

    @staticmethod
    def _release_slots(instance: Instance) -> None:
        for connection in instance.occupied:
            connection.close()
        instance.occupied.clear()

    def drop_sessions(self, name: str) -> int:
        """End every client session of an instance; return how many there were."""
        rows = self.resolve(name).server.ask(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        return int(rows[0][0])

    # -- moving the writer -----------------------------------------------------------------------------------------------------

    def start_instance(self, name: str) -> None:
        """Start an instance again; it joins as a reader if another one is the writer."""
        instance = self.resolve(name)
        if instance.server.is_running:
            if not instance.is_stale:
                raise LabError(f"{instance.id} is running")
            instance.server.kill()
        self._release_slots(instance)
        if instance.id == self.writer_id:
            instance.server.start(self._options(instance))
        else:
            self._join(instance)
        self.publish()

    def _join(self, instance: Instance) -> None:
        """Become a fresh reader. Always a new copy: what an old writer had and nobody else got is lost, as it is on Aurora."""
        if not self._writer.server.is_running or self._writer.server.is_hung:
            raise LabError(f"{instance.id} cannot join: the writer {self.writer_id} is not available; fail over first")
        instance.server.clone(self._writer.server, instance.id)
        instance.is_stale = False
        instance.refuses_logins = False
        instance.server.write_access()
        instance.server.start(self._options(instance))

    def promote(self, target: str | None = None, drop_sessions: bool | None = None) -> dict[str, Any]:
        """Have a reader become the writer. Aurora's order: promote, restart (the sessions are dropped), tell the cluster."""
        started = time.monotonic()
        timings: dict[str, float] = {}
        new = self._most_advanced() if target is None else self.resolve(target)
        old = self._writer
        if new is old:
            raise LabError(f"{new.id} is the writer already")
        if not new.server.is_running or new.server.is_hung:
            raise LabError(f"{new.id} cannot be promoted: it is not running")
        new.server.promote()
        timings["promoted"] = time.monotonic() - started
        self.writer_id = new.id
        old.is_stale = old.server.is_hung
        if self.options.drop_sessions if drop_sessions is None else drop_sessions:
            self.drop_sessions(new.id)
        self.publish()
        timings["published"] = time.monotonic() - started
        for reader in self._readers():
            if reader is not old and reader.server.is_running and not reader.server.is_hung:
                reader.server.follow(new.server, reader.id)
                reader.server.reload()
        timings["repointed"] = time.monotonic() - started
        return {"old_writer": old.id, "new_writer": new.id, "timings": timings}

    def _most_advanced(self) -> Instance:
        usable = [
            reader for reader in self._readers() if reader.server.is_running and not reader.server.is_hung and not reader.is_stale
        ]
        if not usable:
            raise LabError("no reader is running: nobody can be promoted")
        position = "SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), '0/0'), '0/0')"
        return max(usable, key=lambda reader: (reader.server.ask(position)[0][0], reader.id))

    def rejoin_old_writers(self) -> None:
        """Have every former writer that is down or still up in its old role join as a reader; hung ones stay hung."""
        for instance in self._readers():
            if instance.server.is_hung:
                continue
            if instance.server.is_running and not instance.is_stale:
                if instance.server.ask("SELECT pg_is_in_recovery()")[0][0]:
                    continue
                instance.server.stop()
            elif instance.server.is_running:
                instance.server.kill()
            self._release_slots(instance)
            self._join(instance)
        self.publish()

    def reset(self) -> None:
        """Undo every fault: one writer, all others streaming from it."""
        for instance in self.instances.values():
            self._release_slots(instance)
            if instance.server.is_hung:
                instance.server.resume()
        if not self._writer.server.is_running:
            self._writer.server.start(self._options(self._writer))
        for instance in self.instances.values():
            if instance.refuses_logins:
                self.refuse_logins(instance.id, False)
        self.rejoin_old_writers()
        self.named_writer_id = self.writer_id
        self._wait_for_readers()
        self.publish()


def _replace(path: Path, text: str) -> None:
    """Replace a file in one step; readable by the servers' account."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


def _free_addresses(count: int) -> tuple[str, int]:
    """Return three numbers of a loopback network in which `count` addresses have the same port free."""
    for _ in range(200):
        prefix = f"127.{random.randint(10, 250)}.{random.randint(1, 250)}"
        port = 5432 if random.random() < 0.9 else random.randint(20000, 30000)
        try:
            for number in range(1, count + 1):
                with socket.socket() as probe:
                    probe.bind((f"{prefix}.{number}", port))
        except OSError:
            continue
        return prefix, port
    raise LabError("no free loopback addresses found (Linux gives 127.0.0.0/8 to every machine; other systems need aliases)")
