"""Finding a MariaDB server: the system's, else one that is fetched from Debian's packages into the user's cache, without root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from wrapper.testing.errors import LabError
from wrapper.testing.mysql.fetch import FetchError, fetch_mariadb

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
        return _usable(Path(explicit), f"{VARIABLE}={explicit!r} holds no usable MariaDB server")
    if (programs := _installed()) and not _trouble(programs):
        return programs
    place = _cache() / "mariadb"
    if (programs := _look_below(place / "usr")) and not _trouble(programs):
        return programs
    try:
        fetch_mariadb(place)
    except FetchError as error:
        raise LabError(f"no MariaDB server found, and none could be fetched: {error}; {_REMEDY}") from error
    return _usable(place / "usr", f"the MariaDB server fetched into {place} cannot be used")


def _usable(base: Path, complaint: str) -> Programs:
    programs = _look_below(base)
    trouble = "the program or its scripts are missing" if programs is None else _trouble(programs)
    if programs is None or trouble:
        raise LabError(f"{complaint}: {trouble}; {_REMEDY}")
    return programs


def _installed() -> Programs | None:
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', os.defpath)}:{_PLACES}")
    return _look_below(Path(found).resolve().parent.parent) if found else None


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
