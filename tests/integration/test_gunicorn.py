"""The example application under real gunicorn workers: a failover is survived, and no worker is restarted."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.conftest import eventually
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
def site(request: pytest.FixtureRequest, aurora: LocalAurora, monitor_directory: Path) -> Iterator[Site]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    command += ["--chdir", str(EXAMPLES / "web"), *(["--preload"] if request.param else []), "app:application"]
    environment = {**os.environ, "DATABASE_DSN": aurora.dsn(), "DATABASE_INSTANCES": aurora.instance_host_pattern}
    process = subprocess.Popen(command, env=environment)
    try:
        found = Site(process, port)
        eventually(lambda: len(found.workers()) == WORKERS and found.answers(), "the application to answer")
        yield found
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_a_failover_under_gunicorn(site: Site, aurora: LocalAurora) -> None:
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
    old = aurora.writer.id
    aurora.kill("writer")
    aurora.promote_later(0.5, rejoin=False)
    served.clear()
    eventually(lambda: place_until_all_workers_have(2), "every worker to place an order after the failover")
    assert aurora.writer.id != old
    assert site.workers() == workers
    with psycopg.connect(aurora.dsn(by_address=True)) as connection:
        stored = {row[0] for row in connection.execute("SELECT key FROM orders").fetchall()}
        connection.execute("DROP TABLE orders")
    # The lab replicates asynchronously here: what the old writer alone had may be gone, what came after may not.
    assert {key for key in keys if key.startswith("2-")} <= stored
