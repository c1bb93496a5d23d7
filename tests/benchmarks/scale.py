"""`python -m tests.benchmarks.scale`: one monitor with many subscribers and many hosts, beside a bare ZeroMQ publisher.

The hosts are addresses of the loopback network that lead to one real PostgreSQL (`workers/hosts.py`); the subscribers have the
sockets and the lease of a worker each, many to a process (`workers/subscribers.py`). The bare publisher (`workers/bare.py`) sends
the same bytes to the same processes, in turns with the monitor: out of the blue, and when a session of its own is reset.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.bench import OURS, WORKERS
from tests.benchmarks.children import Child, Event
from tests.benchmarks.monitor import Monitor
from tests.drivers import PSYCOPG
from wrapper.hosts import host_key
from wrapper.monitor.paths import DIRECTORY_VARIABLE
from wrapper.monitor.state import ANSWERED
from wrapper.testing import LocalAurora

PORT = 25432
INTERVAL = 1.0
COUNT = 3
# Goals. Seconds, except where the name says otherwise.
TIMES_BARE = 1.5
SPINNING_GOAL = 0.020
DETECTION_GOAL = (COUNT + 1) * INTERVAL + 0.1
CPU_GOAL_PERCENT = 1.0
RSS_GOAL_MIB = 60.0

_PROCESSES = 4
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Point:
    """What was measured with so many hosts and subscribers. Times in seconds, one per event."""

    hosts: int
    subscribers: int
    cpu_percent: float = 0.0
    rss_mib: float = 0.0
    descriptors: int = 0
    bare: list[float] = field(default_factory=list)
    bare_reset: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    published: list[float] = field(default_factory=list)
    detection: list[float] = field(default_factory=list)


def address(number: int) -> str:
    return f"127.77.{number // 250}.{number % 250 + 1}"


def p99(values: Sequence[float]) -> float:
    """Return the value that one of a hundred exceeds."""
    return sorted(values)[max(0, -(-99 * len(values) // 100) - 1)]


class Rig:
    """A monitor, its hosts and its subscribers."""

    def __init__(self, lab: LocalAurora, hosts: int, subscribers: int, directory: Path, stack: ExitStack) -> None:
        self.point = Point(hosts, subscribers)
        self.monitor = Monitor(directory)
        addresses = [address(number) for number in range(hosts)]
        # One that nobody watches but the bare publisher.
        self._bare_host = hosts
        self.key = host_key(addresses[0], PORT)
        self.hosts = Child(
            sys.executable,
            "hosts",
            {"addresses": [*addresses, address(hosts)], "port": PORT, "upstream": [lab.writer.address, lab.writer.port]},
            {},
        )
        stack.callback(self.hosts.stop)
        self.hosts.expect("ready", 20)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "monitor_service", "run", "--directory", str(directory)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(self._end)
        bare_url = f"ipc://{directory}/bare"
        login = {name: value for name, value in lab.parameters().items() if name not in ("host", "port")}
        bare_login = {**login, "host": address(hosts), "hostaddr": address(hosts), "port": PORT}
        self.bare = Child(sys.executable, "bare", {"url": bare_url, "login": bare_login, "key": self.key}, {})
        stack.callback(self.bare.stop)
        self.bare.expect("bound", 20)
        given: dict[str, Any] = {
            "addresses": addresses,
            "port": PORT,
            "control_url": self.monitor.paths.control_url,
            "events_url": self.monitor.paths.events_url,
            "bare_url": bare_url,
            "interval": INTERVAL,
            "login": login,
        }
        processes = min(_PROCESSES, subscribers)
        self.clients = [
            Child(sys.executable, "subscribers", {**given, "numbers": self._numbers(part, processes)}, {})
            for part in range(processes)
        ]
        for client in self.clients:
            stack.callback(client.stop)
        for client in self.clients:
            client.expect("watched", 60)
        self._wait_until_watching()

    def _numbers(self, part: int, processes: int) -> list[int]:
        """The other host that each subscriber of a process watches: all hosts in turn."""
        others = max(self.point.hosts - 1, 1)
        return [number % others for number in range(part, self.point.subscribers, processes)]

    def _wait_until_watching(self) -> None:
        expected = min(self.point.hosts, self.point.subscribers + 1)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            document = self.monitor.document(5.0)
            hosts = [host for cluster in (document or {"clusters": []})["clusters"] for host in cluster["hosts"]]
            if sum(bool(host["session"]) and host["kind"] == ANSWERED for host in hosts) >= expected:
                return
            time.sleep(0.1)
        raise TimeoutError(f"the monitor did not watch {expected} hosts within 60 s")

    def _end(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    # -- measuring -------------------------------------------------------------------------------------------------------------

    def measure_footprint(self, span: float) -> None:
        process = Path(f"/proc/{self.process.pid}")
        before = _cpu_seconds(process)
        time.sleep(span)
        self.point.cpu_percent = 100 * (_cpu_seconds(process) - before) / span
        self.point.rss_mib = int((process / "statm").read_text().split()[1]) * _PAGE / 2**20
        self.point.descriptors = len(list((process / "fd").iterdir()))

    def measure_spread(self, events: int) -> None:
        """In turns: a bare message out of the blue, one after a reset, and a reset of the subject."""
        for _ in range(events):
            time.sleep(random.uniform(0.1, 0.3))
            asked = time.monotonic()
            self.bare.command("send")
            sent = self.bare.expect("sent", 10, asked)
            self.point.bare.append(self._bare_spread(sent) - sent.at)
            self.bare.command("open")
            self.bare.expect("open", 10, asked)
            time.sleep(random.uniform(0.1, 0.3))
            self.point.bare_reset.append(self._reset_bare())
            time.sleep(random.uniform(0.1, 0.3))
            began, ours, published = self._reset()
            self.point.ours.append(ours - began)
            self.point.published.append(ours - published)

    def _bare_spread(self, sent: Event) -> float:
        """When the last subscriber had the bare message."""
        seq = sent.facts["seq"]
        return max(one.expect("bare", 20, sent.at, lambda event: event.facts["seq"] == seq).at for one in self.clients)

    def _reset_bare(self) -> float:
        """Reset the bare publisher's session; return the seconds from then until the last subscriber had its message."""
        asked = time.monotonic()
        self.hosts.command(f"reset {self._bare_host}")
        began = self.hosts.expect("reset", 10, asked).at
        spread = self._bare_spread(self.bare.expect("sent", 10, asked)) - began
        self.hosts.command(f"back {self._bare_host}")
        self.hosts.expect("back", 10, asked)
        return spread

    def _reset(self) -> tuple[float, float, float]:
        """Reset the subject's sessions; return when that was, when the last subscriber knew, and when the probe had ended."""
        asked = time.monotonic()
        self.hosts.command("reset 0")
        began = self.hosts.expect("reset", 10, asked).at
        told = [one.expect("told", 20, began) for one in self.clients]
        self._bring_back()
        return began, max(event.at for event in told), float(told[0].facts["failed_at"])

    def _bring_back(self) -> None:
        asked = time.monotonic()
        self.hosts.command("back 0")
        self.clients[0].expect("well", 20, asked)

    def measure_detection(self, rounds: int) -> None:
        """Freeze the subject at evenly spread phases; seconds until `COUNT` silent probes are known."""
        for turn in range(rounds):
            time.sleep((turn + 0.5) * INTERVAL / rounds)
            asked = time.monotonic()
            self.hosts.command("freeze 0")
            began = self.hosts.expect("freeze", 10, asked).at
            known = self.clients[0].expect("silent", 30, began, lambda event: event.facts["count"] >= COUNT).at
            self.point.detection.append(known - began)
            self._bring_back()


def _cpu_seconds(process: Path) -> float:
    fields = (process / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def rig(lab: LocalAurora, hosts: int, subscribers: int) -> Iterator[Rig]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-"))
        yield Rig(lab, hosts, subscribers, Path(directory), stack)


def measure_point(lab: LocalAurora, hosts: int, subscribers: int, *, events: int, freezes: int, span: float) -> Point:
    with rig(lab, hosts, subscribers) as one:
        one.measure_footprint(span)
        one.measure_spread(events)
        one.measure_detection(freezes)
        return one.point


@dataclass(slots=True)
class Spinning:
    """Workers whose Python never rests; seconds from a reset, one per event. `told`: until the client thread of the last one knows.
    `calls`: until a call of the last one knows, where each makes one after every millisecond of work. `bell` and `no_bell`: the
    same, each worker for itself, in a group of which every other one hears the monitor's bell: both see the same events. `page`:
    until the last of as many processes has seen a change in a page that they share with us: from that change, no reset."""

    page: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    bell: list[float] = field(default_factory=list)
    no_bell: list[float] = field(default_factory=list)


def measure_all_spinning(lab: LocalAurora, events: int) -> Spinning:
    told = [max(times) for times in measure_spinning(lab, events, calls=False, deaf=0)]
    calls = [max(times) for times in measure_spinning(lab, events, calls=True, deaf=0)]
    mixed = measure_spinning(lab, events, calls=True, deaf=WORKERS // 2)
    return Spinning(
        page=measure_page(events),
        told=told,
        calls=calls,
        bell=[one for times in mixed for one in times[WORKERS // 2 :]],
        no_bell=[one for times in mixed for one in times[: WORKERS // 2]],
    )


def measure_page(events: int) -> list[float]:
    """Seconds from a change in a shared page until the last of the processes has seen it whose Python never rests."""
    spread = []
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile())
        file.truncate(mmap.PAGESIZE)
        counter = memoryview(stack.enter_context(mmap.mmap(file.fileno(), mmap.PAGESIZE))).cast("Q")
        stack.callback(counter.release)
        workers = [Child(sys.executable, "page", {"path": file.name}, {}) for _ in range(WORKERS)]
        for worker in workers:
            stack.callback(worker.stop)
        for worker in workers:
            worker.expect("ready", 60)
        for _ in range(events):
            time.sleep(random.uniform(0.1, 0.4))
            began = time.monotonic()
            counter[0] += 1
            spread.append(max(worker.expect("seen", 20, began).at for worker in workers) - began)
    return spread


def measure_spinning(lab: LocalAurora, events: int, *, calls: bool, deaf: int) -> list[list[float]]:
    """Seconds from a reset until each of the workers knows whose Python never rests: its client thread or, with `calls`, its next
    call. The first `deaf` ones do not hear the monitor's bell."""
    spread = []
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-"))
        upstream = [lab.writer.address, lab.writer.port]
        hosts = Child(sys.executable, "hosts", {"addresses": [address(0)], "port": PORT, "upstream": upstream}, {})
        stack.callback(hosts.stop)
        hosts.expect("ready", 20)
        key = host_key(address(0), PORT)
        monitor = Monitor(Path(directory))
        stack.callback(monitor.stop)
        login = {"driver": PSYCOPG.name, **lab.parameters(by_address=True, host=address(0), hostaddr=address(0), port=PORT)}
        given = {"side": OURS, "login": login, "parameters": {}, "key": key, "calls": calls}
        workers = [
            Child(sys.executable, "spinning", {**given, "bell": number >= deaf}, {DIRECTORY_VARIABLE: directory})
            for number in range(WORKERS)
        ]
        for worker in workers:
            stack.callback(worker.stop)
        for worker in workers:
            worker.expect("connected", 60)
        monitor.wait_until_watching(1, clients=WORKERS, timeout=60)
        for _ in range(events):
            time.sleep(random.uniform(0.1, 0.4))
            asked = time.monotonic()
            hosts.command("reset 0")
            began = hosts.expect("reset", 10, asked).at
            spread.append([worker.expect("acts" if calls else "told", 20, began).at - began for worker in workers])
            asked = time.monotonic()
            hosts.command("back 0")
            for worker in workers:
                worker.expect("well", 20, asked)
    return spread


def milliseconds(value: float) -> str:
    return f"{value * 1000:.1f}"


def _spread(values: Sequence[float]) -> str:
    return f"{milliseconds(median(values))} / {milliseconds(p99(values))}"


def as_markdown(points: Sequence[Point], spinning: Spinning | None) -> str:
    lines = [
        "| hosts | subscribers | CPU of a core | RSS, MiB | descriptors | bare, ms | after the probe, ms | over bare "
        "| bare reset, ms | reset, ms | over bare reset | silence, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in points:
        cells = [
            f"{one.hosts}",
            f"{one.subscribers}",
            f"{one.cpu_percent:.1f} %",
            f"{one.rss_mib:.0f}",
            f"{one.descriptors}",
            _spread(one.bare),
            _spread(one.published),
            f"{p99(one.published) / p99(one.bare):.2f} x",
            _spread(one.bare_reset),
            _spread(one.ours),
            f"{p99(one.ours) / p99(one.bare_reset):.2f} x",
            f"{median(one.detection):.2f} / {max(one.detection):.2f}" if one.detection else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if spinning is not None:
        lines += [
            "",
            f"{WORKERS} workers whose Python never rests, on {len(os.sched_getaffinity(0))} CPUs; from the reset until",
            "",
            "| | p50 / p99, ms |",
            "|---|---|",
            f"| (a bare page is changed, no reset) the last one has seen it | {_spread(spinning.page)} |",
            f"| the client thread of the last one knows | {_spread(spinning.told)} |",
            f"| a call of the last one knows | {_spread(spinning.calls)} |",
            f"| a call of one of them knows | {_spread(spinning.bell)} |",
            f"| a call of one of them knows, without the bell | {_spread(spinning.no_bell)} |",
        ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer events: a first impression in two minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to FILE")
    options = parser.parse_args()
    sizes = [(3, 8), (200, 1000)] if options.quick else [(3, 8), (50, 50), (100, 100), (200, 200), (3, 250), (3, 1000), (200, 1000)]
    events, freezes, span = (40, 2, 5.0) if options.quick else (100, 10, 20.0)
    points = []
    with LocalAurora(instances=1, flavor="pg", address_names=True, max_connections=400) as lab:
        for hosts, subscribers in sizes:
            points.append(measure_point(lab, hosts, subscribers, events=events, freezes=freezes, span=span))
            print(as_markdown(points[-1:], None).splitlines()[2], file=sys.stderr, flush=True)
        spinning = measure_all_spinning(lab, events)
    print(as_markdown(points, spinning))
    if options.json:
        document = {"points": [asdict(point) for point in points], "spinning": asdict(spinning)}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
