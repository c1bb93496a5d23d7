"""No login value is ever written: a whole working day of monitor, worker and command line, and then a search of all they wrote."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from tests.integration.conftest import eventually
from wrapper.testing import LocalAurora

PASSWORD = "c4nary/Passw0rd+of=the&application"
TOKEN = "c4nary.rds.test:5432/?Action=connect&X-Amz-Signature=" + "0123456789abcdef" * 4
WRONG = "c4nary-that-is=wrong"
ROLES = {"canary": PASSWORD, "canary_by_token": TOKEN}

# Connects in three ways, lives through a failover, and prints whatever it can get at.
WORKER = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
import psycopg, wrapper
from wrapper.monitor.process import current_client
from tests.integration.test_secrets import PASSWORD, TOKEN, WRONG
dsn, pattern = sys.argv[1:]

def connect(user, password):
    connection = wrapper.connect(psycopg.connect, dsn, user=user, password=password, autocommit=True,
                                 cluster_instance_host_pattern=pattern, failure_detection_interval_ms=100)
    print(repr(connection), repr(connection.plugin_service), connection.plugin_service.watch)
    return connection

def say(word): print(word, flush=True); sys.stdin.readline()

try: connect("canary", WRONG)
except psycopg.Error as error: traceback.print_exc(); print(repr(error))
opened = [connect("canary", PASSWORD), connect("canary_by_token", TOKEN)]
say("connected")
for connection in opened:
    try: connection.execute("SELECT pg_sleep(30)")
    except wrapper.FailoverSuccessError as error: traceback.print_exc(); print(repr(error), error.__cause__)
    print(connection.execute("SELECT 1").fetchone())
client = current_client()
print(client.state, client.watches, [handle.key for handle in client.handles()])
say("failed over")
for connection in opened: connection.close()
"""


@pytest.fixture
def roles(aurora: LocalAurora) -> Iterator[None]:
    def admin(statement: str, *values: str) -> None:
        with psycopg.connect(aurora.admin_dsn(aurora.writer.id), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(*(sql.Identifier(values[0]), *map(sql.Literal, values[1:]))))

    for role, password in ROLES.items():
        admin("CREATE ROLE {} LOGIN PASSWORD {}", role, password)
    yield
    for role in ROLES:
        admin("DROP ROLE {}", role)


def monitor_command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "monitor_service", *arguments)


class Outputs:
    """Everything that the processes of a test write, in files of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self, name: str, *command: str, ask: bool = False) -> subprocess.Popen[bytes]:
        with (self.directory / name).open("wb") as output:
            # Core files would come here, too.
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE if ask else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )

    def run(self, name: str, *command: str) -> int:
        return self.start(name, *command).wait(60)

    def text(self, name: str) -> str:
        return (self.directory / name).read_text()


def spellings(secret: str) -> list[bytes]:
    """The ways in which a secret could be written."""
    return [secret.encode(), quote(secret, safe="").encode(), base64.b64encode(secret.encode())[:-4], repr(secret)[1:-1].encode()]


@pytest.mark.slow
@pytest.mark.parametrize("style", ["text", "json"])
def test_nothing_that_is_ever_written_holds_a_login_value(
    style: str, aurora: LocalAurora, roles: None, monitor_directory: Path, tmp_path: Path
) -> None:
    outputs = Outputs(tmp_path)
    monitor = outputs.start("monitor", *monitor_command("run", "--log-level", "debug", "--log-format", style))
    follower = worker = None
    try:
        eventually(lambda: "STARTED" in outputs.text("monitor"), "the monitor to serve")
        follower = outputs.start("events", *monitor_command("events", "--json", "--since-start"))
        worker = outputs.start("worker", sys.executable, "-c", WORKER, aurora.dsn(), aurora.instance_host_pattern, ask=True)
        assert worker.stdin is not None
        eventually(lambda: "\nconnected\n" in outputs.text("worker"), "the worker to connect")
        eventually(lambda: outputs.text("monitor").count("proved by its own session"), "the monitor to log in")
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        aurora.promote_later(0.3, rejoin=False)
        aurora.kill("writer")
        eventually(lambda: "\nfailed over\n" in outputs.text("worker"), "the worker to fail over")
        # A new password for all that the monitor has: its logins are refused.
        with psycopg.connect(aurora.admin_dsn(aurora.writer.id), autocommit=True) as connection:
            for role in ROLES:
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD 'another'").format(sql.Identifier(role)))
        aurora.drop_sessions(aurora.writer.id)
        eventually(lambda: "LOGIN REFUSED" in outputs.text("monitor"), "a refused login")
        dsn = f"{aurora.dsn()} password='{PASSWORD}'"
        for name, arguments in {
            "status": ("status",),
            "status-json": ("status", "--json"),
            "doctor": ("doctor", dsn),
            "doctor-json": ("doctor", "--json", dsn),
            "doctor-damaged": ("doctor", f"{dsn} damaged {PASSWORD}"),
            "watch": ("watch", f"{dsn} user=canary"),
            "watch-damaged": ("watch", f"postgresql://canary:{PASSWORD} @nowhere"),
        }.items():
            outputs.run(name, *monitor_command(*arguments))
        # As a crash would end it.
        monitor.kill()
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        worker.wait(30)
    finally:
        for process in (monitor, follower, worker):
            if process is not None:
                process.kill()
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
    assert "FailoverSuccessError" in outputs.text("worker"), outputs.text("worker")
    assert "password authentication failed" in outputs.text("worker")
    assert "LOGIN REFUSED" in outputs.text("events")
    assert "cannot be asked" in outputs.text("doctor-damaged")
    written = [path for folder in (tmp_path, monitor_directory) for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 8
    for path in written:
        data = path.read_bytes()
        for secret in (PASSWORD, TOKEN, WRONG):
            for spelling in spellings(secret):
                assert spelling not in data, f"{path.name} holds {secret!r}"
