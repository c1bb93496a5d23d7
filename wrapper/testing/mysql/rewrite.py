"""The names of AWS's own SQL that MariaDB lacks, and the MySQL protocol as far as it takes to replace them. No I/O.

The server's parser knows no `@@aurora_server_id` and takes no views into `information_schema`, so no SQL can define them. Each is
replaced by something real of the server's: a variable given on its command line, a view.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

AURORA_VERSION = b"3.08.0"
_MYSQL_VERSION = b"8.0.40"
LIST = b"tables"
# What is only text stays as it is.
_TEXT = rb"""'(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | --\s[^\n]* | \#[^\n]* | /\*.*?\*/"""
# Here a column takes its name from the expression, so it is given the one that was asked for.
_BARE = re.compile(rb"\s*select\s+@@[\w.]+(?:\s*,\s*@@[\w.]+)*\s*;?\s*", re.IGNORECASE)
_SHOW_WHERE = re.compile(rb"\s*show\s+(?:(?:global|session)\s+)?variables\s+where\s+(?P<condition>.*)", re.IGNORECASE | re.DOTALL)
_FLAGS = re.IGNORECASE | re.DOTALL | re.VERBOSE


@dataclass(frozen=True)
class Names:
    """The names of one flavor, in lower case, and what each becomes. `switches` are variables that are shown as ON or OFF; `tables`
    are those of `information_schema`."""

    variables: Mapping[bytes, bytes]
    switches: frozenset[bytes] = frozenset()
    tables: Mapping[bytes, bytes] = field(default_factory=dict)
    functions: Mapping[bytes, bytes] = field(default_factory=dict)

    @cached_property
    def hints(self) -> tuple[bytes, ...]:
        """Hardly any statement has one of these; the list of tables is ours only in one that names a table of ours."""
        return tuple(name for name in (*self.variables, *self.tables, *self.functions) if name != LIST)

    @cached_property
    def pattern(self) -> re.Pattern[bytes]:
        table, variable, function = (b"|".join(names) or b"(?!)" for names in (self.tables, self.variables, self.functions))
        return re.compile(
            _TEXT
            + rb"| `?\binformation_schema`? \s*\.\s* `?(?P<table>" + table + rb")\b`?"
            + rb"| @@ (?:(?:global|session|local)\.)? (?P<variable>" + variable + rb")\b"
            + rb"| \b(?P<function>" + function + rb")\s*\(\s*\)",
            _FLAGS,
        )  # fmt: skip

    @cached_property
    def show(self) -> re.Pattern[bytes]:
        variable = b"|".join(self.variables)
        return re.compile(
            rb"""\s* show\s+ (?:(?:global|session)\s+)? variables\s+ like\s+ (['"]) (?P<variable>""" + variable + rb") \1 \s*;?\s*",
            _FLAGS,
        )

    def shown(self, name: bytes) -> bytes:
        """What `SHOW VARIABLES` tells of a name."""
        return b"IF(%s, 'ON', 'OFF')" % self.variables[name] if name in self.switches else self.variables[name]


AURORA = Names(
    variables={
        b"aurora_server_id": b"@@report_host",
        b"aurora_version": b"'%s'" % AURORA_VERSION,
        b"innodb_read_only": b"@@read_only",
    },
    switches=frozenset({b"innodb_read_only"}),
    tables={
        b"replica_host_status": b"mysql.replica_host_status",
        b"aurora_global_db_status": b"mysql.aurora_global_db_status",
        b"aurora_global_db_instance_status": b"mysql.aurora_global_db_instance_status",
        LIST: b"mysql.aurora_lab_tables",
    },
    functions={b"aurora_version": b"'%s'" % AURORA_VERSION},
)
# A server that starts from nothing needs a new id; an instance of RDS's keeps its own.
RDS = Names(
    variables={
        b"version": b"'%s'" % _MYSQL_VERSION,
        b"version_comment": b"'Source distribution'",
        b"server_id": b"CRC32(@@report_host)",
    }
)
FAMILIES = {"aurora": AURORA, "multi-az": RDS, "rds": RDS}

_COM_QUERY, _COM_STMT_PREPARE = 0x03, 0x16
HEADER = 4
# Commands longer than this pass as they come: nobody asks for the topology at such length.
_LONGEST = 1 << 16

# CLIENT_COMPRESS, CLIENT_ZSTD_COMPRESSION_ALGORITHM, CLIENT_QUERY_ATTRIBUTES: with them the text of a command is not where it was.
_COMPRESS = 1 << 5
_UNREADABLE = _COMPRESS | 1 << 26 | 1 << 27
# CLIENT_SSL: it ends here, if we can.
TLS = 1 << 11


def rewrite(sql: bytes, names: Names = AURORA) -> bytes:
    """Return a statement with the names replaced; the same object when it has none."""
    lower = sql.lower()
    if not any(hint in lower for hint in names.hints):
        return sql
    if shown := names.show.fullmatch(sql):
        name = shown["variable"].lower()
        return b"SELECT '%s' AS Variable_name, %s AS Value" % (name, names.shown(name))
    if where := _SHOW_WHERE.fullmatch(sql):
        return _show_where(names, _replaced(where["condition"], names, is_bare=False))
    return _replaced(sql, names, is_bare=_BARE.fullmatch(sql) is not None)


def _replaced(sql: bytes, names: Names, *, is_bare: bool) -> bytes:
    def replacement(match: re.Match[bytes]) -> bytes:
        if match["table"]:
            return names.tables[match["table"].lower()]
        if match["function"]:
            return names.functions[match["function"].lower()]
        if match["variable"]:
            value = names.variables[match["variable"].lower()]
            return b"%s AS `%s`" % (value, match[0]) if is_bare else value
        return match[0]

    return names.pattern.sub(replacement, sql)


def _show_where(names: Names, condition: bytes) -> bytes:
    ours = b" UNION ALL ".join(b"SELECT '%s', %s" % (name, names.shown(name)) for name in names.variables)
    listed = b", ".join(b"'%s'" % name for name in names.variables)
    return (
        b"SELECT * FROM (SELECT LOWER(variable_name) AS Variable_name, variable_value AS Value "
        b"FROM information_schema.session_variables WHERE variable_name NOT IN (%s) UNION ALL %s) AS variables WHERE %s"
    ) % (listed, ours, condition)


class Commands:
    """Rewrites the statements in what a client sends, given piece by piece."""

    def __init__(self, names: Names = AURORA) -> None:
        self._names = names
        self._pending = b""
        self._passing = 0  # bytes still to come of a packet that passes as it is

    def feed(self, data: bytes) -> bytes:
        """Return what to send to the server."""
        if not self._pending and not self._passing and len(data) == HEADER + int.from_bytes(data[:3], "little"):
            return _rewritten(data, self._names)  # nearly always one packet comes at once
        out = []
        data, self._pending = self._pending + data, b""
        while data:
            if self._passing:
                out.append(data[: self._passing])
                self._passing -= len(out[-1])
                data = data[len(out[-1]) :]
                continue
            size = HEADER + int.from_bytes(data[:3], "little")
            if len(data) >= HEADER and size > _LONGEST:
                self._passing = size
            elif len(data) < HEADER or len(data) < size:
                self._pending = data
                break
            else:
                out.append(_rewritten(data[:size], self._names))
                data = data[size:]
        return b"".join(out)


def _rewritten(packet: bytes, names: Names) -> bytes:
    # A command starts a sequence of packets; what belongs to logging in or to uploads has a higher number.
    if len(packet) <= HEADER or packet[3] != 0 or packet[HEADER] not in (_COM_QUERY, _COM_STMT_PREPARE) or len(packet) > _LONGEST:
        return packet
    sql = packet[HEADER + 1 :]
    new = rewrite(sql, names)
    if new is sql:
        return packet
    return (len(new) + 1).to_bytes(3, "little") + packet[3 : HEADER + 1] + new


def greeting_size(data: bytes) -> int:
    """Return how many bytes the first packet of a server has, as far as `data` tells."""
    return HEADER + int.from_bytes(data[:3], "little") if len(data) >= HEADER else HEADER


def plain_greeting(packet: bytes, *, tls: bool = False) -> bytes:
    """Return a server's first packet without the offers that would hide the text of commands from us. `tls`: whether we offer that
    ourselves."""
    if packet[HEADER] != 10:  # an error instead of a greeting
        return packet
    # Protocol version, server version and its zero, connection id, half of the nonce, a filler; then the capabilities.
    low = packet.index(b"\0", HEADER + 1) + 1 + 4 + 8 + 1
    high = low + 2 + 1 + 2  # behind the character set and the status
    offered = int.from_bytes(packet[low : low + 2] + packet[high : high + 2], "little")
    kept = (offered & ~_UNREADABLE & ~TLS | (TLS if tls else 0)).to_bytes(4, "little")
    return packet[:low] + kept[:2] + packet[low + 2 : high] + kept[2:] + packet[high + 2 :]


def refusal(login: bytes) -> bytes:
    """Return the error packet for a client whose first packet says that it will compress without being offered it, as
    mysql-connector's pure Python does; empty for all others."""
    wanted = int.from_bytes(login[HEADER : HEADER + 4], "little")
    if not wanted & _COMPRESS:
        return b""
    error = b"\xff" + (1235).to_bytes(2, "little") + b"#42000" + b"The lab's layer does not support compression"
    return len(error).to_bytes(3, "little") + b"\2" + error
