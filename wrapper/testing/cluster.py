"""The lab's cluster: who is the writer, what each instance believes, and everything that can be done to it."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from wrapper.testing.account import choose_account
from wrapper.testing.binaries import LabError, find_binaries
from wrapper.testing.server import APPLICATION_NAME, RESERVED, SUPERUSER, Server

DATABASE = "app"
USER = "app"
EXTENSIONS = "aurora_stat_utils,rds_tools"

# Who has no user name has not logged in yet: what fills a full server (shown since PostgreSQL 18).
_END_SESSIONS = f"""\
SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND usename IS NOT NULL AND application_name <> '{APPLICATION_NAME}'"""


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


class Cluster:
    """The instances and the commands. Used by the controller alone, on its main thread."""

    def __init__(self, options: Options) -> None:
        if options.instances < 1 or options.instances > 15:
            raise LabError(f"instances={options.instances} is not valid: expected 1 to 15")
        if options.flavor not in ("aurora-pg", "pg"):
            raise LabError(f"flavor={options.flavor!r} is not valid: expected aurora-pg or pg")
        self.options = options
        self.directory = Path(options.directory)
        self.password = secrets.token_hex(8)
        self.superuser_password = secrets.token_hex(16)
        self.hash = secrets.token_hex(4)
        prefix, self.port = _free_addresses(options.instances)
        self.pattern = f"{prefix}.?" if options.address_names else f"?.{self.hash}.{options.suffix}"
        self.instances: dict[str, Instance] = {}
        binaries = find_binaries()
        account = choose_account(binaries, self.directory)
        for number in range(1, options.instances + 1):
            identity = str(number) if options.address_names else f"instance-{number}"
            address = f"{prefix}.{number}"
            folder = self.directory / identity
            server = Server(binaries, account, folder, identity, address, self.port, self.superuser_password)
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
            "superuser_password": self.superuser_password,
            "controller": os.getpid(),
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
                    "full": instance.server.is_full,
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
        for instance in self.instances.values():
            instance.server.directory.mkdir(mode=0o755)
            instance.server.account.own(instance.server.directory)
        self.publish()
        writer = self._writer
        settings = {
            "max_connections": str(self.options.max_connections + RESERVED),
            "superuser_reserved_connections": str(RESERVED),
        }
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
        self._wait_for_readers({reader.id for reader in readers})
        self.publish()

    def _options(self, instance: Instance) -> dict[str, str]:
        """What is given on the command line: the configuration files are copied from instance to instance, identity must not be."""
        options = {"cluster_name": instance.id}
        if self.options.flavor == "aurora-pg":
            options |= {
                "rds.extensions": EXTENSIONS,
                "aurora_lab.instance_id": instance.id,
            }
        return options

    def _dress(self, writer: Instance) -> None:
        sql = (Path(__file__).parent / "sql" / "aurora.sql").read_text(encoding="utf-8")
        if self.options.flavor == "aurora-pg":
            for database in ("template1", "postgres"):
                with psycopg.connect(writer.server.conninfo, dbname=database, autocommit=True) as connection:
                    connection.execute(sql)
        with psycopg.connect(writer.server.conninfo, autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {USER} LOGIN PASSWORD '{self.password}'")
            if self.options.synchronous:
                connection.execute(f"ALTER ROLE {USER} SET synchronous_commit = on")
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER {USER}")

    def _wait_for_readers(self, wanted: set[str], timeout: float = 20.0) -> None:
        writer = self._writer.server
        following = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'"
        writer.wait(lambda: wanted <= {row[0] for row in writer.ask(following)}, f"to stream to {', '.join(wanted)}", timeout)

    def stop_all(self) -> None:
        """End every server."""
        for instance in self.instances.values():
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
        instance = self.resolve(name)
        if instance.server.is_hung:
            instance.server.resume()
            if not instance.is_stale:
                instance.server.reload()  # there may be a new writer to follow
            self.publish()

    def refuse_logins(self, name: str, on: bool = True) -> None:
        """Have an instance refuse the application's logins (28000)."""
        instance = self._responsive(name)
        instance.refuses_logins = on
        instance.server.write_access(refused=on)
        instance.server.reload()

    def too_many_connections(self, name: str, on: bool = True) -> None:
        """Have an instance run out of connections for applications (53300); or not."""
        server = self._responsive(name).server
        if not on:
            server.vacate()
        elif not server.is_full:
            server.occupy(self.options.max_connections)

    def drop_sessions(self, name: str) -> int:
        """End every client session of an instance; return how many there were, when they are gone."""
        server = self._responsive(name).server
        ended = [row[0] for row in server.ask(_END_SESSIONS)]
        if ended:
            # Not until nobody is there: clients come back at once.
            server.wait(lambda: not server.ask("SELECT FROM pg_stat_activity WHERE pid = ANY(%s)", ended), "to end its sessions")
        return len(ended)

    def _responsive(self, name: str) -> Instance:
        instance = self.resolve(name)
        if instance.server.is_hung or not instance.server.is_running:
            state = "hung: resume it first" if instance.server.is_hung else "down: start it first"
            raise LabError(f"{instance.id} is {state}")
        return instance

    # -- moving the writer -----------------------------------------------------------------------------------------------------

    def start_instance(self, name: str) -> None:
        """Start an instance again; it joins as a reader if another one is the writer."""
        instance = self.resolve(name)
        if instance.server.is_running and not instance.is_stale:
            raise LabError(f"{instance.id} is {'hung: resume it' if instance.server.is_hung else 'running'}")
        self._start(instance)
        self.publish()

    def rejoin(self, name: str) -> None:
        """Make any instance but the writer a proper reader, whatever state it is in."""
        instance = self.resolve(name)
        if instance.id == self.writer_id:
            raise LabError(f"{instance.id} is the writer: name another instance")
        self._start(instance)
        self.publish()

    def _start(self, instance: Instance) -> None:
        server, writer = instance.server, self._writer.server
        if instance is self._writer:
            server.start(self._options(instance))
            return
        if not writer.is_running or writer.is_hung:
            if not server.is_running and not server.was_writer:
                self._start_reader(instance)  # it can wait for a writer
                return
            raise LabError(f"{instance.id} cannot join: the writer {self.writer_id} is not available; start it, or fail over first")
        # What an old writer had and nobody else got is lost, as it is on Aurora.
        if server.is_hung:
            server.kill()
        server.stop()
        if server.was_writer and not server.rewind(writer):
            server.clone(writer, instance.id)
        self._start_reader(instance)
        self._ensure_following(instance)

    def _ensure_following(self, instance: Instance) -> None:
        try:
            self._wait_for_readers({instance.id}, timeout=3.0)
        except LabError:
            # It may have received more than the new writer ever had; then it can follow only as a fresh copy.
            instance.server.kill()
            instance.server.clone(self._writer.server, instance.id)
            self._start_reader(instance)
            self._wait_for_readers({instance.id})

    def _start_reader(self, instance: Instance) -> None:
        server = instance.server
        server.follow(self._writer.server, instance.id)
        server.write_access(refused=instance.refuses_logins)
        instance.is_stale = False
        server.start(self._options(instance))

    def end_writer(self, target: str | None) -> None:
        """Shut the writer down, as the beginning of a failover; one that hangs or is down already is left alone."""
        server = self._writer.server
        self._candidate(target)  # that nobody can follow is an error now, not when the writer is gone
        if server.is_running and not server.is_hung:
            # An orderly shutdown waits for every standby, so one that hangs would hold it up.
            server.stop(patience=0.05 if any(reader.server.is_hung for reader in self._readers()) else 3.0)
            self.publish()

    def promote(self, target: str | None = None, drop_sessions: bool | None = None) -> dict[str, Any]:
        """Have a reader become the writer. Aurora's order: promote, restart (the sessions are dropped), tell the cluster."""
        started = time.monotonic()
        timings: dict[str, float] = {}
        new, old = self._candidate(target), self._writer
        with new.server.session() as session:
            new.server.promote(session)
            timings["promoted"] = time.monotonic() - started
            self.writer_id = new.id
            old.is_stale = old.server.is_hung
            if self.options.drop_sessions if drop_sessions is None else drop_sessions:
                session.execute(_END_SESSIONS)
        self.publish()
        timings["published"] = time.monotonic() - started
        return {"old_writer": old.id, "new_writer": new.id, "at": time.monotonic(), "timings": timings}

    def repoint(self) -> None:
        """Have the readers follow the writer; one that hangs or is down finds it when it comes back."""
        for reader in self._readers():
            if not reader.server.was_writer:
                reader.server.follow(self._writer.server, reader.id)
                if reader.server.is_running and not reader.server.is_hung:
                    reader.server.reload()

    def _candidate(self, target: str | None) -> Instance:
        if target is None:
            return self._most_advanced()
        instance = self.resolve(target)
        if instance is self._writer:
            raise LabError(f"{instance.id} is the writer already: name a reader")
        if not instance.server.is_running or instance.server.is_hung or instance.is_stale:
            raise LabError(f"{instance.id} cannot be promoted: it does not run as a reader; start or rejoin it first")
        return instance

    def _most_advanced(self) -> Instance:
        usable = [
            reader for reader in self._readers() if reader.server.is_running and not reader.server.is_hung and not reader.is_stale
        ]
        if not usable:
            raise LabError("no reader is running: nobody can be promoted")
        position = "SELECT pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), '0/0'), '0/0')"
        return max(usable, key=lambda reader: (reader.server.ask(position)[0][0], reader.id))

    def rejoin_old_writers(self) -> None:
        """Have every former writer that is down, or still up in its old role, join as a reader; hung ones stay hung."""
        for instance in self._readers():
            if not instance.server.is_hung and (instance.is_stale or instance.server.was_writer):
                self._start(instance)
        self.publish()

    def reset(self) -> None:
        """Undo every fault: one writer, all others streaming from it."""
        for instance in self.instances.values():
            if instance.server.is_hung and not instance.is_stale:
                self.resume(instance.id)
            instance.server.vacate()
            if instance.refuses_logins:
                instance.refuses_logins = False
                instance.server.write_access()
                if instance.server.is_running and not instance.is_stale:
                    instance.server.reload()
        if not self._writer.server.is_running:
            self._start(self._writer)
        following = {
            row[0] for row in self._writer.server.ask("SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
        }
        for reader in self._readers():
            if reader.is_stale or not reader.server.is_running:
                self._start(reader)
            elif reader.id not in following:
                self._ensure_following(reader)
        self.flip_name()
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
