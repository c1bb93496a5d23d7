"""The lab's Global Database, as the controller sees it: one cluster of which each instance is in a region."""

from __future__ import annotations

import secrets
from typing import Any

from wrapper.testing.cluster import Cluster, Instance, replace_file
from wrapper.testing.errors import LabError
from wrapper.testing.options import Options


class GlobalCluster(Cluster):
    """All instances replicate from the one writer; what they know, and what they are called, depends on the region.

    `detached`: regions that are no longer part of it, and who is the writer there, now that each is a cluster of its own.
    """

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.regions = tuple(options.regions)
        self.detached: dict[str, str] = {}
        # Endpoints have another identifier in each region, as they have on AWS.
        self._domains = {region: f"{secrets.token_hex(4)}.{region}.rds.test" for region in self.regions}
        size = options.instances // len(self.regions)
        self.region_of = {identity: self.regions[number // size] for number, identity in enumerate(self.instances)}
        for instance in self.instances.values():
            instance.endpoint = f"{instance.id}.{self._domains[self.region_of[instance.id]]}"
        self.pattern = ",".join(f"{region}:?.{domain}" for region, domain in self._domains.items())

    # -- facts -----------------------------------------------------------------------------------------------------------------

    @property
    def region(self) -> str:
        """Where the writer is."""
        return self.region_of[self.writer_id]

    @property
    def global_endpoint(self) -> str:
        return f"lab.global-{self.hash}.global.rds.test"

    @property
    def writer_endpoint(self) -> str:
        return self._endpoint("cluster", self.regions[0])

    @property
    def reader_endpoint(self) -> str:
        return self._endpoint("cluster-ro", self.regions[0])

    def _endpoint(self, kind: str, region: str) -> str:
        return f"lab.{kind}-{self._domains[region]}"

    def facts(self) -> dict[str, Any]:
        endpoints = {
            region: {"writer": self._endpoint("cluster", region), "reader": self._endpoint("cluster-ro", region)}
            for region in self.regions
        }
        return {**super().facts(), "regions": endpoints, "global_endpoint": self.global_endpoint}

    def status(self) -> dict[str, Any]:
        status = super().status()
        for entry in status["instances"]:
            entry["region"] = region = self.region_of[entry["id"]]
            if self.detached.get(region) == entry["id"]:
                entry["role"] = "writer"
        return {**status, "region": self.region, "detached": list(self.detached)}

    def members(self, region: str) -> list[Instance]:
        """The instances of a region. Raises `LabError` for one that there is not."""
        if region not in self.regions:
            raise LabError(f"no region {region!r}: expected {' or '.join(self.regions)}")
        return [instance for instance in self.instances.values() if self.region_of[instance.id] == region]

    def other_region(self) -> str:
        """A region without the writer."""
        return next(region for region in self.regions if region != self.region)

    def heirs(self) -> list[Instance]:
        return [reader for reader in self.readers() if self.region_of[reader.id] == self.region]

    def best_in(self, region: str) -> Instance:
        """Who can become the writer in a region: the most advanced instance."""
        members = self.members(region)
        if region == self.region:
            raise LabError(f"{region} has the writer already: name another region")
        usable = [instance for instance in members if instance.is_usable and region not in self.detached]
        if not usable:
            raise LabError(f"no instance of {region} runs as a reader: nobody can be promoted")
        return max(usable, key=lambda instance: (instance.server.position(), instance.id))

    # -- what instances believe ------------------------------------------------------------------------------------------------

    def seen_by(self, instance: Instance, view: dict[str, Any]) -> dict[str, Any]:
        region = self.region_of[instance.id]
        own_writer = self.detached.get(region)
        near = [entry for entry in view["instances"] if self.region_of[entry["id"]] == region]
        if own_writer is not None:
            return {**view, "instances": [{**entry, "writer": entry["id"] == own_writer} for entry in near]}
        together = [entry for entry in view["instances"] if self.region_of[entry["id"]] not in self.detached]
        return {
            **view,
            "instances": near,
            "regions": [region for region in self.regions if region not in self.detached],
            "global_instances": [{**entry, "region": self.region_of[entry["id"]]} for entry in together],
        }

    def _write_hosts(self) -> None:
        named = self.instances[self.named_writer_id]
        lines = self._instance_lines()
        lines.append(f"{named.address} {self.global_endpoint}")
        for region in self.regions:
            members = self.members(region)
            readers = [one for one in members if one.id != self.writer_id and one.server.is_running] or members
            # Without a writer in its region, a writer endpoint leads to whoever is there.
            writer = named if named in members else readers[0]
            lines.append(f"{writer.address} {self._endpoint('cluster', region)}")
            lines.append(f"{readers[0].address} {self._endpoint('cluster-ro', region)}")
        replace_file(self.hosts_file, "\n".join(lines) + "\n")

    # -- regions ---------------------------------------------------------------------------------------------------------------

    def kill_region(self, region: str) -> None:
        """SIGKILL every instance of a region; those that hang are left hanging."""
        for instance in self.members(region):
            if not instance.server.is_hung:
                instance.server.kill()

    def detach(self, region: str) -> None:
        """Make a region a cluster of its own, with the writer that it has."""
        self.detached[region] = self.writer_id

    def attach(self, region: str) -> list[Instance]:
        """Make a region part of the database again; return its instances, which have to follow the writer now."""
        self.detached.pop(region, None)
        return self.members(region)

    def start_apart(self, name: str) -> bool:
        """Start an instance of a region that is a cluster of its own; whether it is one."""
        instance = self.resolve(name)
        own_writer = self.detached.get(self.region_of[instance.id])
        if own_writer is None:
            return False
        if instance.server.is_running:
            raise LabError(f"{instance.id} is {'hung: resume it' if instance.server.is_hung else 'running'}")
        instance.server.start(None if instance.id == own_writer else self.instances[own_writer].server)
        self.publish()
        return True

    def mend(self) -> None:
        for region in list(self.detached):
            for instance in self.attach(region):
                instance.is_stale = instance.server.is_running
