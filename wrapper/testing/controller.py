"""The lab's controller: the process that is the parent of every server.

It runs on one thread (the kernel ends a server when the *thread* that started it ends) and serves one request at a time over a unix
socket, a JSON object per line. When its owner's pipe closes, however that happened, it ends the servers and removes the directory.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wrapper.testing.binaries import LabError
from wrapper.testing.cluster import Cluster, Options

SOCKET = "control.sock"
_HEARTBEAT = 1.0


class Controller:
    """Serves the commands of clients on the cluster."""

    def __init__(self, options: Options) -> None:
        self.cluster = Cluster(options)
        self.options = options
        self.directory = Path(options.directory)
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
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
        self._later(_HEARTBEAT, self._heartbeat)

    def _owner_gone(self, fileobj: Any) -> None:
        if not os.read(fileobj, 1024):
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
        answer: dict[str, Any]
        try:
            request = json.loads(line)
            answer = {"result": self._perform(request["command"], request.get("arguments", {}))}
        except LabError as error:
            answer = {"error": str(error)}
        except Exception as error:  # noqa: BLE001  the client must get an answer, whatever went wrong
            answer = {"error": f"{type(error).__name__}: {error}"}
        try:
            connection.sendall((json.dumps(answer) + "\n").encode())
        except OSError:
            pass  # the client has gone

    def _perform(self, command: str, arguments: dict[str, Any]) -> Any:
        cluster = self.cluster
        plain: dict[str, Callable[..., Any]] = {
            "facts": cluster.facts,
            "status": cluster.status,
            "kill": cluster.kill,
            "stop": cluster.stop,
            "hang": cluster.hang,
            "resume": cluster.resume,
            "start": cluster.start_instance,
            "refuse_logins": cluster.refuse_logins,
            "too_many_connections": cluster.too_many_connections,
            "drop_sessions": cluster.drop_sessions,
            "failover": self._fail_over,
            "promote_later": self._promote_later,
            "promotions": lambda: self._promotions,
            "reset": self._reset,
            "down": self._down,
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
        self._promotions.clear()
        self.cluster.is_promoting = False
        self.cluster.reset()

    def _fail_over(
        self,
        target: str | None = None,
        rejoin: bool = True,
        promote_delay: float | None = None,
        drop_sessions: bool | None = None,
    ) -> dict[str, Any]:
        """Move the writer now, or after the delay; returns when it has moved (and the old one has joined, if it can)."""
        time.sleep(self.options.promote_delay if promote_delay is None else promote_delay)
        old = self.cluster.writer_id
        if not self.cluster.instances[old].server.is_hung:
            self.cluster.stop(old)
        return self._promote(target, rejoin, drop_sessions)

    def _promote(self, target: str | None, rejoin: bool, drop_sessions: bool | None) -> dict[str, Any]:
        report = self.cluster.promote(target, drop_sessions)
        self._later(self.options.dns_delay, self.cluster.flip_name) if self.options.dns_delay else self.cluster.flip_name()
        report["at"] = time.monotonic()
        if rejoin:
            self.cluster.rejoin_old_writers()
        return report

    def _promote_later(
        self, delay: float | None = None, target: str | None = None, rejoin: bool = True, drop_sessions: bool | None = None
    ) -> None:
        """Have a reader promoted after `delay` seconds; returns at once."""
        self.cluster.is_promoting = True

        def promote() -> None:
            try:
                self._promotions.append(self._promote(target, rejoin, drop_sessions))
            except LabError as error:
                self._promotions.append({"error": str(error)})
            finally:
                self.cluster.is_promoting = False

        self._later(self.options.promote_delay if delay is None else delay, promote)


def main() -> None:
    """Entry of the controller process: options as JSON in the first argument."""
    # Ctrl-C in a terminal goes to the whole foreground group; the owner decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        Controller(Options(**json.loads(sys.argv[1]))).run()
    except LabError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201  the pipe to the owner
        sys.exit(1)


if __name__ == "__main__":
    main()
