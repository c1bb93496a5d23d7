"""The example application under real gunicorn workers: a failover is survived, and no worker is restarted."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.drivers import Driver, ask
from tests.integration.conftest import drivers, eventually
from wrapper.testing import LocalAurora

EXAMPLES = Path(__file__).parents[2] / "examples"
WORKERS = 3


class Site:
    """The running application."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, method: str, path: str = "/") -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path)
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    def answers(self) -> bool:
        try:
            return "orders" in self.ask("GET")
        except (OSError, ValueError):
            return False

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(child) for child in children.split()}


@pytest.fixture(params=[False, True], ids=["", "preload"])
def site(request: pytest.FixtureRequest, lab: LocalAurora, monitor_directory: Path) -> Iterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Whatever the application must know of its database, it knows from this command.
    command = [sys.executable, "-m", "wrapper.testing", "exec", "--directory", str(lab.directory), "--"]
    command += [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}"]
    command += ["--log-level", "warning", "--chdir", str(EXAMPLES / "web"), *(["--preload"] if request.param else [])]
    process = subprocess.Popen([*command, "app:application"])
    try:
        found = Site(process, port)
        eventually(lambda: len(found.workers()) == WORKERS and found.answers(), "the application to answer")
        yield found
    finally:
        process.terminate()
        assert process.wait(20) == 0


@drivers("psycopg", "mysql-extension")
def test_a_failover_under_gunicorn(site: Site, lab: LocalAurora, driver: Driver) -> None:
    workers = site.workers()
    keys: list[str] = []
    served: set[int] = set()

    def place_until_all_workers_have(times: int) -> bool:
        answer = site.ask("POST", f"/?key={times}-{len(keys)}&text=x")
        assert "error" not in answer, answer
        keys.append(answer["key"])
        served.add(answer["worker"])
        return served == workers

    eventually(lambda: place_until_all_workers_have(1), "every worker to place an order")
    old = lab.writer.id
    lab.kill("writer")
    lab.promote_later(0.5, rejoin=False)
    served.clear()
    eventually(lambda: place_until_all_workers_have(2), "every worker to place an order after the failover")
    assert lab.writer.id != old
    assert site.workers() == workers
    with closing(driver.open(**lab.parameters(by_address=True))) as connection:
        stored = {key for (key,) in ask(connection, "SELECT id FROM orders")}
        ask(connection, "DROP TABLE orders")
    # The lab replicates asynchronously here: what the old writer alone had may be gone, what came after may not.
    assert {key for key in keys if key.startswith("2-")} <= stored
