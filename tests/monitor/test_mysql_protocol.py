"""MySQL's protocol, byte by byte: what a probe says and what it makes of anything that may arrive."""

from __future__ import annotations

import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor_service.sessions import mysql_protocol as protocol
from monitor_service.sessions.mysql_auth import CACHING_SHA2, NATIVE
from monitor_service.sessions.mysql_login import Login

NONCE = bytes(range(1, 21))


def packet(payload: bytes, sequence: int = 0) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([sequence]) + payload


def greeting(plugin: str = NATIVE, capabilities: int = 0xFFFFFFFF & ~protocol.TLS, version: bytes = b"8.0.40") -> bytes:
    low, high = capabilities & 0xFFFF, capabilities >> 16
    head = struct.pack("<4x8sxH3xHB10x", NONCE[:8], low, high, len(NONCE) + 1)
    return b"\x0a" + version + b"\0" + head + NONCE[8:] + b"\0" + plugin.encode() + b"\0"


@pytest.mark.parametrize("version", [b"8.0.40", b"5.5.5-10.11.6-MariaDB"])
def test_a_greeting_is_read(version: bytes) -> None:
    found = protocol.parse_greeting(greeting(CACHING_SHA2, version=version))
    assert found.nonce == NONCE
    assert found.plugin == CACHING_SHA2


def test_a_login_that_is_sent_without_tls_does_not_ask_for_it() -> None:
    found = protocol.parse_greeting(greeting(capabilities=0xFFFFFFFF))
    payload = protocol.login(found, "app", "method", b"proof", {"program_name": "p"}, is_secure=False)
    assert not int.from_bytes(payload[:4], "little") & protocol.TLS
    assert b"app\0\5proofmethod\0" in payload
    assert payload.endswith(b"\x0cprogram_name\x01p")


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_anything_but_what_they_are(data: bytes) -> None:
    packets = protocol.Packets()
    packets.feed(data)
    try:
        while (payload := packets.take()) is not None:
            protocol.parse_greeting(payload)
            protocol.column_type(payload)
    except (protocol.ProtocolError, protocol.ServerError):
        pass


@given(st.binary(min_size=1, max_size=200), st.lists(st.sampled_from([0, 1, 3, 8, 246, 253]), min_size=1, max_size=4))
def test_a_cut_off_row_is_no_row(data: bytes, types: list[int]) -> None:
    try:
        assert len(protocol.parse_row(data, types)) == len(types)
        protocol.column_count(data)
    except protocol.ProtocolError:
        pass


@given(st.lists(st.binary(min_size=1, max_size=300).filter(lambda one: one[0] != protocol.ERROR), max_size=5), st.data())
def test_packets_are_put_together_however_they_arrive(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(packet(payload, number) for number, payload in enumerate(payloads))
    packets = protocol.Packets()
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        packets.feed(stream[:size])
        stream = stream[size:]
        while (payload := packets.take()) is not None:
            found.append(payload)
    assert found == payloads


def test_an_answer_out_of_order_belongs_to_another_question() -> None:
    packets = protocol.Packets()
    packets.command(b"\x03SELECT 1")
    packets.feed(packet(b"\x01", 2))
    with pytest.raises(protocol.ProtocolError, match="packet 2 came where 1 was due"):
        packets.take()


def test_last_words_are_heard_whatever_their_number() -> None:
    packets = protocol.Packets()
    packets.command(b"\x03SELECT 1")
    packets.feed(packet(b"\xff\xbf\x0f#HY000The client was disconnected", 0))
    with pytest.raises(protocol.ServerError) as caught:
        packets.take()
    assert caught.value.errno == 4031
    assert str(caught.value) == "4031 (HY000): The client was disconnected"


def test_rows_become_numbers_and_text() -> None:
    row = b"\x011" + b"\x031.5" + b"\x042.50" + b"\xfb" + b"\x03\xc3\xa4x"
    assert protocol.parse_row(row, [8, 5, 246, 253, 253]) == (1, 1.5, Decimal("2.50"), None, "äx")


def test_login_values_are_those_of_the_driver() -> None:
    login = Login.of({"user": "app", "password": "hush", "database": "x", "ssl_ca": "ca.pem", "ssl_verify_identity": True})
    assert (login.user, login.password) == ("app", b"hush")
    assert login.tls is not None
    assert login.tls.ca == "ca.pem"
    assert login.tls.is_strict
    assert "hush" not in repr(login)
    assert Login.of({"username": "app", "passwd": "hush", "ssl_disabled": True}).tls is None
