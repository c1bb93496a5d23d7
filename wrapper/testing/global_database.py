"""`LocalGlobalDatabase`: a local Aurora Global Database over two regions, from Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wrapper.testing.client import FailoverReport, Instance
from wrapper.testing.local import LocalAurora

REGIONS = ("us-east-1", "eu-west-1")


class LocalGlobalDatabase(LocalAurora):
    """A local Aurora Global Database: a cluster in each of several regions, of which one has the writer.

    `instances`: how many in each region. `regions`: the first one has the writer in the beginning. Everything else is as in
    `LocalAurora`; `failover` without a target stays in the writer's region. `instance_host_pattern` is the value of
    `global_cluster_instance_host_patterns`.
    """

    def __init__(self, instances: int = 2, *, regions: Sequence[str] = REGIONS, **options: Any) -> None:
        super().__init__(instances * len(regions), regions=regions, **options)

    def __enter__(self) -> LocalGlobalDatabase:
        return self

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(self.facts["regions"])

    @property
    def region(self) -> str:
        """The region that has the writer."""
        return str(self.status()["region"])

    @property
    def global_endpoint(self) -> str:
        """The name that leads to the writer, whatever its region."""
        return str(self.facts["global_endpoint"])

    def endpoint(self, region: str, kind: str = "writer") -> str:
        """The name that leads to the `writer` or a `reader` of a region. Without a writer there, its name leads to a reader."""
        return str(self.facts["regions"][region][kind])

    def in_region(self, region: str) -> tuple[Instance, ...]:
        """The instances of a region."""
        regions = {entry["id"]: entry["region"] for entry in self.status()["instances"]}
        return tuple(instance for instance in self.instances if regions[instance.id] == region)

    def switchover(self, region: str) -> FailoverReport:
        """Move the writer to another region, in order: the old one ends when the others have everything, and joins as a reader."""
        return FailoverReport(**self.request("switchover", region=region))

    def kill_region(self, region: str) -> None:
        """SIGKILL every instance of a region, except those that hang."""
        self.request("kill_region", region=region)

    def fail_over_region(
        self, region: str | None = None, *, detach: bool = True, promote_delay: float | None = None
    ) -> FailoverReport:
        """Kill the writer's region, except what hangs, and promote an instance of another one.

        `detach`: the lost region is no longer part of the database; what is started there again is a cluster of its own, with the
        writer that it had. Otherwise it stays listed, and what is started or resumed there finds the new writer.
        """
        arguments = {"region": region, "detach": detach, "promote_delay": promote_delay}
        return FailoverReport(**self.request("fail_over_region", **arguments))

    def rejoin_region(self, region: str) -> None:
        """Make a region part of the database again, all its instances readers."""
        self.request("rejoin_region", region=region)

    def restore(self) -> None:
        """Undo every fault, as `reset` does, and have the writer in the first region."""
        self.reset()
        if self.region != self.regions[0]:
            self.switchover(self.regions[0])
