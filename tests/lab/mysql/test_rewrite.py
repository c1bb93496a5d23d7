"""Aurora's names in statements and in the bytes of a session; everything else comes out as it went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrapper.testing.mysql.rewrite import RDS, Commands, plain_greeting, rewrite

CASES = [
    ("SELECT @@aurora_server_id", "SELECT @@report_host AS `@@aurora_server_id`"),
    (
        "select @@AURORA_SERVER_ID, @@global.innodb_read_only;",
        "select @@report_host AS `@@AURORA_SERVER_ID`, @@read_only AS `@@global.innodb_read_only`;",
    ),
    ("SELECT 1 WHERE x = @@aurora_server_id", "SELECT 1 WHERE x = @@report_host"),
    ("SELECT @@aurora_version AS v", "SELECT '3.08.0' AS v"),
    ("SELECT AURORA_VERSION()", "SELECT '3.08.0'"),
    ("SHOW VARIABLES LIKE 'aurora_version'", "SELECT 'aurora_version' AS Variable_name, '3.08.0' AS Value"),
    (
        'show global variables like "INNODB_READ_ONLY" ;',
        "SELECT 'innodb_read_only' AS Variable_name, IF(@@read_only, 'ON', 'OFF') AS Value",
    ),
    ("SELECT a FROM information_schema.replica_host_status r", "SELECT a FROM mysql.replica_host_status r"),
    ("SELECT a FROM `INFORMATION_SCHEMA` . `Replica_Host_Status`", "SELECT a FROM mysql.replica_host_status"),
    ("SELECT '@@aurora_version', @@aurora_version", "SELECT '@@aurora_version', '3.08.0'"),
]
RDS_CASES = [
    (
        "SELECT @@version, @@version_comment",
        "SELECT '8.0.40' AS `@@version`, 'Source distribution' AS `@@version_comment`",
    ),
    ("SELECT id = @@server_id FROM mysql.rds_topology", "SELECT id = CRC32(@@report_host) FROM mysql.rds_topology"),
    ("SHOW VARIABLES LIKE 'version'", "SELECT 'version' AS Variable_name, '8.0.40' AS Value"),
    ("SELECT @@aurora_server_id", "SELECT @@aurora_server_id"),
    ("SELECT VERSION(), @@version_compile_os, server_id FROM t", "SELECT VERSION(), @@version_compile_os, server_id FROM t"),
]
UNTOUCHED = [
    "SELECT 1",
    "SELECT '@@aurora_server_id'",
    'SELECT "its \\" @@aurora_server_id"',
    "SELECT 'it''s \\' @@aurora_server_id'",
    "SELECT 1 -- @@aurora_server_id",
    "SELECT 1 # @@aurora_server_id\n",
    "SELECT /* information_schema.replica_host_status */ 1",
    "SELECT @aurora_server_id, @@aurora_server_ids, my_information_schema.replica_host_status",
    "SELECT my_aurora_version(), aurora_version FROM t",
    "SHOW VARIABLES LIKE 'aurora_versions'",
]


@pytest.mark.parametrize(("sql", "expected"), CASES)
def test_names_are_replaced(sql: str, expected: str) -> None:
    assert rewrite(sql.encode()).decode() == expected


@pytest.mark.parametrize(("sql", "expected"), RDS_CASES)
def test_other_flavors_have_other_names(sql: str, expected: str) -> None:
    assert rewrite(sql.encode(), RDS).decode() == expected


def test_a_condition_sees_the_replaced_values_only() -> None:
    sql = rewrite(b"show session variables where Variable_name IN ('version')", RDS).decode()
    assert sql.endswith(" AS variables WHERE Variable_name IN ('version')")
    assert "variable_name NOT IN ('version', 'version_comment', 'server_id')" in sql
    assert "SELECT 'version', '8.0.40'" in sql


@pytest.mark.parametrize("sql", UNTOUCHED)
def test_text_comments_and_similar_names_stay(sql: str) -> None:
    assert rewrite(sql.encode()).decode() == sql


def packet(payload: bytes, number: int = 0) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


OLD, NEW = b"SELECT @@aurora_server_id", b"SELECT @@report_host AS `@@aurora_server_id`"
PACKETS = st.sampled_from(
    [
        (packet(b"\x03" + OLD), packet(b"\x03" + NEW)),
        (packet(b"\x16" + OLD), packet(b"\x16" + NEW)),
        (packet(b"\x03" + OLD, number=1), packet(b"\x03" + OLD, number=1)),  # the text of an upload, not a command
        (packet(b"\x17" + OLD), packet(b"\x17" + OLD)),  # the parameters of COM_STMT_EXECUTE
        (packet(b"\x03SELECT 1"), packet(b"\x03SELECT 1")),
        (packet(b""), packet(b"")),
        (packet(b"\x01"), packet(b"\x01")),
        (packet(b"\x03" + OLD + b" " * 70_000), packet(b"\x03" + OLD + b" " * 70_000)),
    ]
)


@given(st.lists(PACKETS, max_size=6), st.lists(st.integers(1, 200), max_size=20))
def test_commands_are_found_however_the_bytes_arrive(packets: list[tuple[bytes, bytes]], pieces: list[int]) -> None:
    data = b"".join(old for old, _ in packets)
    commands = Commands()
    out = b""
    for size in pieces:
        out += commands.feed(data[:size])
        data = data[size:]
    out += commands.feed(data)
    assert out == b"".join(new for _, new in packets)


def test_a_greeting_offers_neither_compression_nor_attributes() -> None:
    def greeting(low: int, high: int) -> bytes:
        version, connection, nonce, rest = b"\x0a5.5.5-10.11\0", b"\1\0\0\0", b"12345678\0", b"rest"
        capabilities = low.to_bytes(2, "little") + b"\x2d\2\0" + high.to_bytes(2, "little")
        return packet(version + connection + nonce + capabilities + rest)

    assert plain_greeting(greeting(0xFFFF, 0xFFFF)) == greeting(0xF7DF, 0xF3FF)
    assert plain_greeting(greeting(0, 0), tls=True) == greeting(0x0800, 0)
    error = packet(b"\xff\x10\x04Too many connections")
    assert plain_greeting(error) == error
