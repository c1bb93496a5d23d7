"""The lab's controller: the process that is the parent of every server.

It runs on one thread (the kernel ends a server when the *thread* that started it ends) and serves requests over a unix socket, a
JSON object per line. When its owner's pipe closes or its owner ends, however that happened, it ends the servers and removes the
directory.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from wrapper.testing import failover
from wrapper.testing.client import SOCKET
from wrapper.testing.cluster import Cluster
from wrapper.testing.errors import LabError
from wrapper.testing.global_cluster import GlobalCluster
from wrapper.testing.options import Options
from wrapper.testing.processes import reap_orphans

_HEARTBEAT = 1.0
# Seconds that the clients have the machine for themselves after a promotion: no other instance of Aurora's works on theirs.
_SETTLING = 0.3
# A command that takes a while: it yields the seconds until it wants to go on, and others are served meanwhile.
Lasting = Generator[float, None, Any]


class Controller:
    """Serves the commands of clients on the cluster."""

    def __init__(self, options: Options, owner: int) -> None:
        self.owner = owner
        self.cluster = GlobalCluster(options) if options.regions else Cluster(options)
        self.options = options
        self.directory = Path(options.directory)
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._unanswered: set[socket.socket] = set()
        self._numbers = itertools.count()
        self._stopping = False
        self._promotions: list[dict[str, Any]] = []

    def run(self) -> None:
        """Start the servers, say so on stdout, serve until the owner goes away or says down."""
        try:
            self.cluster.start()
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(self.directory / SOCKET))
            listener.listen(16)
            self._selector.register(listener, selectors.EVENT_READ, self._accept)
            self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ, self._owner_gone)
            self._selector.register(self.owner, selectors.EVENT_READ, self._owner_gone)
            self._later(_HEARTBEAT, self._heartbeat)
            print(json.dumps({"ready": self.cluster.facts()}), flush=True)  # noqa: T201  the pipe to the owner
            while not self._stopping:
                self._turn()
        finally:
            self.cluster.stop_all()
            shutil.rmtree(self.directory, ignore_errors=True)

    def _turn(self) -> None:
        timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        for key, _ in self._selector.select(timeout):
            key.data(key.fileobj)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _later(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._numbers), action))

    def _heartbeat(self) -> None:
        self.cluster.publish()
        reap_orphans()
        self._later(_HEARTBEAT, self._heartbeat)

    def _owner_gone(self, fileobj: Any) -> None:
        if fileobj == self.owner or not os.read(fileobj, 1024):
            self._stopping = True

    # -- requests --------------------------------------------------------------------------------------------------------------

    def _accept(self, listener: Any) -> None:
        connection, _ = listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._serve)

    def _serve(self, connection: Any) -> None:
        line = connection.makefile("r", encoding="utf-8").readline()
        if not line:
            self._selector.unregister(connection)
            connection.close()
            return
        try:
            request = json.loads(line)
            result = self._perform(request["command"], request.get("arguments", {}))
        except Exception as error:  # noqa: BLE001  the client must get an answer, whatever went wrong
            _answer(connection, _error(error))
            return
        if isinstance(result, Generator):
            self._unanswered.add(connection)
            self._go_on(connection, result)
        else:
            _answer(connection, {"result": result})

    def _go_on(self, connection: socket.socket, command: Lasting) -> None:
        try:
            pause = next(command)
        except StopIteration as stop:
            answer = {"result": stop.value}
        except Exception as error:  # noqa: BLE001  as above
            answer = _error(error)
        else:
            self._later(pause, lambda: self._go_on(connection, command))
            return
        self._unanswered.discard(connection)
        _answer(connection, answer)

    def _perform(self, command: str, arguments: dict[str, Any]) -> Any:
        cluster = self.cluster
        plain: dict[str, Callable[..., Any]] = {
            "facts": cluster.facts,
            "status": cluster.status,
            "kill": cluster.kill,
            "stop": cluster.stop,
            "hang": cluster.hang,
            "resume": cluster.resume,
            "start": lambda name: failover.start(cluster, name),
            "rejoin": lambda name: failover.rejoin(cluster, name),
            "remove": lambda name: failover.remove(cluster, name),
            "add": lambda name: failover.add(cluster, name),
            "refuse_logins": cluster.refuse_logins,
            "too_many_connections": cluster.too_many_connections,
            "drop_sessions": cluster.drop_sessions,
            "set_load": cluster.set_load,
            "expire_certificate": cluster.expire_certificate,
            "failover": self._fail_over,
            "promote_later": self._promote_later,
            "upgrade": self._upgrade,
            "promotions": lambda: self._promotions,
            "reset": self._reset,
            "down": self._down,
        }
        if isinstance(cluster, GlobalCluster):
            plain |= {
                "switchover": lambda region: self._fail_over(cluster.best_in(region).id),
                "kill_region": cluster.kill_region,
                "fail_over_region": self._fail_over_region,
                "rejoin_region": lambda region: failover.rejoin_all(cluster, cluster.attach(region)),
                "start": lambda name: None if cluster.start_apart(name) else failover.start(cluster, name),
            }
        if command not in plain:
            raise LabError(f"unknown command {command!r}: expected one of {', '.join(plain)}")
        return plain[command](**arguments)

    def _down(self) -> None:
        self._stopping = True

    def _reset(self) -> None:
        # A promotion that was still to come belongs to what is being undone.
        self._timers = [timer for timer in self._timers if timer[2] == self._heartbeat]
        heapq.heapify(self._timers)
        for connection in self._unanswered:
            _answer(connection, {"error": "a reset came between: the failover did not take place"})
        self._unanswered.clear()
        self._promotions.clear()
        self.cluster.is_promoting = False
        failover.reset(self.cluster)

    def _fail_over(
        self,
        target: str | None = None,
        rejoin: bool = True,
        promote_delay: float | None = None,
        drop_sessions: bool | None = None,
    ) -> Lasting:
        """End the writer and, after the delay, promote; returns when it has moved (and the old one has joined, if it can)."""
        ended_at = failover.end_writer(self.cluster, target)
        delay = self.options.promote_delay if promote_delay is None else promote_delay
        if delay:
            yield delay
        report = self._promote(target, drop_sessions)
        report["timings"]["without_writer"] = report["promoted_at"] - ended_at
        self._settle(rejoin)
        return report

    def _fail_over_region(self, region: str | None = None, detach: bool = True, promote_delay: float | None = None) -> Lasting:
        """End what runs in the writer's region and promote in another one; what hangs stays as it is."""
        assert isinstance(self.cluster, GlobalCluster)
        cluster, lost = self.cluster, self.cluster.region
        target = cluster.best_in(region or cluster.other_region())
        cluster.kill_region(lost)
        delay = self.options.promote_delay if promote_delay is None else promote_delay
        if delay:
            yield delay
        if detach:
            cluster.detach(lost)
        report = self._promote(target.id, None)
        self._settle(rejoin=False)
        return report

    def _upgrade(self, pause: float = 0.0) -> Lasting:
        """Restart every instance, the readers first, one after the other; then move the writer and restart the old one."""
        for reader in self.cluster.readers():
            failover.stop(self.cluster, reader.id)
            yield pause
            failover.start(self.cluster, reader.id)
            yield 0.0
        return (yield from self._fail_over())

    def _promote(self, target: str | None, drop_sessions: bool | None) -> dict[str, Any]:
        report = failover.promote(self.cluster, target, drop_sessions)
        self._later(self.options.dns_delay, self.cluster.flip_name) if self.options.dns_delay else self.cluster.flip_name()
        return report

    def _settle(self, rejoin: bool) -> None:
        """Have all the others follow the new writer."""
        failover.repoint(self.cluster)
        if rejoin:
            failover.rejoin_old_writers(self.cluster)

    def _promote_later(
        self, delay: float | None = None, target: str | None = None, rejoin: bool = True, drop_sessions: bool | None = None
    ) -> None:
        """Have a reader promoted after `delay` seconds; returns at once."""
        self.cluster.is_promoting = True

        def settle() -> None:
            try:
                self._settle(rejoin)
            except LabError:
                pass  # the new writer has failed too; what cannot join now does by `reset`

        def promote() -> None:
            try:
                self._promotions.append(self._promote(target, drop_sessions))
                # A synchronous writer confirms nothing until somebody follows it.
                self._later(0.0 if self.options.synchronous else _SETTLING, settle)
            except LabError as error:
                self._promotions.append({"error": str(error)})
            finally:
                self.cluster.is_promoting = False

        self._later(self.options.promote_delay if delay is None else delay, promote)


def _answer(connection: socket.socket, answer: dict[str, Any]) -> None:
    try:
        connection.sendall((json.dumps(answer) + "\n").encode())
    except OSError:
        pass  # the client has gone


def _error(error: Exception) -> dict[str, Any]:
    if isinstance(error, LabError):
        return {"error": str(error)}
    return {"error": "".join(traceback.format_exception(error))}


def main() -> None:
    """Entry of the controller process. Arguments: the options as JSON, and the number of a descriptor, a handle of the owner."""
    # Ctrl-C in a terminal goes to the whole foreground group; the owner decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        Controller(Options(**json.loads(sys.argv[1])), int(sys.argv[2])).run()
    except LabError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201  the pipe to the owner
        sys.exit(1)


if __name__ == "__main__":
    main()
