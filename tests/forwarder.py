"""Passes every byte on between whoever connects to a listening socket and a server, until it is closed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable


class Forwarder:
    """Serves `listener` on threads of its own. `connect` opens a connection to the server."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self._listener = listener
        self._connect = connect
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = self._connect()
            self._sockets += [near, far]
            for pair in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=_pump, args=pair))
                self._threads[-1].start()

    def close(self) -> None:
        """End every connection, and wait for the threads."""
        for one in (self._listener, *self._sockets):
            shut(one)
        for thread in self._threads:
            thread.join(10)
        for one in (self._listener, *self._sockets):
            one.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass  # one side has gone
    shut(target)


def shut(one: socket.socket) -> None:
    """End a connection, or wake who waits for one."""
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # not connected any more
