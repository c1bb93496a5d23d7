"""Nothing survives: not the owner's end, not the controller's, with and without namespaces around the servers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wrapper.testing import LabError, LocalAurora
from wrapper.testing.local import sweep
from wrapper.testing.mysql.binaries import VARIABLE as MARIADB_VARIABLE
from wrapper.testing.mysql.binaries import find_programs
from wrapper.testing.options import ENGINES
from wrapper.testing.postgresql.binaries import VARIABLE, find_binaries
from wrapper.testing.processes import children, processes_inside

from .helpers import eventually

# The owner of a lab in which an instance hangs: a stopped process outlives its parent's end unless somebody kills it.
OWNER = """
import os, sys, time
from wrapper.testing import LocalAurora
with LocalAurora(instances=1, engine=os.environ["LAB_ENGINE"]) as lab:
    lab.hang("writer")
    print(lab.directory, flush=True)
    if sys.argv[1:] == ["forked"] and os.fork() == 0:
        print("forked", flush=True)
        time.sleep(600)
    time.sleep(600)
"""


class Owner:
    """A process that owns a lab, which it was told the directory of."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, *arguments], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            self.end()
            raise AssertionError("the lab did not start; its owner's standard error says why")
        self.directory = Path(line)
        assert len(processes_inside(self.directory)) >= 2
        self.segments = {segment for file in self.directory.glob("*/data/postmaster.pid") for segment in _segment(file)}

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def assert_nothing_is_left(self) -> None:
        eventually(lambda: not processes_inside(self.directory), f"the servers in {self.directory} to end")
        eventually(lambda: not self.directory.exists(), f"{self.directory} to be removed")
        assert not self.segments & _shared_memory(), "a shared memory segment is left"


def _segment(pid_file: Path) -> list[tuple[int, int]]:
    key, number = pid_file.read_text().splitlines()[6].split()
    return [(int(key), int(number))]


def _shared_memory() -> set[tuple[int, int]]:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return {(int(line.split()[0]), int(line.split()[1])) for line in lines}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["namespaces", "none"])
def environment(request: pytest.FixtureRequest, engine: str, tmp_path: Path) -> dict[str, str]:
    """The environment of an owner; without `unshare` in the PATH no namespaces are made."""
    inherited = {**os.environ, "LAB_ENGINE": engine}
    if request.param == "namespaces":
        if subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode != 0:
            pytest.skip("this machine does not let us make namespaces")
        return inherited
    programs = {VARIABLE: str(find_binaries())} if engine == "postgresql" else {MARIADB_VARIABLE: str(find_programs().base)}
    return {**inherited, "PATH": str(tmp_path), **programs}


@pytest.fixture
def owner(environment: dict[str, str]) -> Iterator[Owner]:
    owner = Owner(environment)
    yield owner
    owner.end()
    sweep()


def test_a_killed_owner_leaves_nothing_even_if_a_fork_of_it_lives(environment: dict[str, str]) -> None:
    owner = Owner(environment, "forked")
    try:
        assert owner.process.stdout is not None
        assert owner.process.stdout.readline() == "forked\n"
        owner.process.kill()
        owner.assert_nothing_is_left()
    finally:
        owner.end()


def test_a_killed_controller_leaves_nothing_for_the_next_lab(owner: Owner) -> None:
    (controller,) = children(owner.process.pid)
    os.kill(controller, signal.SIGKILL)
    owner.process.kill()  # so that it cannot clear up either
    owner.process.wait()

    def is_swept() -> bool:
        sweep()  # the kernel frees the lock when the last of the killed processes has gone
        return not owner.directory.exists()

    eventually(is_swept, f"{owner.directory} to be swept")
    owner.assert_nothing_is_left()


def test_an_owner_that_lost_its_controller_clears_up(owner: Owner) -> None:
    (controller,) = children(owner.process.pid)
    os.kill(controller, signal.SIGKILL)
    owner.process.send_signal(signal.SIGINT)
    owner.process.wait()
    owner.assert_nothing_is_left()


def test_a_running_lab_is_not_swept() -> None:
    with LocalAurora(instances=1) as lab:
        sweep()
        assert lab.directory.is_dir()
        assert lab.status()["writer"] == "instance-1"
    assert not lab.directory.exists()
    with pytest.raises(LabError, match="no lab is running"):
        lab.status()


def test_a_forked_child_does_not_end_its_parents_lab() -> None:
    with LocalAurora(instances=1) as lab:
        pid = os.fork()
        if pid == 0:
            lab.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert lab.status()["writer"] == "instance-1"


def test_a_lab_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("postgres", "pg_basebackup", "pg_rewind"):
        (programs / name).symlink_to(find_binaries() / name)
    (programs / "initdb").write_text("#!/bin/sh\necho 'out of luck' >&2\nexit 1\n")
    (programs / "initdb").chmod(0o755)
    for folder in (programs, tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o711)  # the account of the servers has to get in
    monkeypatch.setenv(VARIABLE, str(programs))
    directory = tmp_path / "lab"
    with pytest.raises(LabError, match=r"initdb failed for instance-1: out of luck"):
        LocalAurora(directory=directory)
    assert not directory.exists()
