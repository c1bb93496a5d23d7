"""Connection services of libpq: named groups of parameters in a file (PostgreSQL manual, 34.17).

libpq would read the file by itself, but only when it connects. Then nobody would know which endpoint is watched, and a `hostaddr`
in the file would lead every connection of a failover to the lost host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wrapper.environment import variable


def expanded(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with those of the service that they, or the environment, name; what is given wins over the service.

    They are returned as they are where there is no service or it cannot be read: libpq says what is wrong with it.
    """
    service = parameters.get("service") or variable("PGSERVICE")
    if not service:
        return dict(parameters)
    for path in _files(parameters.get("servicefile")):
        found = read(path, str(service))
        if found is not None:
            given = {name: value for name, value in parameters.items() if name not in ("service", "servicefile")}
            return {**found, **given}
    return dict(parameters)


def _files(given: Any) -> Iterator[Path]:
    """Where libpq looks for services, in its order."""
    named = given or variable("PGSERVICEFILE")
    yield Path(str(named)) if named else Path("~/.pg_service.conf").expanduser()
    folder = variable("PGSYSCONFDIR")
    if folder:
        yield Path(folder, "pg_service.conf")


def read(path: Path, service: str) -> dict[str, str] | None:
    """Return the parameters of a service in a file, None where there is none or libpq would refuse what is there."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    found: dict[str, str] | None = None
    for line in map(str.strip, lines):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found is not None:
                break
            found = {} if line == f"[{service}]" else None
        elif found is not None:
            name, separator, value = line.partition("=")
            if not separator or name in ("service", "servicefile") or name != name.strip():
                return None  # LDAP, or a mistake
            found.setdefault(name, value)
    return found
