"""A directory that was cleaned away while workers use it: who takes the monitor's place hears nothing, and a new one is made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .harness import REPOSITORY, exists, run
from .servers import eventually
from .users import ALICE, BOB, as_user, python

CANARY = "c4nary-of-alice"
# Seconds.
PATIENCE = 120.0

# A worker with a login. Says when it hears a monitor; ends with its input.
WORKER = """
import json, logging, sys, threading, time
logging.basicConfig(level="WARNING", format="%(message)s")
from wrapper.monitor.messages import Offer, Settings, Watch, WatchRequest
from wrapper.monitor.process import current_client
from wrapper.monitor.state import Topology
client = current_client(sys.argv[1])
watch = Watch("postgresql", "127.255.0.9", 5432)
login = Offer({"user": "a", "password": sys.argv[2]})
request = WatchRequest(client.identity, watch, "pg", "psycopg", Settings(), Topology(), login)
client.watches[watch.key] = request
client.start()
def tell():
    was = None
    while True:
        now = client.is_live and bool(client.state.confirmed), client.state.epoch
        if now != was:
            print(json.dumps(now), flush=True)
            was = now
        time.sleep(0.01)
threading.Thread(target=tell, daemon=True).start()
sys.stdin.read()
"""

# Serves both sockets of a directory of its own, and writes down all that it is sent. It says that everything is well.
IMPOSTOR = """
import os, sys, zmq
from wrapper.monitor.messages import *
directory, log = sys.argv[1], open(sys.argv[2], "ab", buffering=0)
os.umask(0)
os.mkdir(directory, 0o777)
context = zmq.Context()
control, events = context.socket(zmq.ROUTER), context.socket(zmq.XPUB)
events.setsockopt(zmq.XPUB_WELCOME_MSG, HEARTBEAT_TOPIC.encode())
control.bind(f"ipc://{directory}/control-1.sock")
events.bind(f"ipc://{directory}/events-1.sock")
log.write(b"listening\\n")
while True:
    events.send_multipart([HEARTBEAT_TOPIC.encode(), encode(Heartbeat(0.0, 1, {}), epoch=1 << 40, topic=HEARTBEAT_TOPIC, seq=1)])
    for socket in (control, events):
        if socket.poll(50):
            log.write(b"heard " + b" ".join(socket.recv_multipart()) + b"\\n")
"""

ASKER = """
import logging, sys
from pathlib import Path
from monitor_service.client import MonitorConnection
from wrapper.monitor.messages import StatusRequest
from wrapper.monitor.paths import MonitorPaths
said = []
logging.getLogger("wrapper.monitor.peer").addFilter(lambda record: said.append(record.getMessage()))
with MonitorConnection(MonitorPaths(Path(sys.argv[1])), has_login=True) as connection:
    while not said:
        try:
            print("answered by", connection.ask(StatusRequest(), timeout=0.1))
        except TimeoutError:
            pass
print(*said)
"""


@contextmanager
def running(*command: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that is heard for so long as the machine may need, and no longer: reading from it ends then."""
    streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, **streams, **settings)
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.communicate()


def of_user(uid: int, directory: Path) -> dict[str, Any]:
    """What starts a process of a user with a temp directory."""
    settings = as_user(uid)
    settings["env"] |= {"TMPDIR": str(directory)}
    return settings


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory like /tmp: anybody may make entries, and remove his own."""
    with tempfile.TemporaryDirectory(prefix="tmp-") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


def says(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(f"it ended, or was given up after {PATIENCE:g} s: {process.communicate()[1]}")
    return json.loads(line)


def test_a_worker_tells_its_login_to_nobody_who_took_the_monitors_place(temporary: Path) -> None:
    ours = temporary / f"aws-shared-monitor-{ALICE}"
    log = temporary / "heard"
    log.touch()
    log.chmod(0o666)
    with running(python(), "-c", WORKER, "attach", CANARY, **of_user(ALICE, temporary)) as worker:
        assert says(worker) == [False, 0]
        eventually(ours.is_dir, "the directory", timeout=PATIENCE)
        # Somebody cleans up what seems to be unused, and a stranger is quick.
        ours.rmdir()
        with running(python(), "-c", IMPOSTOR, str(ours), str(log), **of_user(BOB, temporary)):
            eventually(lambda: "listening" in log.read_text(), "the impostor to listen", timeout=PATIENCE)
            assert worker.stderr is not None
            line = worker.stderr.readline()
            assert (
                line == f"what listens in {ours} is of uid {BOB}, not of uid {ALICE}: nothing is sent to it; "
                "working without the shared monitor\n"
            )
            # The command line, which sends a login as well.
            done = subprocess.run(
                [python(), "-c", ASKER, str(ours)], capture_output=True, text=True, timeout=PATIENCE, check=False, **as_user(ALICE)
            )
            assert (done.stdout, done.stderr) == (line, "")
        rest, log_of_worker = worker.communicate(timeout=PATIENCE)
        assert rest == "", "the impostor was taken for a monitor"
        assert log_of_worker == "", "it says so once"
    assert "heard" not in log.read_text()
    assert CANARY not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("victims", ["*", "*.sock", "*.lock"])
def test_what_was_cleaned_away_is_made_again(directory: Path, victims: str) -> None:
    ours = directory / "d"
    environment = {**os.environ, "AWS_WRAPPER_MONITOR_DIR": str(ours)}
    with running(sys.executable, "-c", WORKER, "auto", CANARY, cwd=REPOSITORY, env=environment) as worker:

        def watched_by_another(epoch: int) -> int:
            while not (said := says(worker))[0] or said[1] <= epoch:
                pass
            return int(said[1])

        def pid() -> int:
            return int(json.loads(run(ours, "status", "--json").stdout)["pid"])

        try:
            first = watched_by_another(0)
            old = pid()
            for path in ours.glob(victims):
                path.unlink()
            if victims == "*":
                ours.rmdir()
            assert watched_by_another(first) > first
            assert pid() != old
            eventually(lambda: not exists(old), "the monitor without a directory to end", timeout=PATIENCE)
            worker.communicate(timeout=PATIENCE)
        finally:
            run(ours, "stop")
    assert worker.returncode == 0
