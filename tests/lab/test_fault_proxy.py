"""Each mode of the fault proxy by what a socket sees."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

from wrapper.testing import FaultProxy, LocalAurora

from .helpers import PATIENCE, one

# Seconds that are waited for what does not come.
MOMENT = 0.3


class Echo:
    """A TCP server that sends back what it gets."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.connections: list[socket.socket] = []
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            self.connections.append(connection)
            if not self._serve(connection):
                return

    @staticmethod
    def _serve(connection: socket.socket) -> bool:
        def pump() -> None:
            with connection:
                try:
                    while data := connection.recv(65536):
                        connection.sendall(data)
                except OSError:
                    pass  # reset: that is what the proxy is for

        first = connection.recv(4, socket.MSG_PEEK)
        if first == b"QUIT":
            connection.close()
            return False
        threading.Thread(target=pump, daemon=True).start()
        return True

    def close(self) -> None:
        with socket.create_connection(self.address) as last:
            last.sendall(b"QUIT")
            self.thread.join(10)
        self.listener.close()


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    echo = Echo()
    with FaultProxy(echo.address) as proxy:
        yield proxy
    echo.close()


def client(proxy: FaultProxy, timeout: float = PATIENCE) -> socket.socket:
    return socket.create_connection(proxy.address, timeout=timeout)


def echoed(connection: socket.socket, text: bytes = b"text") -> bool:
    """Send something, and return whether it comes back."""
    connection.settimeout(PATIENCE)
    connection.sendall(text)
    return connection.recv(100) == text


def is_silent(connection: socket.socket, text: bytes = b"text") -> bool:
    """Send something, and return whether nothing comes back for a moment."""
    connection.settimeout(MOMENT)
    connection.sendall(text)
    try:
        connection.recv(100)
    except TimeoutError:
        return True
    return False


def test_pass_and_latency(proxy: FaultProxy) -> None:
    with client(proxy) as connection:
        assert echoed(connection)
        proxy.latency = 0.05
        began = time.monotonic()
        assert echoed(connection)
        assert time.monotonic() - began >= 0.1  # once in each direction


def test_refuse(proxy: FaultProxy) -> None:
    with client(proxy) as established:
        assert echoed(established)
        proxy.mode = "refuse"
        with pytest.raises(ConnectionRefusedError):
            client(proxy)
        assert echoed(established)
        proxy.mode = "pass"
        with client(proxy) as connection:
            assert echoed(connection)


def test_reset(proxy: FaultProxy) -> None:
    with client(proxy) as established:
        assert echoed(established)
        proxy.mode = "reset"
        with pytest.raises(ConnectionResetError):
            established.recv(1)
        with pytest.raises(ConnectionResetError), client(proxy) as connection:
            connection.recv(1)


def test_hang(proxy: FaultProxy) -> None:
    with client(proxy) as established:
        assert echoed(established)
        proxy.mode = "hang"
        assert is_silent(established)
        with client(proxy) as connection:
            assert is_silent(connection, b"held")
            proxy.mode = "pass"
            connection.settimeout(PATIENCE)
            assert connection.recv(100) == b"held"


def test_mute(proxy: FaultProxy) -> None:
    with client(proxy) as established:
        assert echoed(established)
        proxy.mode = "mute"
        assert echoed(established)
        with client(proxy) as connection:
            assert is_silent(connection)


def test_blackhole(proxy: FaultProxy) -> None:
    with client(proxy) as established:
        assert echoed(established)
        proxy.mode = "blackhole"
        assert is_silent(established)
        with pytest.raises(TimeoutError):
            client(proxy, timeout=MOMENT)
        proxy.mode = "pass"
        with client(proxy) as connection:
            assert echoed(connection)


def test_a_mode_that_does_not_exist_is_named(proxy: FaultProxy) -> None:
    with pytest.raises(ValueError, match=r"mode='slow'.*blackhole"):
        proxy.mode = "slow"
    assert proxy.mode == "pass"


def test_in_front_of_a_database(aurora: LocalAurora) -> None:
    with FaultProxy((aurora.writer.address, aurora.port)) as proxy:
        host, port = proxy.address
        with psycopg.connect(aurora.dsn(by_address=True), host=host, port=port) as connection:
            assert one(connection, "SELECT 1") == 1
            proxy.mode = "reset"
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
