"""MySQL's client/server protocol as far as a probe needs it: logging in, asking one question as text, reading its rows. No I/O.

Sources: MySQL Source Code Documentation, "Client/Server Protocol"; MariaDB Knowledge Base, "Clientserver Protocol".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from monitor_service.sessions.mysql_auth import NATIVE

# Capabilities.
LONG_PASSWORD = 1 << 0
LONG_FLAG = 1 << 2
PROTOCOL_41 = 1 << 9
TLS = 1 << 11
TRANSACTIONS = 1 << 13
SECURE_CONNECTION = 1 << 15
PLUGIN_AUTH = 1 << 19
CONNECT_ATTRS = 1 << 20
# Not that there are more here than one; but so a server says which other one it wants.
FACTORS = 1 << 28
_WANTED = LONG_PASSWORD | LONG_FLAG | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH | CONNECT_ATTRS | FACTORS

# utf8mb4_general_ci: known to every server since MySQL 5.5, MariaDB included.
_CHARSET = 45
_MAX_PACKET = 1 << 24
# Bytes. Nothing that a probe asks for is longer; four bytes of garbage mostly claim to be.
_LONGEST = 1 << 20
_HEADER = 4

# The first byte of a packet, where it tells what the packet is.
OK, MORE_AUTH, NEXT_FACTOR, LOCAL_FILE, END, ERROR = 0x00, 0x01, 0x02, 0xFB, 0xFE, 0xFF

_INTEGERS = frozenset({1, 2, 3, 8, 9, 13})
_FLOATS = frozenset({4, 5})
_DECIMALS = frozenset({0, 246})


class ProtocolError(Exception):
    """What arrived is not MySQL's protocol, or not what was asked for."""


class ServerError(Exception):
    """An error packet."""

    def __init__(self, number: int, sqlstate: str, text: str) -> None:
        super().__init__(f"{number} ({sqlstate}): {text}" if sqlstate else f"{number}: {text}")
        self.errno = number
        self.sqlstate = sqlstate


@dataclass(frozen=True, slots=True)
class Greeting:
    """A server's first packet. `plugin`: how it would like the password to be shown."""

    capabilities: int
    nonce: bytes
    plugin: str


class Packets:
    """Puts packets together from the bytes of a connection, and checks their order."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._sequence = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def command(self, payload: bytes) -> bytes:
        """Return a packet that begins a new conversation."""
        self._sequence = 0
        return self.reply(payload)

    def reply(self, payload: bytes) -> bytes:
        """Return the next packet of a conversation."""
        packet = struct.pack("<I", len(payload) | self._sequence << 24) + payload
        self._sequence = (self._sequence + 1) % 256
        return packet

    def take(self) -> bytes | None:
        """Return the next whole packet, None when more bytes are needed. Raises `ServerError` and `ProtocolError`."""
        if len(self._buffer) < _HEADER:
            return None
        (head,) = struct.unpack_from("<I", self._buffer)
        size, sequence = head & 0xFFFFFF, head >> 24
        if not 0 < size <= _LONGEST:
            raise ProtocolError(f"not MySQL's protocol: {bytes(self._buffer[:20])!r}")
        if len(self._buffer) < _HEADER + size:
            return None
        payload = bytes(self._buffer[_HEADER : _HEADER + size])
        del self._buffer[: _HEADER + size]
        if payload[0] == ERROR:
            # Whatever its number: a server that ends a session says so unasked.
            raise _server_error(payload)
        if sequence != self._sequence:
            raise ProtocolError(f"packet {sequence} came where {self._sequence} was due")
        self._sequence = (sequence + 1) % 256
        return payload


def parse_greeting(payload: bytes) -> Greeting:
    """Read a server's first packet. Raises `ProtocolError`."""
    try:
        if payload[0] != 10:
            raise ProtocolError(f"not a MySQL greeting: {payload[:20]!r}")
        after_version = payload.index(b"\0", 1) + 1
        # Connection id, first part of the nonce, filler, capabilities, character set, status, capabilities, length of the nonce.
        first, low, high, size = struct.unpack_from("<4x8sxH3xHB10x", payload, after_version)
        rest = payload[after_version + 31 :]
        second, plugin = rest[: max(13, size - 8)], rest[max(13, size - 8) :]
    except (IndexError, ValueError, struct.error):
        raise ProtocolError(f"not a MySQL greeting: {payload[:20]!r}") from None
    capabilities = low | high << 16
    if not capabilities & PROTOCOL_41:
        raise ProtocolError("the server is older than MySQL 4.1")
    name = plugin.split(b"\0", 1)[0].decode("ascii", "replace") if capabilities & PLUGIN_AUTH else NATIVE
    return Greeting(capabilities, (first + second)[:20], name)


def tls_request(greeting: Greeting) -> bytes:
    """Return the payload that asks for TLS."""
    return struct.pack("<IIB23x", _WANTED & greeting.capabilities | TLS, _MAX_PACKET, _CHARSET)


def login(greeting: Greeting, user: str, plugin: str, proof: bytes, attributes: Mapping[str, str], *, is_secure: bool) -> bytes:
    """Return the payload of a login. `proof`: what `plugin` makes of the password. `is_secure`: TLS is on."""
    capabilities = _WANTED & greeting.capabilities | (TLS if is_secure else 0)
    parts = [struct.pack("<IIB23x", capabilities, _MAX_PACKET, _CHARSET), user.encode(), b"\0", bytes([len(proof)]), proof]
    if capabilities & PLUGIN_AUTH:
        parts += [plugin.encode(), b"\0"]
    if capabilities & CONNECT_ATTRS:
        pairs = b"".join(_short_text(name) + _short_text(value) for name, value in attributes.items())
        parts += [bytes([len(pairs)]), pairs]
    return b"".join(parts)


def nameless_login(greeting: Greeting) -> bytes:
    """Return a login that nobody has, for leaving a server that waits for one."""
    return login(greeting, "", NATIVE, b"", {}, is_secure=False)


def parse_switch(payload: bytes) -> tuple[str, bytes]:
    """Return the login method that a server wants instead or next, and its nonce."""
    plugin, _, nonce = payload[1:].partition(b"\0")
    return plugin.decode("ascii", "replace") or "mysql_old_password", nonce[:20]


def is_end(payload: bytes) -> bool:
    """Whether the packet ends columns or rows."""
    return payload[0] == END and len(payload) < 9


def column_count(payload: bytes) -> int:
    """Return how many columns follow. Raises `ProtocolError`."""
    if payload[0] == LOCAL_FILE:
        raise ProtocolError("the server asks for a file of ours")
    return _number(payload, 0)[0] or 0


def column_type(payload: bytes) -> int:
    """Return the type of a column from its definition. Raises `ProtocolError`."""
    at = 0
    for _ in range(6):  # catalogue, schema, table and column, with their aliases
        _, at = _text(payload, at)
    try:
        return payload[at + 7]  # after a length, the character set and the width
    except IndexError:
        raise ProtocolError("a column's definition is cut off") from None


def parse_row(payload: bytes, types: list[int]) -> tuple[Any, ...]:
    """Return a row's values: numbers as numbers, all else as text. Raises `ProtocolError`."""
    values: list[Any] = []
    at = 0
    for kind in types:
        raw, at = _text(payload, at)
        values.append(None if raw is None else _value(raw, kind))
    return tuple(values)


def _value(raw: bytes, kind: int) -> Any:
    try:
        if kind in _INTEGERS:
            return int(raw)
        if kind in _FLOATS:
            return float(raw)
        if kind in _DECIMALS:
            return Decimal(raw.decode("ascii"))
    except (ValueError, ArithmeticError):
        raise ProtocolError(f"{raw[:20]!r} is not a number") from None
    return raw.decode("utf-8", "backslashreplace")


def _number(payload: bytes, at: int) -> tuple[int | None, int]:
    """Return a length-encoded number (None: NULL) and where the next value begins."""
    try:
        first = payload[at]
    except IndexError:
        raise ProtocolError("a packet is cut off") from None
    if first < 0xFB:
        return first, at + 1
    if first == 0xFB:
        return None, at + 1
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    if not width or len(payload) < at + 1 + width:
        raise ProtocolError("a packet is cut off")
    return int.from_bytes(payload[at + 1 : at + 1 + width], "little"), at + 1 + width


def _text(payload: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = _number(payload, at)
    if size is None:
        return None, at
    if len(payload) < at + size:
        raise ProtocolError("a packet is cut off")
    return payload[at : at + size], at + size


def _short_text(text: str) -> bytes:
    data = text.encode()[:250]
    return bytes([len(data)]) + data


def _server_error(payload: bytes) -> ServerError:
    if len(payload) < 3:
        raise ProtocolError("an error packet is cut off")
    number = int.from_bytes(payload[1:3], "little")
    text = payload[3:]
    sqlstate = ""
    if text[:1] == b"#":
        sqlstate, text = text[1:6].decode("ascii", "replace"), text[6:]
    return ServerError(number, sqlstate, text.decode("utf-8", "replace"))
