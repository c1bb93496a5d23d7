"""One monitor follows another under load: nobody is judged by the gap, and every worker is watched again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wrapper
from tests.drivers import ask
from tests.integration.conftest import client, drivers, eventually
from tests.integration.test_monitor_faults import Load, monitor_pid, monitor_status
from wrapper.monitor.state import HostHealth
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
# So patient that a busy machine cannot make a server look silent.
PATIENT = {"failure_detection_interval_ms": 3000, "failure_detection_count": 3}
Start = Callable[..., subprocess.Popen[bytes]]
# What a monitor says of a host that it holds for troubled.
VERDICTS = {"SILENT", "REFUSED", "DOWN?", "OWN TROUBLE", "SUSPECTED", "REPORTED", "CONFLICT", "NEEDS LOGIN"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "monitor_service", *arguments]


@pytest.fixture
def start(aurora: LocalAurora, monitor_directory: Path) -> Iterator[Start]:
    """Starts monitors by hand, in the lab's environment."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        with (monitor_directory / f"log-{len(started)}").open("wb") as log:
            started.append(subprocess.Popen(command("run", *arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return started[-1]

    yield start
    for one in started:
        one.terminate()
        one.wait(20)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["take over", "drain", "restart"])
def test_a_hand_over_is_noticed_by_nobody(how: str, start: Start, connect: Connect, aurora: LocalAurora) -> None:
    first = start()
    eventually(lambda: monitor_status().get("pid") == first.pid, "the first monitor")
    # Lest this process starts one of its own in between: it would hand over as well, a moment after the worker was watched by it.
    connection = connect(monitor_mode="attach", **PATIENT)
    watch = connection.plugin_service.watch.key

    def is_watched() -> bool:
        cluster = client().state.by_watch(watch)
        return cluster is not None and cluster.topic in client().state.confirmed and len(cluster.health) >= 3

    eventually(is_watched, "the first monitor to watch")
    assert not client().may_start
    epoch = client().state.epoch
    writer = aurora.writer.id
    with Load(connection) as load:
        if how == "take over":
            second = start("--take-over")
        elif how == "drain":
            second = start()
            assert subprocess.run(command("drain"), capture_output=True, timeout=60).returncode == 0
        else:
            assert subprocess.run(command("stop"), capture_output=True, timeout=60).returncode == 0
            second = start()
        eventually(lambda: client().state.epoch > epoch and client().is_live and is_watched(), "the second monitor to watch")
        assert first.wait(20) == 0
        done = load.done
        eventually(lambda: load.done > done + 10, "the load to go on")
    assert load.errors == []
    assert connection.plugin_service.physical(connection.target_connection).handle.aborted_by is None
    status = eventually(monitor_status, "the second monitor to answer")
    assert status["pid"] == second.pid
    assert [lease["pid"] for lease in status["leases"]] == [client().pid]
    assert not VERDICTS & {entry["event"] for entry in status["journal"]}, status["journal"]
    cluster = client().state.by_watch(watch)
    assert cluster is not None
    assert str(cluster.topology.writer).startswith(f"{writer}.")


@drivers("psycopg", slow=("mysql-extension",))
def test_the_next_monitor_is_told_what_failed_before_it(watched: Connect, lab: LocalAurora) -> None:
    """A host that restarted under the last monitor is well in the eyes of this one; connections to its former life are not."""
    connection = watched()
    key = connection.plugin_service.current_host_info.key
    writer = lab.writer.id

    def health() -> HostHealth:
        cluster = client().state.by_watch(connection.plugin_service.watch.key)
        assert cluster is not None
        return cluster.health[key]

    lab.kill(writer)
    eventually(lambda: health().is_failing, "the end of the writer to be known")
    lab.start(writer)
    eventually(lambda: health().failed_before is not None, "its return to be known")
    epoch = client().state.epoch
    os.kill(monitor_pid(), signal.SIGKILL)
    eventually(lambda: client().state.epoch > epoch and client().is_live and client().state.confirmed, "another monitor to watch")
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        ask(connection, "SELECT 1")
    assert caught.value.outcome == "not_sent"


def test_a_removed_directory_is_made_again(watched: Connect, monitor_directory: Path) -> None:
    """Temp directories are swept."""
    connection = watched()
    epoch = client().state.epoch
    with Load(connection) as load:
        shutil.rmtree(monitor_directory)
        eventually(lambda: client().state.epoch > epoch and client().state.confirmed, "a monitor in a new directory to watch")
    assert load.errors == []


def test_a_monitor_that_comes_too_late_makes_no_directory(tmp_path: Path) -> None:
    """Whoever started it has removed the directory since, and would never ask it."""
    place = tmp_path / "gone"
    done = subprocess.run(command("run", "--on-demand", "--directory", str(place)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith(f"aws-shared-monitor: monitor directory '{place}' cannot be used: No such file")
    assert not place.exists()
