"""What travels between workers and the monitor: MessagePack envelopes over two ZeroMQ sockets.

* **Events** (monitor's XPUB, workers' SUB): two frames, the topic and an `Envelope`. One topic per cluster with its own sequence
  numbers, `HEARTBEAT_TOPIC` and `JOURNAL_TOPIC`. A new connection is welcomed with *one* frame, `HEARTBEAT_TOPIC` itself (a SUB
  that subscribes to heartbeats receives it); a real heartbeat follows within milliseconds of each subscription taken in.
* **Control** (monitor's ROUTER, workers' DEALER): one frame, an `Envelope` whose `seq` numbers the request; the answer repeats it.
  A request with seq 0 gets no answer. Messages that answer nothing (`NeedCredentials`) have seq 0. An answer over
  `MAX_MESSAGE_BYTES` comes as several messages (`Part`), see `wrapper.monitor.parts`.

The envelope is decoded first and the body second, so that a kind or an enum member this version does not know costs only that
message, never the stream. Unknown kinds are skipped and consume their seq. Unknown fields are ignored. Enumerations are open
strings. The major version of the protocol is part of the socket's path (`wrapper.monitor.paths`), so two versions never meet.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

import msgspec

from ..hosts import host_key
from ..urls import other_endpoint
from .regions import either
from .state import (
    ClusterGone,
    ClusterState,
    ClusterUpdate,
    HealthUpdate,
    Topology,
    TopologyUpdate,
    Update,
    Value,
)

PROTOCOL_MAJOR = 1
MAX_MESSAGE_BYTES = 1 << 20
HEARTBEAT_TOPIC = "!heartbeat"
JOURNAL_TOPIC = "!journal"

# Seconds. A worker that hears nothing for STALE_AFTER treats the monitor as absent; both ends share these.
HEARTBEAT_INTERVAL = 0.25
STALE_AFTER = 1.0
LEASE_SECONDS = 15.0
RENEW_INTERVAL = LEASE_SECONDS / 3
HINT_MAX_AGE = 1.0


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What every message starts with; more array items may follow in later minors."""

    kind: str
    epoch: int
    topic: str
    seq: int
    body: msgspec.Raw


# -- control: requests ---------------------------------------------------------------------------------------------------------


class Client(Value, frozen=True, omit_defaults=True):
    """Who asks: a lease's identity. `started` is the process's start time in clock ticks since boot (field 22 of
    `/proc/<pid>/stat`), which tells two processes with one pid apart; `token` is random per client."""

    pid: int
    started: int
    token: str


class Watch(Value, frozen=True, omit_defaults=True, dict=True):  # with a dictionary for what is cached
    """What a connection asked for: an alias of a cluster that a session proves. `cluster_id` is the user's, else None."""

    engine: str
    host: str
    port: int
    cluster_id: str | None = None

    @cached_property
    def key(self) -> str:
        """The text under which a `ClusterState` lists this watch."""
        return f"{self.engine}://{self.host.rstrip('.').lower()}:{self.port}/{self.cluster_id or ''}"

    @cached_property
    def sibling_key(self) -> str:
        """The key for the same cluster's other endpoint: the reader's for the writer's and the reverse. Empty for other names."""
        sibling = other_endpoint(self.host)
        return "" if sibling is None else Watch(self.engine, sibling, self.port, self.cluster_id).key

    @cached_property
    def host_key(self) -> str:
        """The key that the endpoint's health would have if it were an instance's."""
        return host_key(self.host, self.port)


class Settings(Value, frozen=True, omit_defaults=True):
    """How one connection wants its cluster watched. Times in seconds. The monitor probes at the tightest interval of all live
    leases; `count` stays with the connection, which judges the evidence itself. `instance_template`: see `InstanceTemplate.parse`.
    `accessible_regions`: of a Global Database, those whose hosts may be reached; none for all."""

    interval: float = 1.0
    topology_refresh: float = 30.0
    high_refresh: float = 0.1
    instance_template: str = "?"
    connect_timeout: float = 5.0
    accessible_regions: tuple[str, ...] = ()

    def tightest(self, other: Settings) -> Settings:
        """Return the settings that serve connections with either; what cannot serve both is the other's."""
        return Settings(
            interval=min(self.interval, other.interval),
            topology_refresh=min(self.topology_refresh, other.topology_refresh),
            high_refresh=min(self.high_refresh, other.high_refresh),
            instance_template=other.instance_template,
            connect_timeout=min(self.connect_timeout, other.connect_timeout),
            accessible_regions=either(self.accessible_regions, other.accessible_regions),
        )


class Offer(Value, frozen=True, omit_defaults=True):
    """Login values for probe sessions, already resolved by the worker (the monitor has another environment: no PGPASSWORD, no
    passfile). Serves only the hosts of the watch it came with. `expires_at`: seconds since the Unix epoch, None for ever.

    Secret: travels on the control socket alone, and has no repr that shows it.
    """

    parameters: dict[str, Any]
    expires_at: float | None = None

    def __repr__(self) -> str:
        return f"Offer({', '.join(sorted(self.parameters))})"

    __str__ = __repr__


class WatchRequest(Value, frozen=True, omit_defaults=True):
    """Register interest in a cluster, under a lease. `seed` is the topology that the worker found on its own first connection.

    Sent again after `unknown_lease`, after a new epoch, and whenever settings or login values change: it replaces the earlier one
    of the same client and watch.
    """

    client: Client
    watch: Watch
    dialect: str
    driver: str
    settings: Settings
    seed: Topology
    offer: Offer | None = None


# Bounded, so that the sum of all clients' can be told, too: the wire's numbers have 64 bits.
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Renew(Value, frozen=True, omit_defaults=True):
    """Keep the client's lease. `connections` counts its open connections by host key (for admission after a failover)."""

    client: Client
    connections: dict[str, Count] = {}


class Release(Value, frozen=True, omit_defaults=True):
    """Give the lease up now (clean exit)."""

    client: Client


class Report(Value, frozen=True, omit_defaults=True):
    """A hint: a physical connection to `host` failed. It triggers probes at once and is never a verdict.

    `at` and `opened_at`: CLOCK_MONOTONIC seconds; a hint older than `HINT_MAX_AGE` is dropped. `error`: what kind of failure
    (`network`, `read_only`, `aborted`, `wrong_role`), or `refresh`: nothing failed, somebody wants to know how things are.
    """

    watch: Watch
    host: str
    at: float
    opened_at: float | None = None
    error: str = "network"


class SnapshotRequest(Value, frozen=True, omit_defaults=True):
    """Ask for the whole state of the clusters that lead from these watches."""

    watches: tuple[str, ...] = ()


class StatusRequest(Value, frozen=True, omit_defaults=True):
    """Ask for what `monitor_service status` shows."""


class StopRequest(Value, frozen=True, omit_defaults=True):
    """Ask the monitor to exit. `drain`: hand over to another one that waits for the lock (used by an explicit start)."""

    drain: bool = False


class DrainRequest(Value, frozen=True, omit_defaults=True):
    """Ask the monitor to serve those it has and nobody else, and to exit when they have gone or when another monitor asks it to
    hand over (`StopRequest.drain`)."""


# -- control: answers ----------------------------------------------------------------------------------------------------------


class Watched(Value, frozen=True, omit_defaults=True):
    """The watch is served: its cluster publishes on `topic`. Subscribe, then ask for a snapshot."""

    watch: str
    topic: str
    lease_seconds: float = LEASE_SECONDS


class Snapshot(Value, frozen=True, omit_defaults=True):
    """The state of the asked clusters and the seq each topic had then. `at`: CLOCK_MONOTONIC seconds."""

    clusters: tuple[ClusterState, ...]
    seqs: dict[str, int]
    at: float


class UnknownLease(Value, frozen=True, omit_defaults=True):
    """The lease has lapsed or belongs to an earlier monitor: send the watches again."""


class Unsupported(Value, frozen=True, omit_defaults=True):
    """This monitor cannot watch what was asked (driver not installed there, dialect unknown), or cannot log in as it would have to:
    the worker uses its fallback."""

    watch: str
    reason: str


class NeedCredentials(Value, frozen=True, omit_defaults=True):
    """No offer for this watch lets a probe log in (any more): send a new one with the next watch request."""

    watch: str
    reason: str


class Refused(Value, frozen=True, omit_defaults=True):
    """The request was understood and not carried out; `reason` is for a person."""

    reason: str


class Ok(Value, frozen=True, omit_defaults=True):
    """Done."""


class Status(Value, frozen=True, omit_defaults=True):
    """The answer to `StatusRequest`: a document for people and scripts (`monitor_service.status` describes its fields)."""

    document: dict[str, Any]


class Part(Value, frozen=True, omit_defaults=True):
    """Bytes of an answer that is too large for one message: the `number`-th, from 0, `of` so many that follow each other."""

    number: int
    of: int
    data: bytes


# -- events --------------------------------------------------------------------------------------------------------------------


class Heartbeat(Value, frozen=True, omit_defaults=True):
    """Sent by the loop that does the work. `seqs` holds the last seq of every topic. `at`: CLOCK_MONOTONIC seconds."""

    at: float
    pid: int
    seqs: dict[str, int]


class Journal(Value, frozen=True, omit_defaults=True):
    """One transition, for people: what was concluded, about what, and from which evidence. `at`: seconds since the Unix epoch."""

    at: float
    subject: str
    event: str
    evidence: str = ""
    cluster: str = ""


Message = (
    WatchRequest
    | Renew
    | Release
    | Report
    | SnapshotRequest
    | StatusRequest
    | StopRequest
    | DrainRequest
    | Watched
    | Snapshot
    | UnknownLease
    | Unsupported
    | NeedCredentials
    | Refused
    | Ok
    | Status
    | Part
    | Heartbeat
    | Journal
    | Update
)

KINDS: dict[str, type[Any]] = {
    "watch": WatchRequest,
    "renew": Renew,
    "release": Release,
    "report": Report,
    "snapshot?": SnapshotRequest,
    "status?": StatusRequest,
    "stop": StopRequest,
    "drain": DrainRequest,
    "watched": Watched,
    "snapshot": Snapshot,
    "unknown_lease": UnknownLease,
    "unsupported": Unsupported,
    "need_credentials": NeedCredentials,
    "refused": Refused,
    "ok": Ok,
    "status": Status,
    "part": Part,
    "heartbeat": Heartbeat,
    "journal": Journal,
    "health": HealthUpdate,
    "topology": TopologyUpdate,
    "cluster": ClusterUpdate,
    "gone": ClusterGone,
}
_KIND_OF = {message: kind for kind, message in KINDS.items()}
_encode = msgspec.msgpack.Encoder().encode
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {}


# Text that is not UTF-8 and nesting without end are found by Python itself.
_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Garbage(ValueError):
    """Bytes that are not a message of this protocol. Dropped and counted by whoever receives them."""


def encode(message: Message, *, epoch: int = 0, topic: str = "", seq: int = 0) -> bytes:
    """Return the bytes of one message."""
    kind = _KIND_OF[type(message)]
    return _encode(Envelope(kind, epoch, topic, seq, msgspec.Raw(_encode(message))))


def decode_envelope(data: bytes, largest: int = MAX_MESSAGE_BYTES) -> Envelope:
    """Return the envelope of one message; its body stays undecoded. Raises `Garbage`."""
    if len(data) > largest:
        raise Garbage(f"a message of {len(data)} bytes, {largest} are allowed")
    try:
        return _decode_envelope(data)
    except _NOT_DECODABLE as error:
        raise Garbage(str(error)) from None


def decode_body(envelope: Envelope) -> Message | None:
    """Return the message in an envelope; None for a kind this version does not know. Raises `Garbage`."""
    message = KINDS.get(envelope.kind)
    if message is None:
        return None
    decoder = _decoders.get(envelope.kind)
    if decoder is None:
        decoder = _decoders[envelope.kind] = msgspec.msgpack.Decoder(message)
    try:
        return decoder.decode(envelope.body)  # type: ignore[no-any-return]
    except _NOT_DECODABLE as error:
        # The body is not quoted: it may hold login values.
        raise Garbage(f"a damaged {envelope.kind!r} message: {type(error).__name__}") from None
