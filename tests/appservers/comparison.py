"""The same small application over this wrapper and over the AWS Advanced Python Wrapper, under gunicorn: what each machine carries
for monitoring, and whether a server that hangs is noticed by a worker that was forked."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.appservers.servers import ROOT
from tests.benchmarks.bench import OURS, REFERENCE, Side
from tests.benchmarks.outages import TUNED
from tests.integration.conftest import eventually
from wrapper.monitor.paths import DIRECTORY_VARIABLE
from wrapper.testing import LocalAurora
from wrapper.testing.processes import children

# Seconds.
_SETTLE = 3.0
_WINDOW = 25.0
_PROMOTE_AFTER = 1.0
# gunicorn is not installed beside the reference: ours is found behind everything that is.
_GUNICORN = "import sys; sys.path.append(sys.argv.pop(1)); from gunicorn.app.wsgiapp import run; run()"


@dataclass(frozen=True)
class Case:
    """How many workers gunicorn has, and its further options."""

    workers: int
    options: tuple[str, ...] = ()


CASES = {
    "2 workers, sync": Case(2),
    "2 workers, sync, preload": Case(2, ("--preload",)),
    # A worker may take no more connections than it has threads for: the other would get none.
    "2 workers, gthread, preload": Case(
        2, ("--preload", "--worker-class", "gthread", "--threads", "2", "--worker-connections", "2")
    ),
    "8 workers, sync": Case(8),
}


@dataclass(frozen=True)
class Figures:
    """`threads`: of the workers and the arbiter together; `sessions`: for monitoring, on all servers together; `noticed`: seconds
    from the hang until every call in flight ended, None when one did not."""

    threads: int
    sessions: int
    noticed: float | None

    def __str__(self) -> str:
        ended = f"ended after {self.noticed:.1f} s" if self.noticed is not None else f"not ended after {_WINDOW:.0f} s"
        return f"{self.threads} threads, {self.sessions} monitoring sessions, calls in flight {ended}"


def measure(case: Case, side: Side, lab: LocalAurora) -> Figures:
    """Run one case, after the cluster was put in order. `lab` must call its instances by address: the reference knows no names."""
    lab.reset()
    with tempfile.TemporaryDirectory(prefix="asm-") as directory, _site(case, side, lab, directory) as (process, port):
        workers: set[int] = set()

        def all_have_answered() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"gunicorn ended with status {process.returncode}")
            orders = 4 * case.workers
            with ThreadPoolExecutor(orders) as pool:
                answers = [answer for answer in pool.map(lambda _: _ask(port, 0.05), range(orders)) if answer]
            workers.update(answer["worker"] for answer in answers)
            return len(workers) == case.workers

        try:
            eventually(all_have_answered, "all workers to answer", 60)
            time.sleep(_SETTLE)
            threads = sum(_threads(pid) for pid in (process.pid, *workers))
            sessions = sum(_monitoring_sessions(lab, instance.id) for instance in lab.instances)
            noticed = _hang(lab, port, side, case.workers)
        finally:
            subprocess.run(
                [sys.executable, "-m", "monitor_service", "stop", "--directory", directory],
                capture_output=True,
                check=False,
                cwd=ROOT,
            )
    return Figures(threads, sessions, noticed)


def _hang(lab: LocalAurora, port: int, side: Side, workers: int) -> float | None:
    with ThreadPoolExecutor(workers) as pool:
        calls = [pool.submit(_ask, port, 600.0) for _ in range(workers)]
        eventually(lambda: _sleepers(lab) == workers, "a call of each worker to be in flight")
        struck = time.monotonic()
        lab.hang("writer")
        # Dropped sessions are more than the reference survives.
        lab.promote_later(_PROMOTE_AFTER, rejoin=False, drop_sessions=side.name == OURS)
        answers = [call.result() for call in calls]
        ended = time.monotonic()
    lab.wait_for_promotion()
    return ended - struck if all(answer is not None for answer in answers) else None


def _ask(port: int, seconds: float) -> dict[str, Any] | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WINDOW)
    try:
        connection.request("GET", f"/?seconds={seconds}", headers={"Connection": "close"})
        return dict(json.loads(connection.getresponse().read()))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@contextmanager
def _site(case: Case, side: Side, lab: LocalAurora, directory: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parameters = {"cluster_instance_host_pattern": lab.instance_host_pattern, **TUNED}
    if side.name == REFERENCE:
        parameters.update(plugins="failover_v2,host_monitoring_v2", failure_detection_time_ms=100, connect_timeout=5)
    environment = {
        **os.environ,
        **lab.environment(),
        "SIDE": side.name,
        "LOGIN": json.dumps({"driver": side.driver.name, **lab.parameters(by_address=True)}),
        "PARAMETERS": json.dumps(parameters),
        "PYTHONPATH": str(ROOT),
        DIRECTORY_VARIABLE: directory,
        **({"PRELOADED": "1"} if "--preload" in case.options else {}),
    }
    command = [side.python, "-c", _GUNICORN, sysconfig.get_path("purelib"), "--workers", str(case.workers), "--timeout", "120"]
    command += ["--graceful-timeout", "1", "--no-control-socket", "--bind", f"127.0.0.1:{port}", "--log-level", "critical"]
    command += [*case.options, "tests.appservers.compared:application"]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        yield process, port
    finally:
        for pid in children(process.pid):
            os.kill(pid, 9)  # a call to a hung server is not worth waiting for
        process.kill()
        process.wait()


def _threads(pid: int) -> int:
    return len(os.listdir(Path("/proc") / str(pid) / "task"))


def _sleepers(lab: LocalAurora) -> int:
    return sum("pg_sleep" in session["query"] and session["state"] == "active" for session in lab.sessions(lab.writer.id))


def _monitoring_sessions(lab: LocalAurora, instance: str) -> int:
    """Sessions that did not run the application's query last."""
    return sum("pg_sleep" not in session["query"] for session in lab.sessions(instance))
