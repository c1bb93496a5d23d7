"""The demonstration: a failover survived, and another one, in plain sight.

Starts a local Aurora, PostgreSQL or MySQL, of three real servers, the shared monitor and a small web application on four gunicorn
workers; puts load on it; kills the writer, then hangs the next one; and prints what everybody concluded and saw, in the order of
time.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from wrapper.testing import LocalAurora

HERE = Path(__file__).resolve().parent
WORKERS = 4
CLIENTS = 8
PROMOTE_AFTER = 1.0
# Endpoints are shown by their first label, which is the instance's name.
DOMAIN = re.compile(r"(instance-\d+)\.[\w.-]+:\d+")


@dataclass
class Timeline:
    """Lines with the time since the start, printed as they come."""

    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, who: str, text: str) -> None:
        with self.lock:
            print(f"{time.monotonic() - self.started:8.3f} s  {who:<14} {text}", flush=True)


class Load:
    """Clients that place orders one after the other, each under a key of its own."""

    def __init__(self, port: int, timeline: Timeline) -> None:
        self.port = port
        self.timeline = timeline
        self.acknowledged: list[str] = []
        self.refused: Counter[str] = Counter()
        self.successes: dict[int, list[float]] = defaultdict(list)
        self.stories: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self) -> None:
        while not self._stop.is_set():
            key = str(uuid.uuid4())
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.request("POST", f"/?key={key}&text=order")
                answer = json.loads(connection.getresponse().read())
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.refused[type(error).__name__] += 1
                continue
            finally:
                connection.close()
            if "error" in answer:
                self.refused[answer["error"]] += 1
                continue
            now = time.monotonic()
            self.acknowledged.append(key)
            self.successes[answer["worker"]].append(now)
            for event in answer["story"]:
                self.stories[event] += 1
                self.timeline.say(
                    f"worker {answer['worker']}", f"{event}: now on {answer['host']}, this request took {answer['seconds']:.3f} s"
                )

    def longest_gap(self, worker: int, since: float, until: float) -> float:
        """The longest time in which a worker placed no order."""
        times = [since, *(moment for moment in self.successes[worker] if since <= moment <= until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise SystemExit(f"waited {timeout:g} s in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return "orders" in json.loads(connection.getresponse().read())
    except (OSError, ValueError):
        return False
    finally:
        connection.close()


def children_of(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def follow_monitor(process: subprocess.Popen[str], timeline: Timeline) -> None:
    """Print what the monitor concludes, and why."""
    assert process.stdout is not None
    for line in process.stdout:
        entry = json.loads(line)
        text = f"{entry['subject']} {entry['event']}: {entry['evidence']}".rstrip(": ")
        timeline.say("monitor", DOMAIN.sub(r"\1", text))


def stored_orders(lab: LocalAurora) -> set[str]:
    """What the database has, asked with the driver alone."""
    driver: Any = import_module("mysql.connector" if lab.engine == "mysql" else "psycopg")
    with closing(driver.connect(**lab.parameters(by_address=True))) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT id FROM orders")
        return {key for (key,) in cursor.fetchall()}


def disturb(lab: LocalAurora, load: Load, timeline: Timeline, title: str, fault: Callable[[str], None], workers: set[int]) -> None:
    """One act: do something to the writer, have another promoted, wait until every worker writes again."""
    print(f"\n--- {title} ---", flush=True)
    old = lab.writer.id
    since = time.monotonic()
    lab.promote_later(PROMOTE_AFTER, rejoin=False)
    fault(old)
    timeline.say("lab", f"{old} (the writer) {title}; another instance is promoted {PROMOTE_AFTER:g} s later")
    promotion = lab.wait_for_promotion()
    timeline.say("lab", f"{promotion.new_writer} is the writer")
    peak = sum(lab.monitoring_sessions().values())
    wait_for(lambda: all(load.successes[worker] and load.successes[worker][-1] > promotion.at for worker in workers), "all workers")
    time.sleep(0.5)
    until = time.monotonic()
    print()
    for worker in sorted(workers):
        gap = load.longest_gap(worker, since - 0.5, until)
        own = promotion.at - since
        print(f"             worker {worker}: {gap:.3f} s without a write, of which the database itself took {own:.3f} s")
    sessions = lab.monitoring_sessions()
    print(
        f"             monitoring sessions right after the promotion: {peak}; now: {sum(sessions.values())} {sessions}", flush=True
    )
    lab.reset()


def main() -> int:
    """Run the demonstration; the exit status says whether everything was as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--engine", choices=("postgresql", "mysql"), default="postgresql")
    options = parser.parse_args()
    timeline = Timeline()
    with LocalAurora(engine=options.engine, synchronous=True) as lab, tempfile.TemporaryDirectory(prefix="asm-demo-") as directory:
        timeline.say("lab", f"three servers of a local Aurora ({lab.engine}) are up; {lab.writer.id} is the writer")
        environment = {
            **os.environ,
            **lab.environment(),
            "AWS_WRAPPER_MONITOR_DIR": directory,
            "DATABASE_ENGINE": lab.engine,
            "DATABASE_DSN": lab.dsn(),
            "DATABASE_INSTANCES": lab.instance_host_pattern,
        }
        python = sys.executable
        port = free_port()
        monitor = subprocess.Popen([python, "-m", "monitor_service", "run", "--log-level", "warning"], env=environment)
        gunicorn = subprocess.Popen(
            [python, "-m", "gunicorn", "--workers", str(WORKERS), "--bind", f"127.0.0.1:{port}", "--chdir", str(HERE / "web"),
             "--log-level", "warning", "app:application"],
            env=environment,
        )  # fmt: skip
        load = Load(port, timeline)
        events: subprocess.Popen[str] | None = None
        try:
            wait_for(lambda: len(children_of(gunicorn.pid)) >= WORKERS and answers(port), "the web application")
            workers = children_of(gunicorn.pid)
            events = subprocess.Popen(
                [python, "-m", "monitor_service", "events", "--json"], env=environment, stdout=subprocess.PIPE, text=True
            )
            threading.Thread(target=follow_monitor, args=(events, timeline), daemon=True).start()
            timeline.say("gunicorn", f"{len(workers)} workers: {', '.join(map(str, sorted(workers)))}")
            load.start()
            wait_for(lambda: all(load.successes[worker] for worker in workers), "every worker to place an order")
            time.sleep(1.0)
            timeline.say("lab", f"monitoring sessions on the database: {lab.monitoring_sessions()}, for {WORKERS} workers")
            disturb(lab, load, timeline, "is killed (SIGKILL)", lab.kill, workers)
            time.sleep(1.0)
            disturb(lab, load, timeline, "hangs (SIGSTOP): connections stay open, nothing answers", lab.hang, workers)
            load.stop()
            survivors = children_of(gunicorn.pid)
            stored = stored_orders(lab)
        finally:
            load.stop()
            for process in (events, gunicorn, monitor):
                if process is not None:
                    process.terminate()
                    process.wait(20)
    lost = set(load.acknowledged) - stored
    print("\n--- result ---")
    print(f"orders acknowledged: {len(load.acknowledged)}, of these lost: {len(lost)}")
    print(f"requests that the application had to refuse: {sum(load.refused.values())} {dict(load.refused) or ''}")
    print(f"what the workers were told: {dict(load.stories)}")
    print(
        f"workers before {sorted(workers)}, after {sorted(survivors)}: {'none restarted' if workers == survivors else 'RESTARTED'}"
    )
    return 0 if not lost and workers == survivors else 1


if __name__ == "__main__":
    sys.exit(main())
