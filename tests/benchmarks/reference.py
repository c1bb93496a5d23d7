"""The AWS Advanced Python Wrapper in an environment of its own, made once and kept in the user's cache directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

REFERENCE_VERSION = "3.1.0"


class ReferenceUnavailableError(Exception):
    """The environment could not be made; the text says why."""


def reference_python() -> str:
    """Return the interpreter of the reference's environment, with the psycopg version that is measured here.

    Raises `ReferenceUnavailableError`.
    """
    psycopg = version("psycopg")
    home = _cache() / f"reference-{REFERENCE_VERSION}-psycopg-{psycopg}-python-{sys.version_info.major}.{sys.version_info.minor}"
    python = home / "bin" / "python"
    # Written last: a directory without it is what an interrupted installation left.
    complete = home / "complete"
    if complete.exists():
        return str(python)
    shutil.rmtree(home, ignore_errors=True)
    print(f"making an environment for the reference in {home}", file=sys.stderr, flush=True)
    requirements = [f"aws-advanced-python-wrapper=={REFERENCE_VERSION}", f"psycopg[binary]=={psycopg}"]
    _run([sys.executable, "-m", "venv", str(home)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    complete.touch()
    return str(python)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aws-shared-monitor-wrapper" / "benchmarks"


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip() or error.stdout.strip() or "no output").splitlines()[-1]
        raise ReferenceUnavailableError(f"{' '.join(command[:4])} failed: {reason}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReferenceUnavailableError(f"{' '.join(command[:4])} failed: {error}") from error
