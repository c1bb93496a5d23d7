"""What holds for all tests: busy machines change nothing, and what is made in the temp directory is removed again."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from monitor_service.election import is_held
from wrapper.monitor.paths import MonitorPaths

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Seconds that monitors have for noticing that their directory is gone.
PATIENCE = 30.0


@pytest.fixture(scope="session", autouse=True)
def temporary_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A temp directory of this run's own, for its child processes as well: at the end it is empty, or the run has failed."""
    tmp_path_factory.getbasetemp()  # pytest keeps those of its last runs, where they are for all runs
    place = Path(tempfile.mkdtemp(prefix="run-"))
    place.chmod(0o1777)  # for the accounts of servers and of other users
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place))
        patch.setattr(tempfile, "tempdir", str(place))
        yield
    with suppress(OSError):
        # That of a test which names no directory of its own. It stays, but nothing may be in it.
        (place / f"aws-shared-monitor-{os.getuid()}").rmdir()
    deadline = time.monotonic() + PATIENCE
    while left := [_described(entry) for entry in sorted(place.iterdir())]:
        assert time.monotonic() < deadline, f"left behind in {place}: {'; '.join(left)}"
        time.sleep(0.05)
    place.rmdir()


def _described(entry: Path) -> str:
    if not entry.is_dir():
        return entry.name
    serving = ", and a monitor that runs" if is_held(MonitorPaths(entry)) else ""
    return f"{entry.name} with {', '.join(sorted(os.listdir(entry))) or 'nothing'}{serving}"
