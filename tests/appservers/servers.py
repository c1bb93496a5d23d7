"""A running server as the scenario sees it: orders go in, answers come out, and its processes can be counted."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.appservers.cells import Cell
from wrapper.testing.processes import is_alive

ROOT = Path(__file__).resolve().parents[2]
_MARK = "APPSERVER_CELL"
# Seconds. What an order may take; far less than the kernel's time-outs for a silent peer.
ORDER_PATIENCE = 30.0


class Server:
    """The processes of one cell, over HTTP. Others override `place`."""

    def __init__(self, cell: Cell, environment: Mapping[str, str], spool: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.port = _free_port()
        self.spool = spool
        environment = {**os.environ, **environment, _MARK: self.mark, "ORDERS_SPOOL": str(spool), "PYTHONWARNINGS": "default"}
        environment["VIRTUAL_ENV"] = sys.prefix
        environment["PYTHONPATH"] = os.pathsep.join([f"{ROOT}/examples/web", str(ROOT)])
        command = cell.command.format(root=ROOT, bin=Path(sys.prefix) / "bin", env=sys.prefix, port=self.port)
        self.output = spool / "output"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                shlex.split(command),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if cell.talk == "lines" else output,
                stderr=output,
                cwd=spool,
                start_new_session=True,
            )
        self.first = self.process.pid

    def place(self, key: str) -> dict[str, Any]:
        """Place an order and return the answer. Raises `OSError` or `ValueError` when there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ORDER_PATIENCE)
        try:
            connection.request("POST", f"/?key={key}&text=x", headers={"Connection": "close"})
            return dict(json.loads(connection.getresponse().read()))
        except http.client.HTTPException as error:
            raise OSError(f"no answer: {error!r}") from error
        finally:
            connection.close()

    def signal(self, number: int) -> None:
        """Send a signal to the server's first process."""
        os.kill(self.first, number)

    def is_running(self) -> bool:
        """Whether the server's first process has not ended."""
        return is_alive(self.first)

    def follow(self, pid: int) -> None:
        """From now on another process is the server's first: it has replaced the one that was started."""
        self.first = pid

    def processes(self) -> dict[int, str]:
        """Return every process that came of the server, by pid, with its command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if f"{_MARK}={self.mark}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                        found[int(entry.name)] = command
                except OSError:
                    continue  # it has ended
        return found

    def stop(self) -> None:
        """Ask the server to end. `finish` waits for it."""
        self.signal(signal.SIGTERM)

    def finish(self) -> int:
        """Wait until the server has ended; return the exit status of the process that was started."""
        deadline = time.monotonic() + 20
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not self.is_running(), "the server did not end within 20 s"
        self._close()
        return self.process.wait(1)

    def _close(self) -> None:
        if self.process.stdin is not None:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass

    def kill(self) -> None:
        """End whatever is left, by force."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self._close()

    def said(self) -> str:
        """Return what the server wrote."""
        return self.output.read_text(errors="replace")


class LineServer(Server):
    """Orders and answers as lines of standard input and output."""

    def __init__(self, cell: Cell, environment: Mapping[str, str], spool: Path) -> None:
        super().__init__(cell, environment, spool)
        self._answers: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                answer = json.loads(line)
                with self._changed:
                    self._answers[answer.get("key", "")] = answer
                    self._changed.notify_all()

    def place(self, key: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        with self._changed:
            self.process.stdin.write(json.dumps({"key": key, "text": "x"}).encode() + b"\n")
            self.process.stdin.flush()
            if not self._changed.wait_for(lambda: key in self._answers or "" in self._answers, ORDER_PATIENCE):
                raise OSError(f"no answer to order {key} within {ORDER_PATIENCE:g} s")
            return self._answers.pop(key, None) or self._answers.pop("")

    def stop(self) -> None:
        self._close()

    def _close(self) -> None:
        super()._close()
        if self.process.poll() is not None:
            self._reader.join(5)


class CeleryServer(Server):
    """Orders as tasks, through the application's broker and results."""

    def place(self, key: str) -> dict[str, Any]:
        # A client as small as can be: Celery's own would be loaded into the tests' process.
        queue, results = self.spool / "queue", self.spool / "results"
        deadline = time.monotonic() + ORDER_PATIENCE
        task = str(uuid.uuid4())
        _deliver(queue, task, key)
        result = results / f"celery-task-meta-{task}"
        while time.monotonic() < deadline:
            try:
                answer = json.loads(result.read_text())
            except (OSError, ValueError):
                time.sleep(0.01)  # not there yet, or not whole
                continue
            if answer["status"] != "SUCCESS":
                raise ValueError(f"order {key}: {answer['status']}: {answer['result']}")
            return dict(answer["result"])
        raise OSError(f"no answer to order {key} within {ORDER_PATIENCE:g} s")


def _deliver(queue: Path, task: str, key: str) -> None:
    """Put a task into the directory that is the broker's queue, as Celery's message protocol (version 2) has it."""
    import base64

    body = base64.b64encode(json.dumps([[key, "x"], {}, {}]).encode()).decode()
    delivery = {"exchange": "", "routing_key": "celery"}
    message = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"id": task, "task": "place_order", "lang": "py", "root_id": task, "parent_id": None},
        "properties": {
            "correlation_id": task,
            "reply_to": "",
            "delivery_mode": 2,
            "delivery_info": delivery,
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": task,
        },
    }
    queue.mkdir(parents=True, exist_ok=True)
    # The worker reads whatever bears the queue's name, so the file gets it last.
    draft = queue / f"{task}.draft"
    draft.write_text(json.dumps(message))
    draft.rename(queue / f"{time.monotonic_ns()}_{task}.celery.msg")


_KINDS: dict[str, type[Server]] = {"http": Server, "lines": LineServer, "celery": CeleryServer}


@contextmanager
def running(cell: Cell, environment: Mapping[str, str], spool: Path) -> Iterator[Server]:
    """Start a cell's server; whatever happens, nothing of it is left afterwards."""
    server = _KINDS[cell.talk](cell, environment, spool)
    try:
        yield server
    finally:
        server.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
