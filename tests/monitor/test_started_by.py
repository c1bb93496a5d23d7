"""The examples for service managers start a monitor: their very commands are run."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wrapper.monitor.paths import DIRECTORY_VARIABLE, MonitorPaths
from wrapper.testing.processes import children

from .harness import REPOSITORY
from .servers import eventually

EXAMPLES = REPOSITORY / "examples"
BIN = Path(sys.prefix) / "bin"
# A process that is number 1 and sees none of ours, with the rights of the caller alone.
_CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _has_namespaces() -> bool:
    try:
        return subprocess.run([*_CONTAINER, "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _in_exec_form(dockerfile: str, instruction: str) -> list[str]:
    found = re.search(rf"^{instruction}\b.*?(\[.*\])$", dockerfile, re.MULTILINE)
    assert found is not None, f"{instruction} is not in exec form"
    words = ast.literal_eval(found[1])
    assert isinstance(words, list)
    return words


@contextmanager
def _contained(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen([*_CONTAINER, *command], env=environment, cwd="/", stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(not _has_namespaces(), reason="needs unshare(1) and the right to make namespaces")
def test_the_container_s_commands(directory: Path, tmp_path: Path) -> None:
    dockerfile = (EXAMPLES / "container" / "Dockerfile").read_text(encoding="utf-8")
    assert f"ENV {DIRECTORY_VARIABLE}=" in dockerfile
    # As bare as a container's: no HOME, no locale, no XDG_RUNTIME_DIR.
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", DIRECTORY_VARIABLE: str(directory)}
    log = tmp_path / "log"
    healthcheck = _in_exec_form(dockerfile, "HEALTHCHECK")
    assert subprocess.run(healthcheck, env=environment, check=False, capture_output=True).returncode != 0, "not started yet"
    with _contained(_in_exec_form(dockerfile, "ENTRYPOINT"), environment, log) as process:
        eventually(lambda: "STARTED" in log.read_text(), "the monitor to serve")
        (started,) = (line for line in map(json.loads, log.read_text().splitlines()) if line.get("event") == "STARTED")
        assert started["evidence"].startswith("pid 1, epoch ")
        done = subprocess.run(healthcheck, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        # Number 1 is spared every signal that it does not handle.
        (first,) = children(process.pid)
        os.kill(first, signal.SIGTERM)
        assert process.wait(20) == 0
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "STOPPED"
    assert not MonitorPaths(directory).control.exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("unit", sorted((EXAMPLES / "systemd").glob("*.service")), ids=lambda path: path.stem)
def test_systemd_understands_the_units(unit: Path, tmp_path: Path) -> None:
    text, number = re.subn(r"^ExecStart=/opt/[^ ]+/bin/", f"ExecStart={BIN}/", unit.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert number == 1
    (tmp_path / unit.name).write_text(text, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(tmp_path / unit.name)], check=False, capture_output=True, text=True)
    about_it = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, about_it) == (0, []), done.stderr


def test_the_procfile_s_monitor(directory: Path, tmp_path: Path) -> None:
    """As a Procfile's runner does it: by a shell, in the Procfile's directory."""
    lines = dict(line.split(": ", 1) for line in (REPOSITORY / "Procfile").read_text(encoding="utf-8").splitlines())
    assert list(lines) == ["database", "monitor", "web"]
    _, _, command = lines["monitor"].partition(" -- ")
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            shlex.split(command),
            cwd=REPOSITORY,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", DIRECTORY_VARIABLE: str(directory)},
        )
    try:
        eventually(lambda: "STARTED" in log.read_text(), "the monitor to serve")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
