"""Servers that are none: they accept, and then stop making sense somewhere on the way to a row."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

from tests.forwarder import shut

from .test_mysql_protocol import greeting, packet

Play = Callable[[socket.socket], None]


class Hung(Exception):
    """The script is over: say nothing more, and keep the connection."""


class Impostor:
    """Plays a script to everybody who connects, until closed. A script that returns resets the connection."""

    def __init__(self, play: Play) -> None:
        self.visits = 0
        self._play = play
        self._clients: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            self._clients.add(client)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._play(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except Hung:
            wait_for_the_end(client)
        except OSError:
            pass  # the guest has gone
        finally:
            self._clients.discard(client)
            client.close()

    def close(self) -> None:
        for one in (self._listener, *self._clients):
            shut(one)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


def wait_for_the_end(client: socket.socket) -> None:
    try:
        while client.recv(4096):
            pass
    except OSError:
        pass


def read(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            raise ConnectionResetError("the guest has gone")
        data += more
    return data


def mute(client: socket.socket) -> None:
    raise Hung


def dribble(client: socket.socket, said: bytes) -> None:
    """Say something a byte at a time, so slowly that nobody waits for the end of it."""
    gone = threading.Event()
    for byte in said:
        client.sendall(bytes((byte,)))
        gone.wait(0.1)


def garbage(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nServer: something else\r\n\r\n")
    raise Hung


# -- PostgreSQL (manual, "Message Formats") ------------------------------------------------------------------------------------


def message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


WELCOME = (
    message(b"R", struct.pack("!i", 0))
    + message(b"S", b"server_version\x0015.0\0")
    + message(b"S", b"client_encoding\0UTF8\0")
    + message(b"K", bytes(8))
    + message(b"Z", b"I")
)
SSL_REQUEST = 80877103


def pg_startup(client: socket.socket) -> None:
    """Decline TLS, and read who wants in; whoever only knocks has gone by then."""
    while True:
        size = struct.unpack("!i", read(client, 4))[0]
        if struct.unpack("!i", read(client, size - 4)[:4])[0] != SSL_REQUEST:
            return
        client.sendall(b"N")


def pg_slow(client: socket.socket) -> None:
    pg_startup(client)
    dribble(client, WELCOME)


def pg_after_the_knock(client: socket.socket) -> None:
    read(client, 8)
    client.sendall(b"N")
    client.recv(1)  # nothing from whoever knocks, a login from everybody else


def pg_in_the_login(client: socket.socket) -> None:
    pg_startup(client)
    client.sendall(WELCOME[:20])


def pg_in_a_row(client: socket.socket) -> None:
    pg_startup(client)
    client.sendall(WELCOME)
    while True:
        read(client, 1)
        query = read(client, struct.unpack("!i", read(client, 4))[0] - 4)
        if not query.startswith(b"SET"):
            break
        client.sendall(message(b"C", b"SET\0") + message(b"Z", b"I"))
    columns = struct.pack("!h", 1) + b"role\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    client.sendall(message(b"T", columns) + message(b"D", struct.pack("!hi", 1, 100) + b"x" * 100)[:30])


# -- MySQL (dev.mysql.com, "Client/Server Protocol") ---------------------------------------------------------------------------

DONE = b"\0\0\0\x02\0\0\0"


def mysql_slow(client: socket.socket) -> None:
    dribble(client, packet(greeting()))


def mysql_after_the_knock(client: socket.socket) -> None:
    client.sendall(packet(greeting()))


def mysql_login(client: socket.socket) -> None:
    client.sendall(packet(greeting()))
    read(client, int.from_bytes(read(client, 4)[:3], "little"))


def mysql_in_the_login(client: socket.socket) -> None:
    mysql_login(client)
    client.sendall(packet(DONE, 2)[:6])


def mysql_in_a_row(client: socket.socket) -> None:
    mysql_login(client)
    client.sendall(packet(DONE, 2))
    while not (query := read(client, int.from_bytes(read(client, 4)[:3], "little"))).startswith(b"\x03SELECT"):
        if query == b"\x01":
            return  # it leaves
        client.sendall(packet(DONE, 1))
    column = b"\x03def\0\0\0\0\0\x0c" + bytes(6) + b"\xfd" + bytes(5)
    rows = [b"\x01", column, b"\xfe\0\0\x02\0", b"\x64" + b"x" * 100]
    client.sendall(b"".join(packet(row, number) for number, row in enumerate(rows, 1))[:-60])


SCRIPTS: dict[str, dict[str, Play]] = {
    "postgresql": {
        "never answers": mute,
        "answers byte by byte": pg_slow,
        "answers garbage": garbage,
        "resets after the knock": pg_after_the_knock,
        "resets in the login": pg_in_the_login,
        "resets in a row": pg_in_a_row,
    },
    "mysql": {
        "never answers": mute,
        "answers byte by byte": mysql_slow,
        "answers garbage": garbage,
        "resets after the knock": mysql_after_the_knock,
        "resets in the login": mysql_in_the_login,
        "resets in a row": mysql_in_a_row,
    },
}
