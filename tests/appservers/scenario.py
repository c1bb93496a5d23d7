"""What every cell has to pass: it connects, is watched, notices a hung server, survives the failover, and leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from monitor_service.client import MonitorConnection, NoMonitorError, find
from tests.appservers.cells import OF_THE_SERVER, ON_DEMAND, WORKERS, Cell
from tests.appservers.servers import Server, running
from tests.integration.conftest import eventually
from wrapper.monitor.messages import Message, Ok, Status, StatusRequest, StopRequest
from wrapper.monitor.paths import DIRECTORY_VARIABLE
from wrapper.testing import LocalAurora
from wrapper.testing.processes import is_alive

MONITOR = "aws-shared-monitor"
PROMOTE_AFTER = 0.5
_MOST_ORDERS = 16
_ATTEMPTS = 8
_FORK_WARNING = "use of fork() may lead to deadlocks in the child"
_WAITING_INSERTS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO orders%'"


@dataclass(frozen=True)
class Seen:
    """What was seen of one cell. `monitoring_sessions`: of all workers together. `outage`: seconds from the hang until the last
    call that was in flight was answered, the promotion's delay included."""

    workers: int
    monitors: int
    monitoring_sessions: int
    in_flight: int
    outage: float


class Stage:
    """A running server, the cluster it uses, and the monitor that it shares."""

    def __init__(self, cell: Cell, server: Server, lab: LocalAurora, directory: Path) -> None:
        self.cell = cell
        self.server = server
        self.lab = lab
        self.directory = directory
        self._numbers = itertools.count()
        self._pool = ThreadPoolExecutor(_MOST_ORDERS)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def start_orders(self, number: int) -> list[Future[dict[str, Any]]]:
        """Place so many orders at the same time."""
        return [self._pool.submit(self._place, f"order-{next(self._numbers)}") for _ in range(number)]

    def _place(self, key: str) -> dict[str, Any]:
        return {**self.server.place(key), "answered": time.monotonic()}

    def workers(self, number: int = WORKERS, besides: frozenset[int] = frozenset()) -> frozenset[int]:
        """Place orders until so many processes have answered, those in `besides` not counted; return them."""
        found: set[int] = set()

        def all_have_answered() -> bool:
            for order in self.start_orders(2 * WORKERS * self.cell.calls):
                try:
                    answer = order.result()
                except (OSError, ValueError):
                    continue  # it starts, or its process has just gone
                assert "error" not in answer, f"{answer}\n{self.server.said()}"
                if answer["worker"] not in besides:
                    found.add(answer["worker"])
            assert self.server.is_running(), f"the server ended:\n{self.server.said()}"
            return len(found) >= number

        eventually(all_have_answered, f"{number} workers to answer")
        return frozenset(found)

    def status(self) -> dict[str, Any]:
        """Return the monitor's status, {} when none answers."""
        answer = self._ask(StatusRequest())
        return answer.document if isinstance(answer, Status) else {}

    def stop_monitor(self) -> None:
        """Ask the monitor to end."""
        assert isinstance(self._ask(StopRequest()), Ok)

    def _ask(self, message: Message) -> Message | None:
        try:
            with MonitorConnection(find(self.directory)) as connection:
                return connection.ask(message)
        except (NoMonitorError, TimeoutError):
            return None

    def are_watched(self, workers: frozenset[int]) -> bool:
        """Whether the monitor knows these processes, those that live, with open connections each, and has proved a writer."""
        status = self.status()
        workers = frozenset(pid for pid in workers if is_alive(pid))
        connected = {lease["pid"] for lease in status.get("leases", []) if lease["connections"]}
        return workers <= connected and any(cluster["writer"] for cluster in status["clusters"])

    def leases(self) -> set[int]:
        """Return the processes that the monitor knows."""
        return {lease["pid"] for lease in self.status().get("leases", [])}

    def monitors(self) -> int:
        """Return how many monitors run."""
        commands = self.server.processes().values()
        # uwsgi's own command line tells what daemon it shall attach.
        return sum(("monitor_service" in command or MONITOR in command) and "/uwsgi " not in command for command in commands)

    def sessions(self, *, of_monitor: bool) -> int:
        """Return how many sessions the monitor, or the application, has on all servers that answer."""
        running = [entry["id"] for entry in self.lab.status()["instances"] if entry["state"] == "running"]
        return sum(
            (session["application_name"] == MONITOR) is of_monitor
            for instance in running
            for session in self.lab.sessions(instance)
        )


def play(cell: Cell, lab: LocalAurora, directory: Path, spool: Path) -> Seen:
    """Run the scenario; `AssertionError` says what is not as it should be. `directory`: for the monitor, empty."""
    # Not so quick that a busy machine makes a healthy host look silent.
    settings = "failure_detection_interval_ms=100 failure_detection_count=6"
    dsn = f"{lab.dsn()} {settings} cluster_instance_host_pattern={lab.instance_host_pattern}"
    environment = {**lab.environment(), "DATABASE_DSN": dsn, DIRECTORY_VARIABLE: str(directory)}
    with running(cell, environment, spool) as server:
        stage = Stage(cell, server, lab, directory)
        try:
            return _play(stage)
        except AssertionError as error:
            raise AssertionError(f"{cell.name}: {error}\n{server.said()}") from error
        finally:
            stage.close()


def _play(stage: Stage) -> Seen:
    workers = stage.workers()
    eventually(lambda: stage.are_watched(workers), "the monitor to know every worker")
    if stage.cell.event:
        workers = EVENTS[stage.cell.event](stage, workers)
        eventually(lambda: stage.are_watched(workers), "the monitor to know the new workers")
    # A worker may have been faster than the server's own monitor, and have started one that hands over to it.
    eventually(lambda: stage.monitors() == 1, "just one monitor to run")
    needed = len(stage.lab.instances) + 1
    # While a monitor looks for a writer, as it may at its start, it has more.
    eventually(lambda: stage.sessions(of_monitor=True) == needed, f"{needed} monitoring sessions, as one monitor needs")
    in_flight, outage = _hang(stage)
    if stage.cell.event != "max_requests":
        assert stage.workers() == workers, "a worker was lost in the failover"
    _leave(stage)
    return Seen(len(workers), 1, needed, in_flight, outage)


def _hang(stage: Stage) -> tuple[int, float]:
    """Hang the writer while calls wait for it, and promote another; return how many calls there were and when all were answered."""
    lab = stage.lab
    with psycopg.connect(lab.admin_dsn(lab.writer.id)) as admin:
        orders = _wait_for_lock(stage, admin)
        struck = time.monotonic()
        lab.hang("writer")
        lab.promote_later(PROMOTE_AFTER, rejoin=False)
        answers = [order.result() for order in orders]
        admin.pgconn.finish()  # a hung server answers nobody, the COMMIT of this block neither
    lab.wait_for_promotion()
    for answer in answers:
        assert answer.get("host") == lab.writer.id, f"not on the new writer: {answer}"
    failed_over = [answer for answer in answers if "FailoverSuccessError(unknown)" in answer["story"]]
    assert len(failed_over) == len(orders), f"{len(failed_over)} calls failed over, {len(orders)} were in flight"
    return len(failed_over), max(answer["answered"] for answer in failed_over) - struck


def _wait_for_lock(stage: Stage, admin: psycopg.Connection[Any]) -> list[Future[dict[str, Any]]]:
    """Return as many orders as the workers take at a time, all of them waiting for a lock that `admin` holds."""
    calls = WORKERS * stage.cell.calls
    with psycopg.connect(stage.lab.admin_dsn(stage.lab.writer.id), autocommit=True) as observer:

        def all_wait() -> bool:
            row = observer.execute(_WAITING_INSERTS).fetchone()
            return row is not None and row[0] == calls

        for _ in range(_ATTEMPTS):
            admin.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            orders = stage.start_orders(calls)
            try:
                eventually(all_wait, f"{calls} calls to be in flight", 3)
            except AssertionError:
                # A server may leave an order to a worker that is busy while another has nothing to do: once more.
                admin.rollback()
                wait(orders)
            else:
                return orders
    raise AssertionError(f"never {calls} calls in flight")


def _leave(stage: Stage) -> None:
    """Stop the server: no process, no session and no lease may be left; then the monitor goes without a trace."""
    server = stage.server
    server.stop()
    status = server.finish()
    assert status == 0, f"exit status {status}"
    # From Python 3.12 on. The other servers have threads of their own when they fork.
    if stage.cell.server in ("gunicorn", "multiprocessing"):
        assert _FORK_WARNING not in server.said(), "a fork warned of threads"
    stays = eventually(lambda: _left_processes(stage), f"processes to end: {server.processes()}", 20)
    eventually(lambda: stage.sessions(of_monitor=False) == 0, "the application's sessions to end", 20)
    if stays == ON_DEMAND:
        # Longer than a lease lasts: that of a worker which was killed, or had no time on a busy machine, lapses.
        eventually(lambda: not stage.leases(), "all leases to be given up")
        stage.stop_monitor()
    eventually(lambda: not server.processes(), f"the monitor to end: {server.processes()}", 20)
    eventually(lambda: stage.sessions(of_monitor=True) == 0, "the monitor's sessions to end", 20)
    left = [path.name for path in stage.directory.iterdir() if path.is_socket()]
    assert not left, f"sockets are left: {left}"


def _left_processes(stage: Stage) -> str:
    """Return what is left of a server that has ended: ON_DEMAND when that is a monitor that waits for other workers, the cell's
    monitor when nothing is, as it should be where the monitor ends with the server; "" while it is neither yet."""
    left = stage.server.processes()
    if not left and stage.cell.monitor in OF_THE_SERVER:
        return stage.cell.monitor
    # One that belongs to the server may take a moment longer than the server itself: it is not the one that stays.
    return ON_DEMAND if len(left) == 1 and stage.status().get("mode") == "on demand" else ""


# -- what happens to workers -----------------------------------------------------------------------------------------------------


def _reload(stage: Stage, workers: frozenset[int]) -> frozenset[int]:
    stage.server.signal(signal.SIGHUP)
    return stage.workers(besides=workers)


def _restart(stage: Stage, workers: frozenset[int]) -> frozenset[int]:
    """gunicorn: a second arbiter beside the first, which then ends."""
    server = stage.server
    server.signal(signal.SIGUSR2)
    new = stage.workers(besides=workers)
    parents = {_parent(pid) for pid in new}
    assert len(parents) == 1
    assert server.process.pid not in parents, "it is the old arbiter's worker"
    server.process.terminate()
    server.process.wait(20)
    server.follow(parents.pop())
    return stage.workers()


def _recycle(stage: Stage, workers: frozenset[int]) -> frozenset[int]:
    """Workers that end after some orders: a third generation has to be served as the first was."""
    second = stage.workers(besides=workers)
    return stage.workers(besides=workers | second)


def _kill_one(stage: Stage, workers: frozenset[int]) -> frozenset[int]:
    """All of them are busy: of Celery's idle ones, one holds the lock of the queue that they share, and would take it along."""
    killed = min(workers)
    with psycopg.connect(stage.lab.admin_dsn(stage.lab.writer.id)) as admin:
        orders = _wait_for_lock(stage, admin)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: not is_alive(killed), "the worker to be dead")
    served = [order.result()["worker"] for order in orders if order.exception() is None]
    assert killed not in served, "the dead worker has answered"
    if stage.cell.server == "celery":
        assert len(served) == len(orders), "an order whose worker was killed was not run again"
    new = stage.workers(1, besides=workers)
    return (workers - {killed}) | new


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


EVENTS: dict[str, Callable[[Stage, frozenset[int]], frozenset[int]]] = {
    "reload (HUP)": _reload,
    "graceful restart (USR2)": _restart,
    "max_requests": _recycle,
    "kill -9 of a worker": _kill_one,
}
