"""Namespaces around the controller, where the kernel allows them, so that nothing can survive it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache


@cache
def isolated() -> tuple[str, ...]:
    """Return the command prefix that puts a process into namespaces of its own; empty where that is not permitted.

    A PID namespace dies with its first process, stopped servers included. An IPC namespace takes the shared memory segments along
    that a killed server leaves.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return ()
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    command = [unshare, *user, "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--ipc"]
    try:
        works = subprocess.run([*command, "true"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(command) if works else ()
