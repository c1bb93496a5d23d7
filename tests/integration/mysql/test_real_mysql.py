"""A real MySQL server, where the lab has MariaDB's: its logins, its variables, and a hang. Fetched on first use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from monitor_service.loop_guard import guarded_loop
from monitor_service.sessions.mysql import Door
from tests.integration.conftest import client, eventually
from wrapper import AwsWrapperConnection, errors
from wrapper.dialects import DIALECTS
from wrapper.dialects.base import InstanceTemplate
from wrapper.dialects.mysql import DETECT_QUERY, MultiAzMySqlDialect
from wrapper.drivers import mysql_query
from wrapper.drivers.classify import ErrorKind
from wrapper.drivers.mysql_errors import classify
from wrapper.hosts import HostRole
from wrapper.testing.mysql.fetch import fetch_mysql, mysql_command
from wrapper.testing.mysql.server import as_root
from wrapper.testing.processes import die_with_parent

from .conftest import one, stands_for

pytestmark = pytest.mark.slow

PASSWORD = "hush hush"
METHODS = ("caching_sha2_password", "sha256_password")


class Server:
    """One MySQL server at 127.0.0.1."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def parameters(self, method: str = METHODS[0], **more: Any) -> dict[str, Any]:
        """What `connect` takes for the account that logs in by `method`."""
        return {"host": "127.0.0.1", "port": self.port, "user": method[:6], "password": PASSWORD, "autocommit": True, **more}

    def admin(self, *statements: str) -> None:
        """Run statements as superuser."""
        with closing(mysql.connector.connect(host="127.0.0.1", port=self.port, user="lab", password=PASSWORD)) as session:
            for statement in statements:
                session.cursor().execute(statement)

    def forget_logins(self) -> None:
        """Have the next login of every account be a full one."""
        self.admin("FLUSH PRIVILEGES")

    @contextmanager
    def hung(self) -> Iterator[None]:
        """A block in which the server is stopped."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with an account for each method of logging in, and certificates of its own making."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aws-shared-monitor-wrapper" / "mysql"
    if not cache.is_dir():
        fetch_mysql(cache)
    with tempfile.TemporaryDirectory(prefix="mysql-") as folder, socket.create_server(("127.0.0.1", 0)) as reserved:
        directory, port = Path(folder), reserved.getsockname()[1]
        accounts = [
            f"CREATE USER {method[:6]} IDENTIFIED WITH {method} BY '{PASSWORD}';\nGRANT ALL ON app.* TO {method[:6]};"
            for method in METHODS
        ]
        (directory / "accounts.sql").write_text(
            f"CREATE USER lab IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO lab;\nCREATE DATABASE app;\n" + "\n".join(accounts)
        )
        command = [
            *mysql_command(cache), "--no-defaults", *as_root(), f"--datadir={directory}/data", "--innodb-buffer-pool-size=16M",
            f"--lc-messages-dir={cache}/usr/share/mysql", f"--character-sets-dir={cache}/usr/share/mysql/charsets",
            "--secure-file-priv=", "--skip-name-resolve",
        ]  # fmt: skip
        made = subprocess.run(
            [*command, "--initialize-insecure", f"--init-file={directory}/accounts.sql"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        reserved.close()
        with open(directory / "log", "wb") as log:
            process = subprocess.Popen(
                [*command, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={directory}/socket", "--mysqlx=OFF"],
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )
        found = Server(process, port)
        try:
            eventually(lambda: answers(found), (directory / "log").read_text())
            yield found
        finally:
            process.kill()
            process.wait()


def answers(server: Server) -> bool:
    try:
        server.admin()
    except mysql.connector.Error:
        return False
    return True


@pytest.mark.parametrize("method", METHODS)
def test_it_is_recognised_whatever_the_login(server: Server, use_pure: bool, method: str) -> None:
    server.forget_logins()
    parameters = server.parameters(method, use_pure=use_pure, monitor_mode="off")
    with AwsWrapperConnection.connect(mysql.connector.connect, **parameters) as connection:
        service = connection.plugin_service
        assert service.database_dialect is not None
        assert service.database_dialect.code == "mysql"
        assert service.get_host_role() is HostRole.WRITER
        assert one(connection, "SELECT CURRENT_USER()") == f"{method[:6]}@%"


@pytest.mark.parametrize("tls", [{}, {"ssl_disabled": True}], ids=["tls", "without"])
@pytest.mark.parametrize("method", METHODS)
def test_the_monitor_logs_in_by_every_method(server: Server, method: str, tls: dict[str, bool]) -> None:
    """Twice: the second time, the server may know the account. Without TLS, the server's public key is asked for."""
    server.forget_logins()
    loop, guard = guarded_loop()

    async def scene() -> list[tuple[Any, ...]]:
        session = await Door("server.example", "127.0.0.1", server.port, guard).log_in(server.parameters(method, **tls), 10)
        try:
            return await session.ask("SELECT CURRENT_USER(), @@autocommit, @@max_execution_time", 10)
        finally:
            session.close()

    try:
        for _ in range(2):
            assert loop.run_until_complete(scene()) == [(f"{method[:6]}@%", 1, 5000)]
    finally:
        loop.close()


@pytest.mark.usefixtures("monitor_directory")
def test_a_call_to_a_hung_server_is_ended(server: Server, use_pure: bool) -> None:
    parameters = server.parameters(use_pure=use_pure, failure_detection_interval_ms=150, failure_detection_count=3)
    with AwsWrapperConnection.connect(mysql.connector.connect, **parameters, plugins="host_monitoring_v2") as connection:
        watch = connection.plugin_service.watch
        assert watch is not None

        def is_watched() -> bool:
            found = client().state.by_watch(watch.key)
            return client().is_live and found is not None and found.writer_proved_at is not None

        eventually(is_watched, "the monitor's first proof")
        started = time.monotonic()
        with server.hung(), pytest.raises(mysql.connector.Error) as caught:
            connection.cursor().execute("SELECT 1")
        assert time.monotonic() - started < 20  # the driver alone would wait for ever
        assert classify(caught.value) is ErrorKind.NETWORK
        assert not stands_for(caught.value, errors.FailoverError)


def test_a_demoted_server_is_known_by_what_it_says(server: Server, use_pure: bool) -> None:
    server.admin("CREATE TABLE IF NOT EXISTS app.t (x INT)", "SET GLOBAL super_read_only = ON")
    try:
        parameters = server.parameters(use_pure=use_pure, monitor_mode="off", plugins="host_monitoring_v2", database="app")
        with AwsWrapperConnection.connect(mysql.connector.connect, **parameters) as connection:
            assert connection.plugin_service.get_host_role() is HostRole.READER
            with pytest.raises(mysql.connector.Error) as caught:
                connection.cursor().execute("INSERT INTO t VALUES (1)")
            assert classify(caught.value) is ErrorKind.READ_ONLY
    finally:
        server.admin("SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF")


TABLE = "id BIGINT PRIMARY KEY, endpoint VARCHAR(255), port INT"
ROW = "@@server_id, 'm-1.xyz.us-east-2.rds.amazonaws.com', 3306"


@pytest.mark.parametrize(
    ("columns", "row", "members"),
    [
        (TABLE, ROW, 1),
        (f"{TABLE}, role VARCHAR(50)", f"{ROW}, NULL", 1),
        (f"{TABLE}, role VARCHAR(50)", f"{ROW}, 'BLUE_GREEN_DEPLOYMENT_SOURCE'", 0),
    ],
    ids=["members", "members without a role", "a Blue/Green Deployment's"],
)
def test_a_table_of_members_is_read(server: Server, use_pure: bool, columns: str, row: str, members: int) -> None:
    """The statements for a Multi-AZ DB cluster, on the parser they are for; a Blue/Green Deployment lists nobody."""
    dialect = DIALECTS["multi-az-mysql"]
    assert isinstance(dialect, MultiAzMySqlDialect)
    server.admin(f"CREATE TABLE mysql.rds_topology ({columns})", f"INSERT INTO mysql.rds_topology VALUES ({row})", "COMMIT")
    try:
        parameters = {**server.parameters(use_pure=use_pure), "user": "lab"}
        with closing(mysql.connector.connect(**parameters)) as connection:
            shown = mysql_query.run(connection, DETECT_QUERY, 5.0)
            assert {name for name, _ in shown} == {"version", "version_comment", "report_host", "server_id"}
            own, rows = dialect.split(mysql_query.run(connection, dialect.joined_query, 5.0))
            answer = dialect.role_answer(own)
            hosts = dialect.topology_hosts(rows, InstanceTemplate(), 3306)
            assert (answer.role, len(hosts)) == (HostRole.WRITER, members)
            assert all((host.id, host.role) == (answer.id, "writer") for host in hosts)
    finally:
        server.admin("DROP TABLE mysql.rds_topology")
