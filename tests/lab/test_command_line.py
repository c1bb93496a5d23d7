"""The lab from a shell, and through its pytest fixtures, as users have them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from wrapper.testing import LabClient
from wrapper.testing.processes import processes_inside

from .helpers import PATIENCE, eventually, login, one


def run(*arguments: str, status: int = 0) -> str:
    """Run a command of the lab; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "wrapper.testing", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


@pytest.fixture(scope="module")
def shell_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path, list[str]]]:
    """A lab started by `up`: its process, its directory and the lines it printed until the cluster was there."""
    directory = Path(f"/tmp/aurora-lab-test-{os.getpid()}")
    command = [sys.executable, "-m", "wrapper.testing", "up", "--instances", "2", "--directory", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while not lines[-1].startswith("instance-2"):
            lines.append(process.stdout.readline())
            assert lines[-1], "`up` ended early"
        yield process, directory, lines
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_every_command(shell_lab: tuple[subprocess.Popen[str], Path, list[str]]) -> None:
    _, directory, lines = shell_lab
    there = ("--directory", str(directory))
    exported = dict(line.removeprefix("export ").strip().split("=", 1) for line in lines if line.startswith("export "))
    assert exported["AWS_WRAPPER_HOSTS_FILE"] == str(directory / "hosts")
    assert run("env", *there).splitlines() == [line.strip() for line in lines if line.startswith("export ")]

    lab = LabClient(directory)
    with login(lab, "instance-1") as connection:
        run("hang", "writer", *there)
        assert json.loads(run("status", "--json", *there))["instances"][0]["state"] == "hung"
        run("resume", "instance-1", *there)
        assert one(connection, "SELECT 1") == 1
        run("drop-sessions", "writer", *there)
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")
    for switch in ("refuse-logins", "too-many-connections"):
        run(switch, "reader", *there)
        with pytest.raises(psycopg.OperationalError, match=r"rejects|slots"):
            login(lab, "instance-2")
        run(switch, "reader", "--off", *there)
        login(lab, "instance-2").close()
    run("kill", "instance-2", *there)
    assert "instance-2" in (status := run("status", *there))
    assert "down" in status
    run("start", "instance-2", *there)
    run("stop", "instance-2", *there)
    run("reset", *there)
    assert "instance-1 -> instance-2" in run("failover", *there)
    assert LabClient(directory).writer.id == "instance-2"
    assert "instance-2 -> instance-1" in run("upgrade", *there)
    run("rejoin", "instance-2", *there)
    assert "is the writer" in run("rejoin", "writer", *there, status=1)


def test_programs_run_in_the_labs_environment(shell_lab: tuple[subprocess.Popen[str], Path, list[str]]) -> None:
    _, directory, _ = shell_lab
    script = "import os; print(os.environ['AWS_WRAPPER_HOSTS_FILE'], os.environ['DATABASE_DSN'], sep='\\n')"
    printed = run("exec", "--directory", str(directory), "--", sys.executable, "-c", script)
    assert printed.splitlines() == [str(directory / "hosts"), LabClient(directory).dsn()]


def test_a_second_lab_in_the_same_place_is_refused(shell_lab: tuple[subprocess.Popen[str], Path, list[str]]) -> None:
    _, directory, _ = shell_lab
    assert "is a lab running there" in run("up", "--directory", str(directory), status=1)
    assert LabClient(directory).status()


def test_down_ends_what_up_started() -> None:
    directory = Path(f"/tmp/aurora-lab-down-{os.getpid()}")
    with subprocess.Popen(
        [sys.executable, "-m", "wrapper.testing", "up", "--instances", "1", "--directory", str(directory)],
        stdout=subprocess.DEVNULL,
    ) as process:
        eventually(lambda: (directory / "control.sock").exists(), "the lab to be up", timeout=2 * PATIENCE)
        run("down", "--directory", str(directory))
        assert not directory.exists()
        assert not processes_inside(directory)
        assert process.wait(30) == 0
    assert "no lab is running" in run("status", "--directory", str(directory), status=1)


FIXTURES = """
import os, psycopg

def test_one(aurora):
    assert len(aurora.instances) == 2
    assert os.environ["AWS_WRAPPER_HOSTS_FILE"] == str(aurora.hosts_file)
    aurora.kill("writer")

def test_two(aurora, aurora_lab):
    assert aurora is aurora_lab
    with psycopg.connect(aurora.dsn(by_address=True)) as connection:
        assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
"""


def test_fixtures_for_the_tests_of_others(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(FIXTURES)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--lab-instances", "2", "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=90, check=False, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_loads_nothing_heavy() -> None:
    script = (
        "import sys, pytest; before = set(sys.modules); import wrapper.testing.pytest_plugin\n"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('wrapper')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "psycopg" not in done.stdout
    assert "zmq" not in done.stdout
    assert "asyncio" not in done.stdout
