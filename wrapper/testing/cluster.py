"""The lab's cluster: its instances, what each of them believes, and the faults that can befall them."""

from __future__ import annotations

import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wrapper.testing.addresses import free_network
from wrapper.testing.certificates import Certificates
from wrapper.testing.engine import DATABASE, USER, make_engine
from wrapper.testing.errors import LabError
from wrapper.testing.options import Options
from wrapper.testing.server import Server

# What instances say of their load unless they are told otherwise.
USUAL_CPU = 5.0
USUAL_LAG_MS = 10.0


@dataclass
class Instance:
    """An instance and what its cluster thinks of it.

    `is_stale`: its view of the cluster is frozen, because it was hung when somebody else became the writer. `seen_at`: when it last
    took part (seconds since the Unix epoch). `is_member`: the cluster has it; one that was removed is down and has no name.
    """

    id: str
    endpoint: str
    server: Server
    is_stale: bool = False
    seen_at: float = 0.0
    cpu: float = USUAL_CPU
    lag_ms: float = USUAL_LAG_MS
    is_member: bool = True

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def is_usable(self) -> bool:
        """Whether it answers and takes part."""
        return self.server.is_responsive and not self.is_stale


class Cluster:
    """The instances, their views and faults; `failover` moves the writer. Used by the controller alone, on its main thread."""

    def __init__(self, options: Options) -> None:
        options.check()
        self.options = options
        self.directory = Path(options.directory)
        self.password = secrets.token_hex(8)
        self.superuser_password = secrets.token_hex(16)
        self.hash = secrets.token_hex(4)
        self.engine = make_engine(options, self.password, self.superuser_password)
        numbers = range(1, options.instances + 1)
        offset = self.engine.direct_offset
        used = {number + there for number in numbers for there in (0, offset)}
        prefix, self.port = free_network(used, self.engine.usual_port, self.engine.other_ports)
        self.pattern = f"{prefix}.?" if options.address_names else self._full_name("?")
        self.instances: dict[str, Instance] = {}
        addresses = [f"{prefix}.{number}" for number in sorted(used)]
        names = [self.pattern.replace("?", _identity(options, number)) for number in numbers]
        self._has_expired = False
        if options.tls:
            endpoints = {*addresses, *names, self.writer_endpoint, self.reader_endpoint}
            self.engine.certificates = Certificates(self.directory / "tls", sorted(endpoints))
        for number in numbers:
            identity = _identity(options, number)
            server = self.engine.make_server(identity, f"{prefix}.{number}", self.port, f"{prefix}.{number + offset}")
            self.instances[identity] = Instance(identity, self.pattern.replace("?", identity), server)
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
        by_address = self.options.address_names
        return {
            "engine": self.options.engine,
            "flavor": self.options.flavor,
            "port": self.port,
            "database": DATABASE,
            "user": USER,
            "password": self.password,
            "superuser": self.engine.superuser,
            "superuser_password": self.superuser_password,
            "superuser_port": self.engine.admin_port(self.port),
            "controller": os.getpid(),
            "pattern": self.pattern,
            "writer_endpoint": self.writer.address if by_address else self.writer_endpoint,
            "reader_endpoint": self.readers()[0].address if by_address and self.readers() else self.reader_endpoint,
            "hosts_file": str(self.hosts_file),
            "authority": str(self.engine.certificates.authority) if self.engine.certificates is not None else None,
            "address_names": by_address,
            "instances": [
                {
                    "id": instance.id,
                    "endpoint": instance.endpoint,
                    "address": instance.address,
                    "port": self.port,
                    "direct_address": instance.server.direct_address,
                }
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
                    "direct": f"{instance.server.direct_address}:{self.port}",
                    "role": "writer" if instance.id == self.writer_id else "reader",
                    "state": _state(instance),
                    "stale": instance.is_stale,
                    "refuses_logins": instance.server.refuses_logins,
                    "full": instance.server.is_full,
                }
                for instance in self.instances.values()
            ],
        }

    @property
    def writer(self) -> Instance:
        return self.instances[self.writer_id]

    def readers(self) -> list[Instance]:
        """All instances of the cluster but the writer."""
        return [instance for instance in self.instances.values() if instance.id != self.writer_id and instance.is_member]

    def heirs(self) -> list[Instance]:
        """Who may become the writer when nobody is named."""
        return self.readers()

    def mend(self) -> None:
        """Forget what is special about instances, as the first part of a reset."""

    def resolve(self, name: str) -> Instance:
        """Return the instance called `name`; `writer` and `reader` name one by its role."""
        if name == "writer":
            return self.writer
        if name == "reader":
            usable = [reader for reader in self.readers() if reader.server.is_responsive]
            if not usable:
                raise LabError("no reader is running")
            return usable[0]
        if name not in self.instances:
            raise LabError(f"no instance {name!r}: expected writer, reader, {', '.join(self.instances)}")
        return self.instances[name]

    # -- up and down -----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make the servers and start them."""
        for instance in self.instances.values():
            instance.server.directory.mkdir(mode=0o755)
        self.publish()
        self.engine.found(self.writer.server, [reader.server for reader in self.readers()])
        self.publish()

    def stop_all(self) -> None:
        """End every server."""
        for instance in self.instances.values():
            instance.server.kill()

    # -- what instances believe --------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Refresh the view of every instance that takes part, and the names."""
        now = time.time()
        members = [instance for instance in self.instances.values() if instance.is_member]
        for instance in members:
            if instance.is_usable:
                instance.seen_at = now
        is_multi_az = self.options.family == "multi-az"
        resource_id = self.engine.resource_id
        view = {
            "source": resource_id(self.writer_id) if is_multi_az else None,
            "topology": [
                {"id": resource_id(instance.id), "endpoint": self._full_name(instance.id), "port": self.port}
                for instance in members
                if is_multi_az
            ],
            "instances": [
                {
                    "id": instance.id,
                    "writer": instance.id == self.writer_id,
                    "lag_ms": instance.lag_ms,
                    "cpu": instance.cpu,
                    "updated_at": instance.seen_at or now,
                }
                for instance in members
            ],
        }
        for instance in members:
            if not instance.server.is_hung and not instance.is_stale:
                replace_file(instance.server.view_file, json.dumps(self.seen_by(instance, view)))
        self._write_hosts()

    def seen_by(self, instance: Instance, view: dict[str, Any]) -> dict[str, Any]:
        """What an instance knows of the cluster, given all there is."""
        return view

    def _full_name(self, identity: str) -> str:
        """An instance's name in the domain, also where it is called by its address."""
        return f"{identity}.{self.hash}.{self.options.suffix}"

    def _write_hosts(self) -> None:
        readers = [reader for reader in self.readers() if reader.server.is_running] or [self.writer]
        lines = self._instance_lines()
        lines.append(f"{self.instances[self.named_writer_id].address} {self.writer_endpoint}")
        lines.append(f"{readers[0].address} {self.reader_endpoint}")
        replace_file(self.hosts_file, "\n".join(lines) + "\n")

    def _instance_lines(self) -> list[str]:
        return [f"{instance.address} {instance.endpoint}" for instance in self.instances.values() if instance.is_member]

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
                instance.server.refresh()  # there may be a new writer to follow
            self.publish()

    def refuse_logins(self, name: str, on: bool = True) -> None:
        """Have an instance refuse the application's logins."""
        self._responsive(name).refuse_logins(on)

    def too_many_connections(self, name: str, on: bool = True) -> None:
        """Have an instance run out of connections for applications; or not."""
        server = self._responsive(name)
        if not on:
            server.vacate()
        elif not server.is_full:
            server.occupy(self.options.max_connections)

    def set_load(self, name: str, cpu: float = USUAL_CPU, lag_ms: float = USUAL_LAG_MS) -> None:
        """Have the cluster's table list an instance with this load."""
        instance = self.resolve(name)
        instance.cpu, instance.lag_ms = cpu, lag_ms
        self.publish()

    def expire_certificate(self, on: bool = True) -> None:
        """Have the servers show new sessions a certificate that expired yesterday; or not."""
        if self.engine.certificates is None:
            raise LabError("the lab has no certificates: start it with tls=True")
        if self._has_expired is not on:
            self._has_expired = on
            self.engine.certificates.sign(expired=on)
            for instance in self.instances.values():
                if instance.server.is_responsive:
                    instance.server.renew_certificate()

    def drop_sessions(self, name: str) -> int:
        """End every client session of an instance; return how many there were, when they are gone."""
        return self._responsive(name).drop_sessions()

    def _responsive(self, name: str) -> Server:
        server = self.resolve(name).server
        if not server.is_responsive:
            raise LabError(f"{server.id} is {'hung: resume it first' if server.is_hung else 'down: start it first'}")
        return server


def _state(instance: Instance) -> str:
    if not instance.is_member:
        return "removed"
    return "hung" if instance.server.is_hung else "running" if instance.server.is_running else "down"


def _identity(options: Options, number: int) -> str:
    return str(number) if options.address_names else f"instance-{number}"


def replace_file(path: Path, text: str) -> None:
    """Replace a file in one step; readable by the servers' account."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
