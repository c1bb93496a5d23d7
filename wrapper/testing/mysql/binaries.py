"""Finding a MariaDB server: the system's, else one that is fetched from Debian's packages into the user's cache, without root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from wrapper.testing.errors import LabError

VARIABLE = "AWS_WRAPPER_LAB_MARIADB"
_OLDEST = (10, 6)  # the first with JSON_TABLE
_PLACES = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/libexec"
_SCRIPT = "*_system_tables.sql"
_REMEDY = f"install MariaDB 10.6 or newer (Debian: apt-get install mariadb-server), or name the folder that has it in ${VARIABLE}"


@dataclass(frozen=True, slots=True)
class Programs:
    """A server's program, the folder of its SQL scripts, and what it needs in its environment."""

    server: Path
    scripts: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def base(self) -> Path:
        """What MariaDB calls its basedir."""
        return self.server.parent.parent


def find_programs() -> Programs:
    """Return a MariaDB server's programs.

    Looked for in this order: `$AWS_WRAPPER_LAB_MARIADB` (a folder like /usr), the PATH and where systems keep servers, what was
    fetched before; else they are fetched. Raises `LabError` when all that fails.
    """
    explicit = os.environ.get(VARIABLE)
    if explicit:
        programs = _look_below(Path(explicit))
        if programs is None or (trouble := _trouble(programs)):
            raise LabError(f"{VARIABLE}={explicit!r} holds no usable MariaDB server{f': {trouble}' if programs else ''}; {_REMEDY}")
        return programs
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', os.defpath)}:{_PLACES}")
    if found and (programs := _look_below(Path(found).resolve().parent.parent)) and not _trouble(programs):
        return programs
    place = _cache() / "mariadb"
    if (programs := _look_below(place / "usr")) is None or _trouble(programs):
        _fetch(place)
        programs = _look_below(place / "usr")
    if programs is None or (trouble := _trouble(programs)):
        raise LabError(f"the MariaDB server fetched into {place} does not run{f': {trouble}' if programs else ''}; {_REMEDY}")
    return programs


def _look_below(base: Path) -> Programs | None:
    servers = [base / folder / "mariadbd" for folder in ("sbin", "bin", "libexec")]
    scripts = [script.parent for folder in ("mysql", "mariadb", ".") for script in (base / "share" / folder).glob(_SCRIPT)]
    libraries = sorted({str(library.parent) for library in (base / "lib").glob("*/*.so.*")}) if base != Path("/usr") else []
    for server in servers:
        if os.access(server, os.X_OK) and scripts:
            return Programs(server, scripts[0], {"LD_LIBRARY_PATH": ":".join(libraries)} if libraries else {})
    return None


def _trouble(programs: Programs) -> str:
    """Return why the server cannot be used; empty if it can."""
    try:
        done = subprocess.run(
            [programs.server, "--no-defaults", "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            env={**os.environ, **programs.environment},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    version = re.search(r"Ver (\d+)\.(\d+)\S*MariaDB", done.stdout)
    if version is None:
        return (done.stderr or done.stdout).strip()
    return "" if (int(version[1]), int(version[2])) >= _OLDEST else f"it is too old ({version[0]})"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aws-shared-monitor-wrapper"


def _fetch(place: Path) -> None:
    """Unpack Debian's package of the server, and what it needs and the system lacks, into `place`."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            draft = Path(folder) / "mariadb"
            draft.mkdir()
            _unpack(_server_package(folder), draft)
            shutil.rmtree(place, ignore_errors=True)
            try:
                draft.rename(place)
            except OSError:
                if not place.is_dir():  # somebody else was faster
                    raise
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or "").strip()
        raise LabError(f"no MariaDB server found, and none could be fetched: {said or error}; {_REMEDY}") from error


def _server_package(folder: str) -> Path:
    """Download the newest package of the server into `folder` and return its file."""
    # Ubuntu has the version in the name.
    names = _run("apt-cache", "pkgnames", "mariadb-server-core", cwd=folder).split()
    if not names:
        raise OSError("apt knows no package mariadb-server-core (its lists may be missing: apt-get update)")
    return _download(max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)]), folder)


def _download(package: str, folder: str) -> Path:
    there = set(Path(folder).glob("*.deb"))
    _run("apt-get", "download", package, cwd=folder)
    (file,) = set(Path(folder).glob("*.deb")) - there
    return file


def _unpack(server: Path, draft: Path) -> None:
    _run("dpkg-deb", "--extract", str(server), str(draft), cwd=str(draft))
    for entry in _run("dpkg-deb", "--field", str(server), "Depends", cwd=str(draft)).split(","):
        package = entry.split("|")[0].split("(")[0].strip()
        if package.startswith("lib") and not _is_installed(package):
            library = _download(package, str(server.parent))
            _run("dpkg-deb", "--extract", str(library), str(draft), cwd=str(draft))


def _is_installed(package: str) -> bool:
    query = ["dpkg-query", "--show", "--showformat=${Status}", package]
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.endswith(" installed")


def _run(*command: str, cwd: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, cwd=cwd).stdout
