"""Fetching a MariaDB server from Debian's (or Ubuntu's) packages into a folder: no root, nothing is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

_PACKAGE = "mariadb-server-core"


class FetchError(Exception):
    """It could not be fetched; the text says why."""


def fetch_mariadb(place: Path) -> None:
    """Unpack the server's package, and those that it needs and the system lacks, into `place`. Raises `FetchError`."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            draft = Path(folder) / "draft"
            draft.mkdir()
            _Packages(Path(folder)).unpack_server(draft)
            shutil.rmtree(place, ignore_errors=True)
            try:
                draft.rename(place)
            except OSError:
                if not place.is_dir():  # somebody else was faster
                    raise
    except subprocess.CalledProcessError as error:
        raise FetchError(f"{error.cmd[0]} said: {error.stderr.strip()}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise FetchError(str(error)) from error


class _Packages:
    """The packages that apt knows, downloaded into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._options: list[str] = []

    def unpack_server(self, draft: Path) -> None:
        server = self._download(self._server_name())
        self._run("dpkg-deb", "--extract", str(server), str(draft))
        for entry in self._run("dpkg-deb", "--field", str(server), "Depends").split(","):
            package = entry.split("|")[0].split("(")[0].strip()
            if package.startswith("lib") and not self._is_installed(package):
                self._run("dpkg-deb", "--extract", str(self._download(package)), str(draft))

    def _server_name(self) -> str:
        """Return the newest server's package: Ubuntu has the version in the name."""
        if not (names := self._names()):
            # No lists of packages, as in many a container. We may be nobody who can change that, so they go into the folder.
            (self._folder / "lists" / "partial").mkdir(parents=True)
            self._options = ["-o", f"Dir::State::Lists={self._folder}/lists", "-o", f"Dir::Cache={self._folder}"]
            self._run("apt-get", *self._options, "update")
            names = self._names()
        if not names:
            raise FetchError(f"apt knows no package {_PACKAGE}")
        return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])

    def _names(self) -> list[str]:
        return self._run("apt-cache", *self._options, "pkgnames", _PACKAGE).split()

    def _download(self, package: str) -> Path:
        there = set(self._folder.glob("*.deb"))
        self._run("apt-get", *self._options, "download", package)
        (file,) = set(self._folder.glob("*.deb")) - there
        return file

    def _is_installed(self, package: str) -> bool:
        query = ["dpkg-query", "--show", "--showformat=${Status}", package]
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.endswith(" installed")

    def _run(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=self._folder).stdout
