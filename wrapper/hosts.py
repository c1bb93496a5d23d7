"""Database hosts as values: what a host is called, what it is for, and how it is keyed.

Nothing here performs I/O or knows a driver. All classes are immutable and hashable, so they can be shared between threads, kept
in sets and compared by value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from functools import lru_cache

NO_PORT = -1
DEFAULT_WEIGHT = 100


class HostRole(str, Enum):
    """What a host does in its cluster."""

    UNKNOWN = "unknown"
    READER = "reader"
    WRITER = "writer"

    @classmethod
    def parse(cls, text: str) -> HostRole:
        """Return the role called `text`; a name from a newer protocol version is `UNKNOWN`."""
        return _ROLES.get(text, cls.UNKNOWN)


_ROLES = {role.value: role for role in HostRole}


class HostAvailability(str, Enum):
    """Whether new connections to a host are worth trying."""

    AVAILABLE = "available"
    UNAVAILABLE = "unavailable"


@lru_cache(maxsize=1024)
def host_key(host: str, port: int) -> str:
    """Return the text by which host health is keyed everywhere: `host:port`, lower case, without a trailing dot.

    >>> host_key("Instance-1.xyz.us-east-2.rds.amazonaws.com.", 5432)
    'instance-1.xyz.us-east-2.rds.amazonaws.com:5432'
    >>> host_key("2001:DB8::1", 5432)
    '[2001:db8::1]:5432'
    """
    name = host.strip().rstrip(".").lower()
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return f"{name}:{port}"


def split_host_key(key: str) -> tuple[str, int]:
    """Return the host and port of a key made by `host_key` (IPv6 addresses come without brackets)."""
    host, _, port = key.rpartition(":")
    return host.strip("[]"), int(port)


@dataclass(frozen=True, slots=True)
class HostInfo:
    """One database host: its endpoint, role and what is known of it.

    `port` is `NO_PORT` when none was given. `host_id` is the name the cluster itself uses for the instance (Aurora: the instance
    identifier). `aliases` are other `host:port` texts under which the same instance was reached. `cpu` (percent) and `lag_ms` are
    what the cluster's own table said last, None where it does not say; `connections` are those of this machine, where they were
    counted. `key` is that of the host's health, see `host_key`. Equality and hash cover endpoint, role and availability only, so a
    newer load figure does not make it another host.
    """

    host: str
    port: int = NO_PORT
    role: HostRole = HostRole.WRITER
    availability: HostAvailability = HostAvailability.AVAILABLE
    weight: int = field(default=DEFAULT_WEIGHT, compare=False)
    host_id: str | None = field(default=None, compare=False)
    last_update_time: datetime | None = field(default=None, compare=False)
    aliases: frozenset[str] = field(default=frozenset(), compare=False)
    cpu: float | None = field(default=None, compare=False)
    lag_ms: float | None = field(default=None, compare=False)
    connections: int = field(default=0, compare=False)
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # A host is made once and asked for its key at every connect.
        object.__setattr__(self, "key", host_key(self.host, self.port))

    @property
    def url(self) -> str:
        """`host:port/`, the identity used in host-list change notifications."""
        return f"{self.get_host_and_port()}/"

    @property
    def all_aliases(self) -> frozenset[str]:
        """`aliases` and the host's own `host:port`."""
        return self.aliases | {self.as_alias()}

    def is_port_specified(self) -> bool:
        """Whether a port is known."""
        return self.port != NO_PORT

    def get_host_and_port(self) -> str:
        """`host:port`, or the host alone when no port is known."""
        return f"{self.host}:{self.port}" if self.is_port_specified() else self.host

    as_alias = get_host_and_port

    def get_availability(self) -> HostAvailability:
        """Whether new connections to the host are worth trying."""
        return self.availability

    def with_role(self, role: HostRole) -> HostInfo:
        """Return a copy with another role."""
        return self if role is self.role else replace(self, role=role)

    def with_aliases(self, aliases: frozenset[str]) -> HostInfo:
        """Return a copy with other aliases."""
        return replace(self, aliases=aliases)

    def __str__(self) -> str:
        name = f"{self.host_id} " if self.host_id else ""
        return f"{name}({self.get_host_and_port()}, {self.role.value})"
