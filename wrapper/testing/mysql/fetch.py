"""Fetching a MariaDB server from Debian's (or Ubuntu's) packages into a folder, or a MySQL server from Debian's newest: no root,
nothing is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

_PACKAGE = "mariadb-server-core"
_SID = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main\n"


class FetchError(Exception):
    """It could not be fetched; the text says why."""


def fetch_mariadb(place: Path) -> None:
    """Unpack the server's package, and those that it needs and the system lacks, into `place`. Raises `FetchError`."""
    _fetch(place, lambda folder, draft: _Packages(folder).unpack_server(draft))


def fetch_mysql(place: Path) -> None:
    """Unpack Debian's newest MySQL server with all of its libraries, libc included, into `place` (270 MB). Raises `FetchError`.

    Debian has it in `sid` alone, and systems are older than that: it runs by its own loader, see `mysql_command`.
    """
    _fetch(place, lambda folder, draft: _Packages(folder, _SID).unpack_with_all_libraries("mysql-server-core", draft))


def mysql_command(place: Path) -> list[str]:
    """Return the command that runs the MySQL server in `place`."""
    libraries = sorted({str(library.parent) for library in place.glob("usr/lib/*/libc.so.*")})
    loaders = sorted(str(loader) for loader in place.glob("usr/lib/*/ld-linux-*.so.*"))
    if not (loaders and libraries):
        raise FetchError(f"{place} holds no MySQL server with its libraries")
    return [loaders[0], "--library-path", ":".join(libraries), str(place / "usr/sbin/mysqld")]


def _fetch(place: Path, unpack: Callable[[Path, Path], None]) -> None:
    """Have `unpack(folder, draft)` fill `draft`, which becomes `place` when it is whole."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            draft = Path(folder) / "draft"
            draft.mkdir()
            unpack(Path(folder), draft)
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
    """The packages that apt knows, downloaded into `folder`. `source`: a line of sources.list to take them from instead."""

    def __init__(self, folder: Path, source: str | None = None) -> None:
        self._folder = folder
        self._options: list[str] = []
        if source is not None:
            (folder / "sources.list").write_text(source)
            self._take_lists(("Dir::Etc::SourceList", folder / "sources.list"), ("Dir::Etc::SourceParts", "-"))

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
            self._take_lists()
            names = self._names()
        if not names:
            raise FetchError(f"apt knows no package {_PACKAGE}")
        return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])

    def unpack_with_all_libraries(self, package: str, draft: Path) -> None:
        """Unpack a package and every library below it, whatever the system has."""
        which = ["--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"]
        listed = self._run("apt-cache", *self._options, "depends", *which, package).splitlines()
        needed = {line for line in listed if re.match(r"(lib(?!perl)|zlib)", line)}
        self._run("apt-get", *self._options, "download", package, *sorted(needed))
        for file in sorted(self._folder.glob("*.deb")):
            self._run("dpkg-deb", "--extract", str(file), str(draft))

    def _take_lists(self, *more: tuple[str, object]) -> None:
        """Have lists of packages in the folder."""
        (self._folder / "lists" / "partial").mkdir(parents=True)
        settings = [("Dir::State::Lists", self._folder / "lists"), ("Dir::Cache", self._folder), *more]
        self._options = [part for name, value in settings for part in ("-o", f"{name}={value}")]
        self._run("apt-get", *self._options, "update")

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
