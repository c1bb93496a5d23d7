"""One run of the monitor: wiring, the heartbeat that everything periodic hangs on, and the end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from time import monotonic

import zmq

from monitor_service import status, systemd
from monitor_service.bell import hang_up
from monitor_service.clusters import Clusters
from monitor_service.context import Context
from monitor_service.control import ControlServer
from monitor_service.election import Election
from monitor_service.gate import Gate, Rules, overflow_uid
from monitor_service.keys import authorized_keys, serve_encrypted
from monitor_service.loop_guard import LoopGuard, guarded_loop
from monitor_service.options import Options
from monitor_service.publisher import Publisher
from monitor_service.registry import Registry
from monitor_service.requests import Requests
from monitor_service.supervisor import Supervisor
from wrapper.monitor.messages import HEARTBEAT_INTERVAL, DrainRequest, Message, Ok, Refused, Status, StatusRequest, StopRequest
from wrapper.monitor.paths import MonitorDirectoryError, MonitorPaths, events_url
from wrapper.version import __version__

logger = logging.getLogger(__name__)

# Seconds between looks at leases, deserted clusters and the monitor's own files.
SWEEP_INTERVAL = 1.0
# Seconds; lets the answer to a stop request leave before the socket closes.
STOP_DELAY = 0.05

# Seconds between one cluster's hosts and the next one's, when all are asked again.
POKE_PAUSE = 0.02

SIGNALS = (signal.SIGTERM, signal.SIGINT)

EXIT_OK = 0
EXIT_LOST = 4


class Service:
    """The monitor process, from bound sockets to exit code."""

    def __init__(self, paths: MonitorPaths, election: Election, options: Options, guard: LoopGuard) -> None:
        self.paths = paths
        self.options = options
        self.epoch = election.epoch
        self.started = monotonic()
        self.draining = False
        self._election = election
        self._zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._stopping: asyncio.Event = asyncio.Event()
        self._exit_code = EXIT_OK
        self._next_sweep = 0.0
        self._idle_since = self.started
        self._watchdog = systemd.watchdog_interval()
        self._next_sign = 0.0
        keys = authorized_keys(options.keys) if options.keys is not None else frozenset()
        rules = Rules(os.getuid(), shared=options.group is not None, keys=keys, nobody=overflow_uid())
        self.gate = Gate(self._zmq, rules)
        publisher = Publisher(self._zmq, self.epoch)
        self.control = ControlServer(self._zmq, self.epoch, self._handle, options.limits.request)
        self.context = Context(
            guard=guard,
            publisher=publisher,
            registry=Registry(options.lease, options.limits),
            supervisor=Supervisor(lambda name, error: publisher.journal(name, "RESTARTED", error)),
            tell=self.control.tell,
            settle=self._settle,
        )
        self._clusters = Clusters(self.context, self.epoch)
        self._requests = Requests(self.context, self._clusters, options, rules.is_operator, lambda: self.draining)

    def bind(self) -> None:
        """Take the sockets' paths, under the lock: whatever lies there is a dead monitor's."""
        sockets = (self.paths.events, self.paths.control)
        for path in sockets:
            path.unlink(missing_ok=True)
        self.context.publisher.socket.bind(self.paths.events_url)
        self.control.socket.bind(self.paths.control_url)
        for path in sockets:
            if self.options.group is not None:
                os.chown(path, -1, self.options.group)
            path.chmod(0o600 if self.options.group is None else 0o660)
        self._election.own(sockets)
        self.context.publisher.bell = hang_up(self.paths.bell, self.epoch, self.options.group)
        if self.options.listen is not None:
            assert self.options.keys is not None
            for socket, url in (
                (self.context.publisher.socket, events_url(self.options.listen)),
                (self.control.socket, self.options.listen),
            ):
                # What is set from here on holds for what is bound from here on.
                serve_encrypted(socket, self.options.keys)
                try:
                    socket.bind(url)
                except zmq.ZMQError as error:
                    raise MonitorDirectoryError(
                        f"--listen {self.options.listen}: {url} cannot be served: {os.strerror(error.errno or 0)}; "
                        "HOST has to be an address of this machine, PORT and the next one free"
                    ) from error

    @property
    def _introduction(self) -> str:
        return f"pid {os.getpid()}, epoch {self.epoch}, version {__version__}, {self.options.mode}, in {self.paths.directory}"

    async def run(self) -> int:
        """Serve until a signal, a stop request, idleness, or the loss of the monitor's files. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._stop, f"signal {number.name}")
        self.gate.start()
        self.context.publisher.start()
        self.control.start()
        self.context.drivers.preload()
        self.context.publisher.journal("monitor", "STARTED", self._introduction)
        systemd.notify("READY=1", f"STATUS=serving {self.paths.directory}, epoch {self.epoch}")
        beat = loop.create_task(self._beat(), name="heartbeat")
        await self._stopping.wait()
        beat.cancel()
        await asyncio.wait([beat])
        for number in SIGNALS:
            # A second one changes nothing any more, and must not find half of a loop.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        self.context.publisher.stop()
        self.control.stop()
        self.gate.stop()
        await self.context.supervisor.stop_all()
        return self._exit_code

    def close(self) -> None:
        """Remove the sockets and give the lock up."""
        self._zmq.destroy(linger=0)
        for path in (self.paths.events, self.paths.control, self.paths.bell):
            path.unlink(missing_ok=True)
        self._election.release()

    def _stop(self, reason: str, exit_code: int = EXIT_OK) -> None:
        if self._stopping.is_set():
            return
        systemd.notify("STOPPING=1", f"STATUS={reason}")
        if exit_code != EXIT_LOST:
            self.context.publisher.journal("monitor", "STOPPED", f"pid {os.getpid()}, {reason}")
        self._exit_code = exit_code
        self._stopping.set()

    # -- the heartbeat ---------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        due = monotonic()
        while True:
            self._settle()
            self.context.publisher.heartbeat()
            now = monotonic()
            if self._watchdog is not None and now >= self._next_sign:
                self._next_sign = now + self._watchdog
                systemd.notify("WATCHDOG=1")
            if now >= self._next_sweep:
                self._next_sweep = now + SWEEP_INTERVAL
                self._sweep()
            due = max(due + HEARTBEAT_INTERVAL, monotonic())
            await asyncio.sleep(due - monotonic())

    def _settle(self) -> None:
        seconds = self.context.guard.take_pause()
        if not seconds:
            return
        self.context.registry.extend(seconds)
        self._idle_since += seconds
        self.context.publisher.journal("monitor", "PAUSED", f"the loop stood still for {seconds:.1f} s: running probes are void")
        for number, cluster in enumerate(self.context.clusters.values()):
            cluster.on_pause()
            # One after the other: to ask ten thousand hosts in one turn of the loop would be the next pause.
            asyncio.get_running_loop().call_later(number * POKE_PAUSE, cluster.poke)

    def _sweep(self) -> None:
        lost = self._election.lost()
        if lost is not None:
            logger.error("%s is no longer this monitor's own: it ends at once, another one may be in charge", lost)
            self._stop(f"lost {lost}", EXIT_LOST)
            return
        # Renewals that have arrived count before any lease is judged.
        self.control.drain(limit=None)
        now = monotonic()
        for lease in self.context.registry.lapse(now):
            self.context.publisher.journal(f"pid {lease.client.pid}", "LEASE LAPSED", f"no renewal for {self.options.lease:g} s")
            self._clusters.refresh({interest.topic for interest in lease.interests.values()})
        self._clusters.sweep(now, self.options.warm)
        if self.context.registry.leases:
            self._idle_since = now
        elif self.draining:
            self._stop("drained")
        elif self.options.on_demand and now - self._idle_since >= self.options.linger:
            self._stop(f"no lease for {self.options.linger:g} s")

    # -- requests --------------------------------------------------------------------------------------------------------------

    def _handle(self, route: bytes, principal: str, message: Message) -> Message:
        self._settle()
        if isinstance(message, StatusRequest):
            return Status(status.document(self, principal))
        if not isinstance(message, (StopRequest, DrainRequest)):
            return self._requests.answer(route, principal, message)
        if not self.gate.rules.is_operator(principal):
            return Refused(f"only uid {self.gate.rules.uid} and root may end this monitor, not {principal}")
        return self._drain_requested() if isinstance(message, DrainRequest) else self._stop_requested(message)

    def _drain_requested(self) -> Message:
        if not self.draining:
            self.draining = True
            leases = len(self.context.registry.leases)
            self.context.publisher.journal("monitor", "DRAINING", f"nobody new is served; clients left: {leases}")
        return Ok()

    def _stop_requested(self, request: StopRequest) -> Message:
        if request.drain and not (self.options.on_demand or self.draining):
            return Refused("this monitor was started explicitly and does not hand over; use drain or stop, or run --take-over")
        reason = "another monitor takes over" if request.drain else "asked to stop"
        asyncio.get_running_loop().call_later(STOP_DELAY, self._stop, reason)
        return Ok()


def serve(paths: MonitorPaths, election: Election, options: Options) -> int:
    """Run a monitor that holds its lock; return the exit code."""
    loop, guard = guarded_loop()
    asyncio.set_event_loop(loop)
    try:
        service = loop.run_until_complete(_create(paths, election, options, guard))
        code = loop.run_until_complete(service.run())
        if code == EXIT_LOST:
            # Closing would unlink socket paths that may be a successor's by now.
            logging.shutdown()
            os._exit(code)
        service.close()
        return code
    finally:
        loop.close()


async def _create(paths: MonitorPaths, election: Election, options: Options, guard: LoopGuard) -> Service:
    service = Service(paths, election, options, guard)
    try:
        service.bind()
    except Exception:
        service.close()
        raise
    return service
