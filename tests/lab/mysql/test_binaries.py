"""Whose MariaDB, and as whom: the system's, a fetched one, as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from wrapper.testing import LabError
from wrapper.testing.mysql.binaries import VARIABLE, find_programs


def test_a_folder_without_a_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(LabError, match=rf"{VARIABLE}=.*apt-get install mariadb-server"):
        find_programs()


def test_a_server_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = tmp_path / "sbin" / "mariadbd"
    scripts = tmp_path / "share" / "mysql" / "mysql_system_tables.sql"
    for file in (server, scripts):
        file.parent.mkdir(parents=True)
    scripts.touch()
    server.write_text("#!/bin/sh\necho 'mariadbd  Ver 10.5.28-MariaDB for debian-linux-gnu'\n")
    server.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(LabError, match=r"too old .*10\.5\.28.*10\.6"):
        find_programs()


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="packages are fetched from Debian and its like")
def test_without_any_server_one_is_fetched_or_the_remedy_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("wrapper.testing.mysql.binaries._installed", lambda: None)
    try:
        programs = find_programs()
    except LabError as error:
        assert "none could be fetched" in str(error)  # noqa: PT017  either is right, by what the machine permits
        assert "apt-get install mariadb-server" in str(error)  # noqa: PT017
    else:
        assert programs.server.is_relative_to(tmp_path)
        assert find_programs() == programs  # and not fetched again
        assert sorted(entry.name for entry in tmp_path.rglob("mariadb*") if entry.is_dir())[0] == "mariadb"
        assert not list(tmp_path.rglob("*.deb"))


def test_where_nothing_can_be_fetched_the_remedy_is_named(tmp_path: Path) -> None:
    script = (
        "from wrapper.testing.errors import LabError; from wrapper.testing.mysql import binaries\n"
        "binaries._installed = lambda: None\n"
        "try: binaries.find_programs()\n"
        "except LabError as error: print(error)\n"
    )
    environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop(VARIABLE, None)
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, env=environment)
    assert "none could be fetched" in done.stdout, done.stderr
    assert "apt-get install mariadb-server" in done.stdout
    assert list(tmp_path.rglob("*.sql")) == []


def test_an_ordinary_user() -> None:
    """As root we become one by a user namespace, in which nothing but our number changes."""
    become = ["unshare", "--user", "--map-user=65534", "--map-group=65534"] if os.geteuid() == 0 else []
    if become and subprocess.run([*become, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let us make user namespaces")
    script = (
        "import os, mysql.connector; from wrapper.testing import LocalAurora\n"
        "with LocalAurora(instances=2, engine='mysql') as lab:\n"
        "    lab.kill('writer'); lab.failover()\n"
        "    connection = mysql.connector.connect(**lab.parameters(by_address=True))\n"
        "    cursor = connection.cursor(); cursor.execute('SELECT @@aurora_server_id')\n"
        "    print(os.geteuid() != 0, cursor.fetchone()[0])\n"
        "    connection.close()\n"
    )
    done = subprocess.run([*become, sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "instance-2"]
