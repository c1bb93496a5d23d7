"""The worker's client of the shared monitor: one per process (`wrapper.monitor.process`).

Application threads call the methods of `MonitorClient`; none of them blocks. They hand work to one background thread
(`wrapper.monitor.client_loop`) through a deque and an eventfd, and read its results through one reference (`state`) and one integer
(`wrapper.monitor.generation`). Everything is bound to the process: after a fork the child drops what it inherited without closing
or shutting any of it, and starts afresh at its first use.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Any

from wrapper.monitor.generation import advance
from wrapper.monitor.handles import Handle
from wrapper.monitor.messages import (
    STALE_AFTER,
    Client,
    Message,
    Offer,
    Release,
    Report,
    Settings,
    Watch,
    WatchRequest,
)
from wrapper.monitor.paths import MonitorPaths
from wrapper.monitor.state import ClusterState, SharedState, Topology
from wrapper.monitor.threads import allocate_lock, is_before_uwsgi_forks, sleep, start_thread

if TYPE_CHECKING:
    from wrapper.monitor.client_loop import ClientLoop
    from wrapper.monitor.direct import DirectSearch

logger = logging.getLogger(__name__)

# Seconds.
_STOP_PATIENCE = 2.0
# Where the client's thread stands still between calls, a call waits at most this long for it to read what came meanwhile.
_CATCH_UP = 0.1
# What it read so recently is good enough.
_FRESH = 0.02
# Where no thread is to be had: when to try again.
_START_AGAIN = 10.0
# After this long, another connection that moves away from a host means that the host was lost again.
_LONGEST_MOVE = 30.0


class MonitorClient:
    """What this process knows of its clusters, and its voice towards the monitor.

    `state`: what the monitor published, replaced as a whole. `paths`: where the monitor is, None when the directory cannot be used
    (then the process works without a monitor). `heard_at`: when the monitor last gave a sign of life, CLOCK_MONOTONIC seconds.
    """

    def __init__(self, paths: MonitorPaths | None) -> None:
        self.paths = paths
        self.may_start = False
        self.pid = os.getpid()
        self.identity = Client(self.pid, process_started(self.pid), os.urandom(8).hex())
        self.state = SharedState()
        self.heard_at = float("-inf")
        self.local: dict[str, ClusterState] = {}
        self.watches: dict[str, WatchRequest] = {}
        # By watch key, the request in force, the settings that were last asked for, and what the login values were made from. Holds
        # passwords.
        self._asked: dict[str, tuple[WatchRequest, Settings, Any]] = {}
        self.searches: dict[str, DirectSearch] = {}
        # Open connections per host, as the monitor was last told.
        self.reported: dict[str, int] = {}
        # By thread, the host that it is just connecting to.
        self._opening: dict[int, str] = {}
        # By host, when the first connection of this process moved away from it lately.
        self._moving: dict[str, float] = {}
        self.inbox: deque[Message] = deque()
        self.wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._handles: dict[int, weakref.ref[Handle]] = {}
        self._loop: ClientLoop | None = None
        self._start_at = float("-inf")
        self._lock = allocate_lock()

    # -- what is known ---------------------------------------------------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether the monitor gave a sign of life recently; what it published is void for verdicts when it did not."""
        return time.monotonic() - self.heard_at < STALE_AFTER

    def views(self, watch: Watch) -> list[ClusterState]:
        """Return what is known of the cluster a watch leads to: by the monitor, and by sessions of this process.

        An instance's endpoint that nobody has watched yet leads to the cluster that lists the instance, a reader endpoint to that
        of the writer endpoint, and the reverse.
        """
        state = self.state
        published = state.by_watch(watch.key) or state.by_host(watch.host_key) or state.by_watch(watch.sibling_key)
        return [view for view in (published, self.own_view(watch)) if view is not None]

    def own_view(self, watch: Watch) -> ClusterState | None:
        """Return what sessions of this process know of the cluster a watch leads to."""
        local = self.local
        listing = (view for view in local.values() if watch.host_key in view.health)
        return local.get(watch.key) or next(listing, None) or local.get(watch.sibling_key)

    def learn(self, watch_key: str, cluster: ClusterState) -> None:
        """Keep what a session of this process found out itself."""
        self.local = {**self.local, watch_key: cluster}
        advance()

    # -- what is said ----------------------------------------------------------------------------------------------------------

    def watch(
        self,
        watch: Watch,
        dialect: str,
        driver: str,
        settings: Settings,
        seed: Topology,
        source: Any,
        offer: Callable[[], Offer],
    ) -> None:
        """Ask the monitor to watch a cluster. Cheap to repeat: only a change is sent.

        `offer` makes the login values for the monitor's own sessions, from what equals `source`; it is called when that is not
        what the last ones for this watch were made from.
        """
        key = watch.key
        known, asked = self.watches.get(key), self._asked.get(key)
        tightest = settings
        if known is not None:
            is_same = known.dialect == dialect
            if is_same and asked == (known, settings, source):
                return  # as nearly always
            tightest = known.settings.tightest(settings)
            if is_same and known.settings == tightest and asked is not None and asked[2] == source:
                self._asked[key] = known, settings, source
                return
        request = WatchRequest(self.identity, watch, dialect, driver, tightest, seed, offer())
        self._asked[key] = request, settings, source
        if request != known:
            self.replace_watch(request)
            self.say(request)

    def replace_watch(self, request: WatchRequest) -> None:
        """Keep a request instead of the last one for the same watch. Called by any thread."""
        with self._lock:
            self.watches = {**self.watches, request.watch.key: request}

    def login_refused(self, watch_key: str) -> None:
        """Have the next connection's login values offered, even if it is opened with what the last one was: a password file may
        have changed."""
        self._asked.pop(watch_key, None)

    def report(self, watch: Watch, host: str, error: str, opened_at: float | None = None) -> None:
        """Tell the monitor that a connection to `host` failed, so that it looks at once. Never blocks."""
        self.say(Report(watch, host, time.monotonic(), opened_at, error))

    def say(self, message: Message) -> None:
        """Hand a message to the client thread; without a usable directory it goes nowhere."""
        if self.paths is None:
            return
        self.inbox.append(message)
        self.start()
        self.wake()

    # -- physical connections --------------------------------------------------------------------------------------------------

    def add(self, handle: Handle) -> None:
        """Watch over a physical connection until its handle is closed or collected. The client thread looks at it at its next turn,
        which every heartbeat of the monitor brings about: waking it would cost more than the rest of the connect."""
        identity = id(handle)
        self._handles[identity] = weakref.ref(handle, lambda _: self._handles.pop(identity, None))
        if self._loop is None:
            self.start()

    def handles(self) -> Iterator[Handle]:
        """Iterate over the open handles of this process."""
        for reference in list(self._handles.values()):
            handle = reference()
            if handle is not None and handle.is_open:
                yield handle

    def connections(self) -> dict[str, int]:
        """Return the number of this process's connections per host: those in use, and those that are just being opened."""
        counts: dict[str, int] = {}
        for key in (*(handle.key for handle in self.handles() if not handle.is_pooled), *self._opening.copy().values()):
            counts[key] = counts.get(key, 0) + 1
        return counts

    def moving_since(self, key: str, now: float) -> float:
        """Return for how many seconds connections of this process have been moving away from a host."""
        since = self._moving.get(key)
        if since is None or now - since > _LONGEST_MOVE:
            since = self._moving[key] = now
        return now - since

    def begin_opening(self, key: str) -> None:
        """Count a connection to a host while this thread opens it: threads that connect at once must see each other."""
        self._opening[get_ident()] = key

    def end_opening(self) -> None:
        """The counterpart of `begin_opening`: the connection is open, or failed."""
        self._opening.pop(get_ident(), None)

    # -- life ------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Have the client thread running; where there is no thread to be had, say so once and go on without."""
        if self._is_running() or self.paths is None or time.monotonic() < self._start_at or is_before_uwsgi_forks():
            return
        # pyzmq costs time and memory that a process which never connects should not pay.
        from wrapper.monitor.client_loop import ClientLoop

        with self._lock:
            if self._is_running():
                return
            self._loop = loop = ClientLoop(self, self.paths)
            try:
                start_thread(loop.run)
            except RuntimeError as error:
                self._loop = None
                failure = error
            else:
                return
        self.inbox.clear()
        if self._start_at == float("-inf"):
            logger.warning(
                "this process gets no thread (%s): it works without the shared monitor, and has TCP keepalive alone",
                failure,
            )
        self._start_at = time.monotonic() + _START_AGAIN

    def _is_running(self) -> bool:
        return self._loop is not None

    def wake(self) -> None:
        """Make the client thread look at its inbox now."""
        os.eventfd_write(self.wake_fd, 1)

    def loop_ended(self, loop: ClientLoop) -> None:
        """Called by the client thread as its last act: the next use starts another."""
        if self._loop is loop:
            self._loop = None

    def close(self) -> None:
        """Give up the lease and stop the client thread. The client can be used again afterwards."""
        if self._is_running() and self.pid == os.getpid():
            self.inbox.append(Release(self.identity))
            self.pause()
            self.watches = {}

    def pause(self) -> bool:
        """Stop the client thread and wait for it, for a moment; return whether there was one. `start` goes on where it stopped."""
        loop = self._loop
        if loop is None or self.pid != os.getpid():
            return False
        loop.stopping = True
        self.wake()
        deadline = time.monotonic() + _STOP_PATIENCE
        # It says that it leaves while it still counts as a thread.
        while (self._loop is loop or os.path.exists(f"/proc/self/task/{loop.thread}")) and time.monotonic() < deadline:
            sleep(0.001)
        return True

    def catch_up(self) -> None:
        """Before a call, where the client's thread stands still between calls: have it read what came meanwhile."""
        loop = self._loop
        if loop is None or not loop.is_held or time.monotonic() - loop.turned_at < _FRESH:
            return
        turns = loop.turns
        deadline = time.monotonic() + _CATCH_UP
        self.wake()
        while loop.turns == turns and self._loop is loop and time.monotonic() < deadline:
            sleep(0.0005)

    def abandon(self) -> None:
        """In a forked child: give inherited descriptors back without shutting anything down; the parent goes on using its own."""
        for reference in list(self._handles.values()):
            handle = reference()
            if handle is not None:
                handle.close()
        os.close(self.wake_fd)


def process_started(pid: int) -> int:
    """Return a process's start time in clock ticks since boot (proc(5), field 22 of stat), 0 where it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        # The command's name, in parentheses, may hold blanks and parentheses itself.
        return int(text.rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
