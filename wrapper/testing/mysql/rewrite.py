"""The names of Aurora MySQL's own SQL that MariaDB lacks, and the MySQL protocol as far as it takes to replace them. No I/O.

The server's parser knows no `@@aurora_server_id` and takes no views into `information_schema`, so no SQL can define them. Each is
replaced by something real of the server's: a variable given on its command line, a view.
"""

from __future__ import annotations

import re

AURORA_VERSION = b"3.08.0"
_LITERAL = b"'" + AURORA_VERSION + b"'"
_TABLES = {
    b"replica_host_status": b"mysql.replica_host_status",
    b"aurora_global_db_status": b"mysql.aurora_global_db_status",
    b"aurora_global_db_instance_status": b"mysql.aurora_global_db_instance_status",
    b"tables": b"mysql.aurora_lab_tables",  # in a statement that names one of Aurora's; any other never gets here
}
_VARIABLES = {b"aurora_server_id": b"@@report_host", b"aurora_version": _LITERAL, b"innodb_read_only": b"@@read_only"}

# Looked for first: hardly any statement has one.
_HINTS = (b"aurora_", b"replica_host_status", b"innodb_read_only")
_NAME = re.compile(
    rb"""
      '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | --\s[^\n]* | \#[^\n]* | /\*.*?\*/    # what is only text stays
    | `?\binformation_schema`? \s*\.\s* `?
          (?P<table> replica_host_status | aurora_global_db_status | aurora_global_db_instance_status | tables )\b`?
    | @@ (?:(?:global|session|local)\.)? (?P<variable> aurora_server_id | aurora_version | innodb_read_only )\b
    | (?P<function> \baurora_version\s*\(\s*\) )
    """,
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
# Here a column takes its name from the expression, so it is given the one that was asked for.
_BARE = re.compile(rb"\s*select\s+@@[\w.]+(?:\s*,\s*@@[\w.]+)*\s*;?\s*", re.IGNORECASE)
_SHOW = re.compile(
    rb"""\s*show\s+(?:global\s+|session\s+)?variables\s+like\s+(['"])(?P<variable>aurora_server_id|aurora_version|innodb_read_only)\1\s*;?\s*""",
    re.IGNORECASE,
)

_COM_QUERY, _COM_STMT_PREPARE = 0x03, 0x16
_HEADER = 4
# Commands longer than this pass as they come: nobody asks for the topology at such length.
_LONGEST = 1 << 16

# CLIENT_COMPRESS, CLIENT_ZSTD_COMPRESSION_ALGORITHM, CLIENT_QUERY_ATTRIBUTES: with them the text of a command is not where it was.
_COMPRESS = 1 << 5
_UNREADABLE = _COMPRESS | 1 << 26 | 1 << 27


def rewrite(sql: bytes) -> bytes:
    """Return a statement with Aurora's names replaced; the same object when it has none."""
    lower = sql.lower()
    if not any(hint in lower for hint in _HINTS):
        return sql
    if shown := _SHOW.fullmatch(sql):
        name = shown["variable"].lower()
        value = _VARIABLES[name]
        return b"SELECT '%s' AS Variable_name, %s AS Value" % (
            name,
            b"IF(%s, 'ON', 'OFF')" % value if name == b"innodb_read_only" else value,
        )
    is_bare = _BARE.fullmatch(sql) is not None

    def replacement(match: re.Match[bytes]) -> bytes:
        if match["table"]:
            return _TABLES[match["table"].lower()]
        if match["function"]:
            return _LITERAL
        if match["variable"]:
            value = _VARIABLES[match["variable"].lower()]
            return b"%s AS `%s`" % (value, match[0]) if is_bare else value
        return match[0]

    return _NAME.sub(replacement, sql)


class Commands:
    """Rewrites the statements in what a client sends, given piece by piece."""

    def __init__(self) -> None:
        self._pending = b""
        self._passing = 0  # bytes still to come of a packet that passes as it is

    def feed(self, data: bytes) -> bytes:
        """Return what to send to the server."""
        if not self._pending and not self._passing and len(data) == _HEADER + int.from_bytes(data[:3], "little"):
            return _rewritten(data)  # nearly always one packet comes at once
        out = []
        data, self._pending = self._pending + data, b""
        while data:
            if self._passing:
                out.append(data[: self._passing])
                self._passing -= len(out[-1])
                data = data[len(out[-1]) :]
                continue
            size = _HEADER + int.from_bytes(data[:3], "little")
            if len(data) >= _HEADER and size > _LONGEST:
                self._passing = size
            elif len(data) < _HEADER or len(data) < size:
                self._pending = data
                break
            else:
                out.append(_rewritten(data[:size]))
                data = data[size:]
        return b"".join(out)


def _rewritten(packet: bytes) -> bytes:
    # A command starts a sequence of packets; what belongs to logging in or to uploads has a higher number.
    if len(packet) <= _HEADER or packet[3] != 0 or packet[_HEADER] not in (_COM_QUERY, _COM_STMT_PREPARE) or len(packet) > _LONGEST:
        return packet
    sql = packet[_HEADER + 1 :]
    new = rewrite(sql)
    if new is sql:
        return packet
    return (len(new) + 1).to_bytes(3, "little") + packet[3 : _HEADER + 1] + new


def greeting_size(data: bytes) -> int:
    """Return how many bytes the first packet of a server has, as far as `data` tells."""
    return _HEADER + int.from_bytes(data[:3], "little") if len(data) >= _HEADER else _HEADER


def plain_greeting(packet: bytes) -> bytes:
    """Return a server's first packet without the offers that would hide the text of commands from us."""
    if packet[_HEADER] != 10:  # an error instead of a greeting
        return packet
    # Protocol version, server version and its zero, connection id, half of the nonce, a filler; then the capabilities.
    low = packet.index(b"\0", _HEADER + 1) + 1 + 4 + 8 + 1
    high = low + 2 + 1 + 2  # behind the character set and the status
    offered = int.from_bytes(packet[low : low + 2] + packet[high : high + 2], "little")
    kept = (offered & ~_UNREADABLE).to_bytes(4, "little")
    return packet[:low] + kept[:2] + packet[low + 2 : high] + kept[2:] + packet[high + 2 :]


def refusal(login: bytes) -> bytes:
    """Return the error packet for a client whose first packet says that it will compress without being offered it, as
    mysql-connector's pure Python does; empty for all others."""
    wanted = int.from_bytes(login[_HEADER : _HEADER + 4], "little")
    if not wanted & _COMPRESS:
        return b""
    error = b"\xff" + (1235).to_bytes(2, "little") + b"#42000" + b"The lab's layer does not support compression"
    return len(error).to_bytes(3, "little") + b"\2" + error
