"""One MySQL session through every fault, against a real server and against one that says whatever a test wants."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitor_service.loop_guard import guarded_loop
from monitor_service.sessions import APPLICATION_NAME, ProbeError, UnsupportedError
from monitor_service.sessions import mysql_protocol as protocol
from monitor_service.sessions.mysql import Door
from monitor_service.sessions.mysql_auth import CACHING_SHA2, FULL_LOGIN
from wrapper.drivers.classify import ErrorKind
from wrapper.monitor.state import ANSWERED, REFUSED, SILENT

from .harness import login
from .servers import Server, eventually
from .test_mysql_protocol import greeting, packet

# Seconds: what a server that answers never needs, what is waited for one that does not, and for one that has to begin first.
AMPLE, SHORT, LONG = 10.0, 0.15, 1.5

HALF_A_GREETING = packet(greeting())[:9]
CERTIFICATE = str(Path(__file__).parent / "server.example.pem")

Script = Callable[[socket.socket], None]
Play = Callable[[Callable[[Callable[..., Door]], Coroutine[Any, Any, None]]], None]


def sockets() -> int:
    gc.collect()
    return sum(os.path.basename(_link(entry)).startswith("socket:") for entry in os.listdir("/proc/self/fd"))


def _link(entry: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{entry}")
    except OSError:
        return ""


@pytest.fixture(autouse=True)
def _no_socket_is_left() -> Iterator[None]:
    before = sockets()
    yield
    eventually(lambda: sockets() <= before, "all sockets to be closed")


@pytest.fixture
def play() -> Play:
    """Runs a scene on a loop of its own."""

    def run(scene: Callable[[Callable[..., Door]], Coroutine[Any, Any, None]]) -> None:
        loop, guard = guarded_loop()
        try:
            loop.run_until_complete(scene(lambda address, port, host="server.example": Door(host, address, port, guard)))
        finally:
            loop.close()

    return run


@contextmanager
def scripted(script: Script) -> Iterator[int]:
    """A server that plays `script` to its first client and then keeps silent, until the block ends. Yields its port."""
    failures: list[BaseException] = []
    over = threading.Event()

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            client.settimeout(AMPLE)
            try:
                script(client)
            except BaseException as error:  # noqa: BLE001  told below
                failures.append(error)
            over.wait(AMPLE)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join(AMPLE)
    assert failures == []


async def failure(step: Coroutine[Any, Any, object]) -> ProbeError:
    with pytest.raises(ProbeError) as caught:
        await step
    return caught.value


@pytest.mark.parametrize(
    ("said", "kind", "error"),
    [
        (b"", SILENT, ErrorKind.OTHER),
        (HALF_A_GREETING, ANSWERED, ErrorKind.OTHER),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ANSWERED, ErrorKind.OTHER),
        (packet(b"\x09" + bytes(60)), ANSWERED, ErrorKind.OTHER),
        (packet(b"\xff\x10\x04Too many connections"), ANSWERED, ErrorKind.BUSY),
        (packet(b"\xff\x69\x04Host is blocked"), ANSWERED, ErrorKind.BUSY),
        (packet(b"\xff\x6a\x04Host is not allowed to connect"), ANSWERED, ErrorKind.LOGIN),
    ],
    ids=["nothing", "half a greeting", "another protocol", "an old protocol", "full", "blocked", "not allowed"],
)
def test_whatever_is_said_to_a_knock_is_an_answer(play: Play, said: bytes, kind: str, error: ErrorKind) -> None:
    async def scene(door: Callable[..., Door]) -> None:
        # What is never finished is waited for; a busy machine may need a while even to begin.
        patience = SHORT if kind == SILENT else LONG if said == HALF_A_GREETING else AMPLE
        caught = await failure(door("127.0.0.1", port).knock(patience))
        assert (caught.kind, caught.error) == (kind, error)

    with scripted(lambda client: client.sendall(said)) as port:
        play(scene)


def test_a_port_where_nobody_listens_refuses(play: Play) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def scene(door: Callable[..., Door]) -> None:
        assert (await failure(door("127.0.0.1", port).knock(AMPLE))).kind == REFUSED

    play(scene)


def test_a_server_that_hangs_up_refuses(play: Play) -> None:
    async def scene(door: Callable[..., Door]) -> None:
        assert (await failure(door("127.0.0.1", port).knock(AMPLE))).kind == REFUSED

    with scripted(lambda client: client.close()) as port:
        play(scene)


def test_silence_is_reset_before_a_server_can_count_it(play: Play) -> None:
    # Never accepted, as by a server that hangs: it must not find a half-open handshake when it goes on.
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def scene(door: Callable[..., Door]) -> None:
            caught = await failure(door("127.0.0.1", listener.getsockname()[1]).knock(SHORT))
            assert caught.kind == SILENT

        play(scene)
        client, _ = listener.accept()
        with client, pytest.raises(ConnectionResetError):
            client.recv(1)


def test_whoever_has_no_login_leaves_with_a_whole_packet(play: Play) -> None:
    heard: list[bytes] = []

    def script(client: socket.socket) -> None:
        client.sendall(packet(greeting()))
        while data := client.recv(1000):
            heard.append(data)

    async def scene(door: Callable[..., Door]) -> None:
        one = door("127.0.0.1", port)
        await one.knock(AMPLE)
        one.close()

    with scripted(script) as port:
        play(scene)
    (said,) = heard
    assert len(said) == 4 + int.from_bytes(said[:3], "little")
    # No name, no password; an account that exists cannot be locked by it.
    assert said[36:38] == b"\0\0"


def test_files_that_are_missing_cost_no_handshake(play: Play) -> None:
    heard: list[bytes] = []

    def script(client: socket.socket) -> None:
        client.sendall(packet(greeting(capabilities=0xFFFFFFFF)))
        heard.append(client.recv(1000))

    async def scene(door: Callable[..., Door]) -> None:
        caught = await failure(door("127.0.0.1", port).log_in({"user": "app", "ssl_ca": "/no/such.pem"}, AMPLE))
        assert caught.error is ErrorKind.LOGIN
        assert "/no/such.pem" in caught.detail

    with scripted(script) as port:
        play(scene)
    assert heard[0][36:38] == b"\0\0"


def test_a_server_that_cannot_be_verified_gets_no_password(play: Play) -> None:
    async def scene(door: Callable[..., Door]) -> None:
        caught = await failure(door("127.0.0.1", port).log_in({"user": "app", "password": "hush", "ssl_verify_cert": True}, AMPLE))
        assert caught.error is ErrorKind.LOGIN
        assert "does not offer" in caught.detail

    with scripted(lambda client: client.sendall(packet(greeting()))) as port:
        play(scene)


def test_a_login_that_is_not_answered_is_silent(play: Play) -> None:
    async def scene(door: Callable[..., Door]) -> None:
        one = door("127.0.0.1", port)
        await one.knock(AMPLE)
        assert (await failure(one.log_in({"user": "app"}, SHORT))).kind == SILENT

    with scripted(lambda client: client.sendall(packet(greeting()))) as port:
        play(scene)


def speak_tls(client: socket.socket) -> Iterator[ssl.SSLSocket]:
    """Greet, agree to TLS, and be server.example in it. Yields once, or never when the client breaks it off."""
    client.sendall(packet(greeting(CACHING_SHA2, capabilities=0xFFFFFFFF)))
    asked = client.recv(36)
    assert len(asked) == 36
    assert asked[4 + 1] & (protocol.TLS >> 8)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    try:
        with context.wrap_socket(client, server_side=True) as secured:
            yield secured
    except (ssl.SSLError, ConnectionError):
        pass  # the client did not like what it saw


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_the_server_is_verified_by_name_though_connected_to_by_address(play: Play, version: str) -> None:
    heard: list[bytes] = []

    def script(client: socket.socket) -> None:
        for secured in speak_tls(client):
            assert secured.version() == version
            secured.recv(1000)
            secured.sendall(packet(b"\x01" + FULL_LOGIN, 3))
            heard.append(secured.recv(1000))
            secured.sendall(packet(b"\0\0\0\x02\0\0\0", 5))
            secured.recv(1000)  # the preparation
            secured.sendall(packet(b"\0\0\0\x02\0\0\0", 1))
            heard.append(secured.recv(1000)[4:])
            long = b"x" * 60000  # several records
            rows = [b"\x01", b"\x03def\0\0\0\0\0\x0c" + bytes(6) + b"\xfd" + bytes(5), b"\xfe\0\0\x02\0"]
            rows += [b"\xfc" + len(long).to_bytes(2, "little") + long, b"\xfe\0\0\x02\0"]
            secured.sendall(b"".join(packet(row, number) for number, row in enumerate(rows, 1)))
            heard.append(secured.recv(1000)[4:])

    async def scene(door: Callable[..., Door]) -> None:
        offer = {"user": "app", "password": "hush", "ssl_ca": CERTIFICATE, "ssl_verify_cert": True, "ssl_verify_identity": True}
        session = await door("127.0.0.1", port).log_in({**offer, "tls_versions": [version]}, AMPLE)
        assert await session.ask("SELECT x", AMPLE) == [("x" * 60000,)]
        session.close()

    with scripted(script) as port:
        play(scene)
    assert heard == [packet(b"hush\0", 4), b"\x03SELECT x", b"\x01"]


@pytest.mark.parametrize(
    ("host", "offer", "reason"),
    [
        ("other.example", {"ssl_ca": True, "ssl_verify_identity": True}, "Hostname mismatch"),
        ("server.example", {"ssl_verify_cert": True}, "self-signed|self signed"),
    ],
)
def test_a_server_that_is_another_gets_no_password(play: Play, host: str, offer: dict[str, object], reason: str) -> None:
    heard: list[bytes] = []

    def script(client: socket.socket) -> None:
        for secured in speak_tls(client):
            heard.append(secured.recv(1000))

    async def scene(door: Callable[..., Door]) -> None:
        given = {"user": "app", "password": "hush", **offer, **({"ssl_ca": CERTIFICATE} if "ssl_ca" in offer else {})}
        caught = await failure(door("127.0.0.1", port, host).log_in(given, AMPLE))
        assert (caught.kind, caught.error) == (ANSWERED, ErrorKind.LOGIN)
        assert re.search(reason, caught.detail), caught.detail

    with scripted(script) as port:
        play(scene)
    assert b"".join(heard) == b""


def test_another_login_method_is_followed(play: Play) -> None:
    heard: list[bytes] = []

    def script(client: socket.socket) -> None:
        client.sendall(packet(greeting("some_unknown_default")))
        client.recv(1000)
        client.sendall(packet(b"\xfecaching_sha2_password\0" + b"n" * 20 + b"\0", 2))
        heard.append(client.recv(1000))
        client.sendall(packet(b"\x01\x03", 4))
        client.sendall(packet(b"\0\0\0\x02\0\0\0", 5))

    async def scene(door: Callable[..., Door]) -> None:
        session = await door("127.0.0.1", port).log_in({"user": "app", "password": "hush"}, AMPLE)
        session.close()

    with scripted(script) as port:
        play(scene)
    assert len(heard[0]) == 4 + 32


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"\xfeauthentication_kerberos_client\0realm", "'authentication_kerberos_client', which the monitor does not have"),
        (b"\xfeclient_ed25519\0" + bytes(32), "'client_ed25519', which the monitor does not have"),
        (b"\x02authentication_webauthn_client\0challenge", "one more factor, by 'authentication_webauthn_client'"),
        (b"\xfesha256_password\0" + b"n" * 20 + b"\0", "'?sha256_password.*without TLS"),
    ],
    ids=["kerberos", "ed25519", "factor", "sha256"],
)
def test_a_login_that_is_not_possible_here_is_named(play: Play, said: bytes, reason: str) -> None:
    def script(client: socket.socket) -> None:
        client.sendall(packet(greeting()))
        client.recv(1000)
        client.sendall(packet(said, 2))

    async def scene(door: Callable[..., Door]) -> None:
        caught = await failure(door("127.0.0.1", port).log_in({"user": "app", "password": "hush"}, AMPLE))
        assert isinstance(caught, UnsupportedError)
        assert (caught.kind, caught.error) == (ANSWERED, ErrorKind.LOGIN)
        assert re.search(reason, caught.detail), caught.detail

    with scripted(script) as port:
        play(scene)


def aborted_clients(server: Server) -> str:
    """The number of sessions that the server missed the farewell of."""
    query = "SELECT variable_value FROM information_schema.global_status WHERE variable_name = 'ABORTED_CLIENTS'"
    return str(server.admin(query)[0][0])


def test_a_session_on_a_real_server(play: Play, mysql_server: Server) -> None:
    offer = {**login(mysql_server).parameters, "database": "gone", "init_command": "nonsense", "collation": "nonsense"}
    aborted = aborted_clients(mysql_server)

    async def scene(door: Callable[..., Door]) -> None:
        session = await door(mysql_server.endpoint, mysql_server.port).log_in(offer, AMPLE)
        limits = "SELECT @@autocommit, @@max_statement_time, database()"
        assert [tuple(map(str, row)) for row in await session.ask(limits, AMPLE)] == [("1", "5.0", "None")]
        assert await session.ask("SELECT repeat('ä', 70000), 2 UNION SELECT NULL, 3", AMPLE) == [("ä" * 70000, 2), (None, 3)]
        assert await session.ask("SELECT 1 WHERE FALSE", AMPLE) == []
        assert [one["application_name"] for one in mysql_server.lab.sessions(mysql_server.id)] == [APPLICATION_NAME]
        missing = await failure(session.ask("SELECT * FROM mysql.user", AMPLE))
        assert (missing.kind, missing.error) == (ANSWERED, ErrorKind.PRIVILEGE)
        assert await session.ask("SELECT 4", AMPLE) == [(4,)]
        session.close()

    play(scene)
    eventually(lambda: not mysql_server.lab.sessions(mysql_server.id), "the server to be told of the end")
    assert aborted_clients(mysql_server) == aborted


def test_the_answer_of_a_question_that_took_too_long_goes_to_nobody(play: Play, mysql_server: Server) -> None:
    async def scene(door: Callable[..., Door]) -> None:
        session = await door(mysql_server.endpoint, mysql_server.port).log_in(login(mysql_server).parameters, AMPLE)
        await session.ask("SELECT 'first'", AMPLE)
        assert (await failure(session.ask("SELECT sleep(3), 'late'", SHORT))).kind == SILENT
        assert (await failure(session.ask("SELECT 'next'", AMPLE))).kind == REFUSED
        session.close()

    play(scene)


def test_a_hung_server_is_silent_at_every_step(play: Play, mysql_server: Server) -> None:
    async def scene(door: Callable[..., Door]) -> None:
        one = door(mysql_server.endpoint, mysql_server.port)
        session = await one.log_in(login(mysql_server).parameters, AMPLE)
        await one.knock(AMPLE)
        mysql_server.hang()
        assert (await failure(session.ask("SELECT 1", SHORT))).kind == SILENT
        assert (await failure(one.log_in(login(mysql_server).parameters, SHORT))).kind == SILENT
        assert (await failure(one.knock(SHORT))).kind == SILENT
        session.close()
        mysql_server.resume()
        await one.knock(AMPLE)
        one.close()

    play(scene)


def test_a_killed_session_is_no_news_of_the_server(play: Play, mysql_server: Server) -> None:
    async def scene(door: Callable[..., Door]) -> None:
        session = await door(mysql_server.endpoint, mysql_server.port).log_in(login(mysql_server).parameters, AMPLE)
        heard = asyncio.Event()
        session.watch(heard.set)
        mysql_server.drop_sessions()
        await asyncio.wait_for(heard.wait(), AMPLE)
        caught = await failure(session.ask("SELECT 1", AMPLE))
        assert (caught.kind, caught.error) == (REFUSED, ErrorKind.NETWORK)
        session.close()

    play(scene)


def test_a_wrong_password_is_an_answer(play: Play, mysql_server: Server) -> None:
    async def scene(door: Callable[..., Door]) -> None:
        one = door(mysql_server.endpoint, mysql_server.port)
        caught = await failure(one.log_in(login(mysql_server, "wrong").parameters, AMPLE))
        assert (caught.kind, caught.error) == (ANSWERED, ErrorKind.LOGIN)
        assert "1045" in caught.detail
        # Another one is tried on a connection of its own.
        session = await one.log_in(login(mysql_server).parameters, AMPLE)
        session.close()

    play(scene)
