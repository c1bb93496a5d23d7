"""Waiting for a lab that another process is starting."""

from __future__ import annotations

import time
from pathlib import Path

from wrapper.testing.client import LabClient
from wrapper.testing.errors import LabError


def wait_for_lab(directory: Path, timeout: float = 30.0) -> LabClient:
    """Return a client of the lab in `directory` once it answers. Raises `LabError` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        lab = LabClient(directory)
        try:
            lab.status()
        except LabError:
            if time.monotonic() > deadline:
                raise LabError(f"waited {timeout:g} s in vain for a lab in {directory}") from None
            time.sleep(0.05)
        else:
            return lab
