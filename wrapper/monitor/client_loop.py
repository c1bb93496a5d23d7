"""The client thread: it talks with the monitor, applies what the monitor publishes, ends connections on evidence, keeps the lease.

Sequence of each turn: read everything that has arrived, then act on timers, then judge. Judging last means that a process which was
stopped for a while sees the newest evidence, not the oldest.

From the end of the wait to the new state nothing lets go of the interpreter's lock but what receives a message (see
`wrapper.monitor.link`).
"""

from __future__ import annotations

import logging
import math
import time
from _thread import get_native_id
from typing import TYPE_CHECKING

import msgspec
import zmq

from wrapper.chance import chance
from wrapper.monitor.bell import attach
from wrapper.monitor.generation import advance
from wrapper.monitor.handles import evidence_against
from wrapper.monitor.launch import is_served, start_monitor
from wrapper.monitor.link import Change, Link
from wrapper.monitor.messages import (
    HEARTBEAT_TOPIC,
    HINT_MAX_AGE,
    RENEW_INTERVAL,
    STALE_AFTER,
    Envelope,
    Garbage,
    Heartbeat,
    Message,
    NeedCredentials,
    Refused,
    Release,
    Renew,
    Report,
    Snapshot,
    SnapshotRequest,
    UnknownLease,
    Unsupported,
    Watched,
    WatchRequest,
    decode_body,
    decode_envelope,
    encode,
)
from wrapper.monitor.parts import Joiner
from wrapper.monitor.state import ClusterGone, Gap, Update, adopt, apply, missed
from wrapper.monitor.threads import seconds_held, waits_so_far

if TYPE_CHECKING:
    from wrapper.monitor.client import MonitorClient
    from wrapper.monitor.paths import MonitorPaths

logger = logging.getLogger(__name__)

# Seconds.
_REQUEST_RETRY = 0.5
_RECOUNT = 0.25
_JUDGE_INTERVAL = 0.02
_IDLE_STOP = 30.0
_FIRST_START_PAUSE = 1.0
_LONGEST_START_PAUSE = 30.0
_KNOCK_AGAIN = 5.0
# Other threads kept this one from running for so long.
_HELD = 0.5


class ClientLoop:
    """The thread's state. Only that thread touches it, except for `stopping`.

    `thread`, `turns`, `turned_at`, `is_held` are read by others: the kernel's number of the thread, how often and when it last
    looked, and whether it may be late.
    """

    def __init__(self, client: MonitorClient, paths: MonitorPaths) -> None:
        self.client = client
        self.paths = paths
        self.stopping = False
        self.topics: dict[str, str] = {}  # watch key -> topic
        self.unanswered: dict[str, float] = {}  # watch key -> when to ask again
        self.unsupported: dict[str, str] = {}  # watch key -> why, which was logged
        self.needs_snapshot = False
        self.snapshot_at = 0.0
        self.seq = 0
        self.renew_at = 0.0
        self.counts: dict[str, int] = {}
        self.judge_at = 0.0
        self.busy_at = time.monotonic()
        self.start_at = 0.0
        self.start_pause = _FIRST_START_PAUSE
        self.garbage = 0
        self.thread = 0
        self.turns = 0
        self.turned_at = 0.0
        self.waits = 0
        # Whether this thread was found to wait too long for the interpreter: see `seconds_held`.
        self.is_held = False
        self.refused = ""
        self.joiner = Joiner()
        self.knock_at = math.inf  # when to connect again to a monitor that did not admit us
        self.was_told = False

    # -- turns -----------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until told to stop or idle for long; an error of the loop itself is logged and ends it, the next use starts
        another."""
        self.thread = get_native_id()
        self.waits = waits_so_far()
        context = zmq.Context(io_threads=1)
        try:
            self.link = Link(context, self.paths, self.client.wake_fd)
            self._ask_again()
            while not self.stopping:
                self._turn()
            self._send_inbox(time.monotonic())
        except Exception:
            logger.exception("the client of the shared monitor failed; it starts again with the next connection")
        finally:
            self._disconnected()
            context.destroy(linger=100 if self.stopping else 0)
            self.client.loop_ended(self)

    def _turn(self) -> None:
        now = time.monotonic()
        self.link.wait(self._next_timer(now) - now)
        self._notice_if_held()
        self._read_changes()
        self._read_events()
        self._read_answers()
        now = time.monotonic()
        self._send_inbox(now)
        self._timers(now)
        self._judge(now)
        self.turns += 1
        self.turned_at = time.monotonic()
        if self.is_held:
            advance()  # have every connection look, and let us catch up, at its next call

    def _notice_if_held(self) -> None:
        # Since the last look, so that no part of a turn goes uncounted.
        held = seconds_held(self.waits)
        self.waits = waits_so_far()
        if not self.is_held and held >= _HELD:
            self.is_held = True
            logger.warning(
                "the interpreter kept the monitor's client waiting for %.1f s (many busy threads, or uwsgi without "
                "enable-threads); from now on news of the cluster is read before each call",
                held,
            )

    def _next_timer(self, now: float) -> float:
        times = [self.renew_at, self.knock_at, now + STALE_AFTER, *self.unanswered.values()]
        if self.needs_snapshot:
            times.append(self.snapshot_at)
        if any(health.is_failing for cluster in self.client.state.clusters.values() for health in cluster.health.values()):
            times.append(self.judge_at)
        if not self.client.is_live and self.client.may_start:
            times.append(max(self.start_at, now + _REQUEST_RETRY / 10))
        return min(times)

    # -- reading ---------------------------------------------------------------------------------------------------------------

    def _read_changes(self) -> None:
        for change in self.link.changes():
            if change is Change.DISCONNECTED:
                self._disconnected()
            elif change is Change.ADMITTED:
                self._ask_again()
            else:
                self._not_admitted()

    def _not_admitted(self) -> None:
        """The monitor lets nobody else in, or not this user."""
        if self.knock_at == math.inf:
            self.knock_at = time.monotonic() + chance.uniform(0.5, 1.5) * _KNOCK_AGAIN
            logger.log(
                logging.DEBUG if self.was_told else logging.WARNING,
                "the shared monitor in %s admits no connection of this process: its log says why; working without it",
                self.paths.directory,
            )
            self.was_told = True

    def _disconnected(self) -> None:
        """The monitor is gone: known at once, without waiting for heartbeats to stop."""
        if self.client.is_live:
            self.client.heard_at = float("-inf")
            self.start_at = time.monotonic() + chance.uniform(0.0, 0.05)
            advance()

    def _read_events(self) -> None:
        for frames in self.link.events():
            if frames == [HEARTBEAT_TOPIC.encode()]:
                # The publisher's welcome: our subscriptions are in force, nothing is lost from here on.
                self._want_snapshot()
                continue
            try:
                _topic, data = frames
                envelope = decode_envelope(data)
                message = decode_body(envelope)
            except ValueError:  # Garbage is one; so is a wrong number of frames
                self.garbage += 1
                continue
            state = self.client.state
            if envelope.epoch < state.epoch:
                continue
            self.client.heard_at = time.monotonic()
            if envelope.epoch > state.epoch and state.epoch:
                self._ask_again()
            if isinstance(message, Heartbeat):
                self.start_pause = _FIRST_START_PAUSE
                if missed(state, envelope.epoch, message.seqs, frozenset(self.topics.values())):
                    self._want_snapshot()
            elif envelope.topic in self.topics.values():
                self._apply(envelope, message if isinstance(message, Update) else None)

    def _apply(self, envelope: Envelope, update: Update | None) -> None:
        try:
            self.client.change(lambda state: apply(state, envelope.epoch, envelope.topic, envelope.seq, update))
        except Gap:
            self._want_snapshot()
        if isinstance(update, ClusterGone):
            self._ask_again()

    def _read_answers(self) -> None:
        for data in self.link.answers():
            try:
                envelope = self.joiner.envelope(data)
                if envelope is None:
                    continue
                message = decode_body(envelope)
            except Garbage:
                self.garbage += 1
                continue
            self.client.heard_at = time.monotonic()
            self._answered(envelope, message)

    def _answered(self, envelope: Envelope, message: Message | None) -> None:
        if isinstance(message, Watched):
            self.unanswered.pop(message.watch, None)
            if self.topics.get(message.watch) != message.topic:
                self.link.subscribe(message.topic)
                self.topics[message.watch] = message.topic
            self._want_snapshot()
            self.renew_at = 0.0  # our first connections were counted before there was anybody to tell
        elif isinstance(message, Snapshot):
            self.needs_snapshot = False
            clusters, seqs = message.clusters, message.seqs
            self.client.change(lambda state: adopt(state, envelope.epoch, clusters, seqs))
            attach(self.paths, envelope.epoch)
        elif isinstance(message, UnknownLease):
            self._ask_again()
        elif isinstance(message, Unsupported):
            self.unanswered.pop(message.watch, None)
            if self.unsupported.get(message.watch) != message.reason:
                self.unsupported[message.watch] = message.reason
                logger.warning("the shared monitor cannot watch %s: %s; working without it", message.watch, message.reason)
        elif isinstance(message, NeedCredentials):
            self.client.login_refused(message.watch)
            logger.warning("the shared monitor cannot log in for %s: %s", message.watch, message.reason)
        elif isinstance(message, Refused) and message.reason != self.refused:
            # What was refused is asked for again: once is enough to say so.
            self.refused = message.reason
            logger.warning("the shared monitor refused a request: %s", message.reason)

    # -- asking ----------------------------------------------------------------------------------------------------------------

    def _ask_again(self) -> None:
        """A monitor that does not know us: send every watch again."""
        for key in self.client.watches:
            self.unanswered[key] = 0.0
        self._want_snapshot()

    def _want_snapshot(self) -> None:
        if not self.needs_snapshot:
            self.needs_snapshot = True
            self.snapshot_at = 0.0

    def _send(self, message: Message) -> None:
        """Send a request, or a hint, which has no number and gets no answer."""
        if not isinstance(message, Report):
            self.seq += 1
        self.link.send(encode(message, seq=0 if isinstance(message, Report) else self.seq))

    def _send_inbox(self, now: float) -> None:
        while self.client.inbox:
            message = self.client.inbox.popleft()
            if isinstance(message, WatchRequest):
                self.unanswered.setdefault(message.watch.key, 0.0)
                self.unanswered[message.watch.key] = 0.0
            elif isinstance(message, Report) and now - message.at > HINT_MAX_AGE:
                continue
            else:
                self._send(message)

    def _timers(self, now: float) -> None:
        for key, due in list(self.unanswered.items()):
            if now >= due:
                self._send(self.client.watches[key])
                self.unanswered[key] = now + _REQUEST_RETRY
        if self.needs_snapshot and now >= self.snapshot_at and self.topics:
            self._send(SnapshotRequest(tuple(self.topics)))
            self.snapshot_at = now + _REQUEST_RETRY
        counts: dict[str, int] = {}
        for handle in self.client.handles():
            self.busy_at = now
            if not handle.is_pooled:
                counts[handle.key] = counts.get(handle.key, 0) + 1
        if self.unanswered:
            self.busy_at = now
        if now >= self.knock_at:
            self.knock_at = math.inf
            self.link.reconnect()
        self._tighten()
        if counts != self.counts:
            # Soon, so that the others know how many would move; but once for a whole pool of connections.
            self.counts = counts
            self.renew_at = min(self.renew_at, now + _RECOUNT)
        if now >= self.renew_at:
            self._send(Renew(self.client.identity, counts))
            self.client.reported = counts
            self.renew_at = now + RENEW_INTERVAL
        if now - self.busy_at > _IDLE_STOP:
            self.client.inbox.append(Release(self.client.identity))
            self.stopping = True
        if not self.client.is_live and now >= self.start_at and self.client.may_start:
            self._start(now)

    def _tighten(self) -> None:
        """Have every watch at the tightest interval of the connections that are open now."""
        intervals: dict[str, float] = {}
        for handle in self.client.handles():
            if handle.sensitivity is not None:
                interval = handle.sensitivity.interval
                intervals[handle.watch_key] = min(interval, intervals.get(handle.watch_key, interval))
        for key, request in list(self.client.watches.items()):
            interval = intervals.get(key, request.settings.interval)
            if interval != request.settings.interval:
                settings = msgspec.structs.replace(request.settings, interval=interval)
                self.client.replace_watch(msgspec.structs.replace(request, settings=settings))
                self.unanswered[key] = 0.0

    def _start(self, now: float) -> None:
        """Start a monitor if nobody serves the control socket."""
        self.start_at = now + self.start_pause
        if not self.paths.may_start or is_served(self.paths):
            return
        self.start_pause = min(self.start_pause * 2, _LONGEST_START_PAUSE)
        try:
            if start_monitor(self.paths):
                logger.info("started a shared monitor in %s", self.paths.directory)
        except Exception as error:  # noqa: BLE001  whatever keeps it from starting, the process works without
            logger.warning("cannot start a shared monitor: %s; working without it", error)

    # -- judging ---------------------------------------------------------------------------------------------------------------

    def _judge(self, now: float) -> None:
        """Shut down the connections whose host is down by their own settings. Evidence is void when the monitor is silent."""
        self.judge_at = now + _JUDGE_INTERVAL
        if not self.client.is_live:
            return
        for handle in self.client.handles():
            cluster = self.client.state.by_watch(handle.watch_key)
            if cluster is None or cluster.topic not in self.client.state.confirmed or handle.aborted_by is not None:
                continue
            evidence = evidence_against(handle, cluster)
            if evidence is not None:
                handle.give_up(evidence)
                logger.info(
                    "gave up a connection to %s: %d silent probes in %.3f s; the writer is %s",
                    handle.key,
                    evidence.silent,
                    (evidence.failed_at or 0.0) - (evidence.failing_since or 0.0),
                    cluster.topology.writer or "unknown",
                )
