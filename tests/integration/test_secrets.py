"""No login value is ever written: a whole working day of monitor, worker and command line, and then a search of all they wrote."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.drivers import POSTGRESQL, Driver, ask
from tests.integration.conftest import drivers, eventually
from wrapper.testing import LocalAurora

PASSWORD = "c4nary/Passw0rd+of=the&application"
TOKEN = "c4nary.rds.test:5432/?Action=connect&X-Amz-Signature=" + "0123456789abcdef" * 4
WRONG = "c4nary-that-is=wrong"
ROLES = {"canary": PASSWORD, "canary_by_token": TOKEN}

# Connects in three ways, lives through a failover, and prints whatever it can get at.
WORKER = """
import json, logging, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
import wrapper
from tests.drivers import DRIVERS, ask, one
from tests.integration.test_secrets import PASSWORD, TOKEN, WRONG
from wrapper.monitor.process import current_client
driver = DRIVERS[sys.argv[1]]

def connect(user, password):
    connection = wrapper.connect(driver.connect, **{**json.loads(sys.argv[2]), "user": user, "password": password})
    print(repr(connection), repr(connection.plugin_service), connection.plugin_service.watch)
    return connection

def say(word): print(word, flush=True); sys.stdin.readline()

try: connect("canary", WRONG)
except driver.module.Error as error: traceback.print_exc(); print(repr(error))
opened = [connect("canary", PASSWORD), connect("canary_by_token", TOKEN)]
say("connected")
for connection in opened:
    try: one(connection, driver.engine.sleep.format(30))
    except wrapper.FailoverSuccessError as error: traceback.print_exc(); print(repr(error), error.__cause__)
    print(ask(connection, "SELECT 1"))
client = current_client()
print(client.state, client.watches, [handle.key for handle in client.handles()])
say("failed over")
for connection in opened: connection.close()
"""


def admin(driver: Driver, lab: LocalAurora, *statements: str) -> None:
    with closing(driver.open(**lab.admin_parameters(lab.writer.id))) as connection:
        for statement in statements:
            ask(connection, statement)


def has_password(driver: Driver, password: str) -> str:
    return f"{'PASSWORD' if driver.engine is POSTGRESQL else 'IDENTIFIED BY'} '{password}'"


@pytest.fixture
def roles(driver: Driver, lab: LocalAurora) -> Iterator[None]:
    for role, password in ROLES.items():
        admin(driver, lab, f"CREATE USER {role} {has_password(driver, password)}")
        if driver.engine is not POSTGRESQL:
            # What a monitor needs to ask who is the writer.
            admin(driver, lab, f"GRANT SELECT, PROCESS, REPLICATION CLIENT ON *.* TO {role}")
    yield
    admin(driver, lab, *(f"DROP USER {role}" for role in ROLES))


def monitor_command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "monitor_service", *arguments)


def cores_are_allowed() -> None:
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


class Outputs:
    """Everything that the processes of a test write, in files of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def start(self, name: str, *command: str, ask: bool = False) -> subprocess.Popen[bytes]:
        with (self.directory / name).open("wb") as output:
            # Core files come here, too: they are allowed.
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE if ask else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                preexec_fn=cores_are_allowed,
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
@drivers("psycopg", "mysql-extension", "mysql-pure")
def test_nothing_that_is_ever_written_holds_a_login_value(
    style: str, driver: Driver, lab: LocalAurora, roles: None, monitor_directory: Path, tmp_path: Path
) -> None:
    outputs = Outputs(tmp_path)
    monitor = outputs.start("monitor", *monitor_command("run", "--log-level", "debug", "--log-format", style))
    follower = worker = None
    try:
        eventually(lambda: "STARTED" in outputs.text("monitor"), "the monitor to serve")
        follower = outputs.start("events", *monitor_command("events", "--json", "--since-start"))
        parameters = {
            **lab.parameters(),
            **driver.options,
            "autocommit": True,
            "cluster_instance_host_pattern": lab.instance_host_pattern,
            "failure_detection_interval_ms": 100,
        }
        worker = outputs.start("worker", sys.executable, "-c", WORKER, driver.name, json.dumps(parameters), ask=True)
        assert worker.stdin is not None
        eventually(lambda: "\nconnected\n" in outputs.text("worker"), "the worker to connect")
        eventually(lambda: outputs.text("monitor").count("proved by its own session"), "the monitor to log in")
        worker.stdin.write(b"\n")
        worker.stdin.flush()
        lab.kill("writer")
        lab.promote_later(0.3, rejoin=False)
        eventually(lambda: "\nfailed over\n" in outputs.text("worker"), "the worker to fail over")
        # A new password for all that the monitor has: its logins are refused.
        admin(driver, lab, *(f"ALTER USER {role} {has_password(driver, 'another')}" for role in ROLES))
        lab.drop_sessions(lab.writer.id)
        eventually(lambda: "LOGIN REFUSED" in outputs.text("monitor"), "a refused login")
        where, scheme = lab.parameters(lab.writer.id), "postgresql" if driver.engine is POSTGRESQL else "mysql"
        dsn = f"{scheme}://{{}}:{quote(PASSWORD, safe='')}@{where['host']}:{where['port']}"
        for name, arguments in {
            "status": ("status",),
            "status-json": ("status", "--json"),
            "doctor": ("doctor", dsn.format("canary")),
            "doctor-json": ("doctor", "--json", dsn.format("canary")),
            "doctor-damaged": ("doctor", f"{scheme}://canary:{PASSWORD} @nowhere"),
            "doctor-text": ("doctor", f"host={where['host']} password='{PASSWORD}' damaged {PASSWORD}"),
            "watch": ("watch", dsn.format("nobody")),
            "watch-damaged": ("watch", f"{scheme}://canary:{PASSWORD} @nowhere"),
        }.items():
            outputs.run(name, *monitor_command(*arguments))
        # A crash.
        monitor.send_signal(signal.SIGSEGV)
        monitor.wait(10)
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
    assert ("password authentication failed" if driver.engine is POSTGRESQL else "Access denied") in outputs.text("worker")
    assert "LOGIN REFUSED" in outputs.text("events")
    assert "cannot be asked" in outputs.text("doctor-damaged")
    written = [path for folder in (tmp_path, monitor_directory) for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 8
    for path in written:
        data = path.read_bytes()
        for secret in (PASSWORD, TOKEN, WRONG):
            for spelling in spellings(secret):
                assert spelling not in data, f"{path.name} holds {secret!r}"
