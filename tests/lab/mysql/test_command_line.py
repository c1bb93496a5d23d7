"""A MySQL lab from a shell, and through its pytest fixture, as users have them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from wrapper.testing import LabClient

from ..test_command_line import run
from .helpers import WRITER, connect, one


def test_up_and_commands() -> None:
    directory = Path(f"/tmp/aurora-lab-mysql-{os.getpid()}")
    there = ("--directory", str(directory))
    command = [sys.executable, "-m", "wrapper.testing", "up", "--engine", "mysql", "--instances", "2", *there]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while not lines[-1].startswith("instance-2"):
            lines.append(process.stdout.readline())
            assert lines[-1], "`up` ended early"
        lab = LabClient(directory)
        assert lab.engine == "mysql"
        assert f"export DATABASE_DSN='{lab.dsn()}'" in "".join(lines)
        assert "export DATABASE_ENGINE=mysql\n" in lines
        words = dict(word.split("=") for word in lab.dsn(by_address=True).split())
        with closing(connect(**words)) as connection:
            assert one(connection, WRITER) == "instance-1"
        assert "instance-1 -> instance-2" in run("failover", *there)
        run("refuse-logins", "reader", *there)
        assert "refuses logins" in run("status", *there)
        run("reset", *there)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert not directory.exists()


FIXTURE = """
import os, mysql.connector

def test_one(aurora_mysql):
    assert os.environ["AWS_WRAPPER_HOSTS_FILE"] == str(aurora_mysql.hosts_file)
    aurora_mysql.kill("writer")

def test_two(aurora_mysql, aurora_mysql_lab):
    assert aurora_mysql is aurora_mysql_lab
    with mysql.connector.connect(**aurora_mysql.parameters(by_address=True)) as connection:
        assert connection.is_connected()
"""


def test_the_fixture_for_the_tests_of_others(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(FIXTURE)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--lab-instances", "1", "--rootdir", str(tmp_path)]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, timeout=90, check=False, cwd=tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from wrapper.testing import LabError
    from wrapper.testing.engine import make_engine
    from wrapper.testing.options import Options

    monkeypatch.delitem(sys.modules, "wrapper.testing.mysql.engine", raising=False)
    monkeypatch.delitem(sys.modules, "wrapper.testing.mysql.server", raising=False)
    monkeypatch.setitem(sys.modules, "mysql.connector", None)
    with pytest.raises(LabError, match=r"aws-shared-monitor-wrapper\[mysql\]"):
        make_engine(Options(str(tmp_path), flavor="aurora-mysql"), "", "")
