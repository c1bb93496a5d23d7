"""Processes of other users, where the tests run as root."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from .harness import REPOSITORY

GROUP = 23000
OWNER, ALICE, BOB, STRANGER = 23001, 23002, 23003, 23004
_PATH = os.pathsep.join([str(REPOSITORY), *site.getsitepackages()])


def as_user(uid: int, *groups: int) -> dict[str, Any]:
    """What `subprocess` needs to start a Python of another user."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": _PATH, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"}
    return {"user": uid, "group": uid, "extra_groups": list(groups), "env": environment, "cwd": "/"}


@cache
def python() -> str:
    """A Python that other users can run with our packages. Skips the test where there is none."""
    if os.getuid() != 0:
        pytest.skip("only root can start processes of other users")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if Path(candidate).exists():
            try:
                done = subprocess.run(
                    [candidate, "-c", "import zmq, msgspec, psycopg, wrapper"], capture_output=True, timeout=30, **as_user(ALICE)
                )
            except PermissionError:
                continue
            if done.returncode == 0:
                return candidate
    pytest.skip(f"no {version} and no packages that other users may read")
