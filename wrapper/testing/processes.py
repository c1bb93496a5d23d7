"""Processes as the kernel sees them: tied to their parent, found by parent or directory, and what they leave behind. Linux only."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_IPC_RMID = 0


def die_with_parent() -> None:
    """Ask the kernel to SIGKILL this process when its parent ends. For `preexec_fn`: a change of user clears the request.

    The parent is the *thread* that forked, so children must be started by a thread that lives as long as they should.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def children(pid: int) -> set[int]:
    """Return the direct children of a process, without those that have ended and were not yet waited for."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            state, parent = _state_and_parent(int(entry))
            if parent == pid and state not in ("Z", "X"):
                found.add(int(entry))
    return found


def reap_orphans() -> None:
    """Collect ended processes that became our children. As the first process of a PID namespace we inherit all its orphans."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # no children at all


def is_alive(pid: int) -> bool:
    """Whether a process exists and has not ended."""
    return _state_and_parent(pid)[0] not in ("Z", "X", "")


def wait_until_stopped(pids: Iterable[int], timeout: float = 1.0) -> None:
    """Return when every thread of these processes has obeyed a SIGSTOP; one that is computing does so a little later."""
    deadline = time.monotonic() + timeout
    for pid in pids:
        while _is_moving(pid) and time.monotonic() < deadline:
            time.sleep(0.0005)


def _is_moving(pid: int) -> bool:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(_state_and_parent(f"{pid}/task/{thread}")[0] not in ("T", "t", "Z", "X", "") for thread in threads)


def _state_and_parent(pid: int | str) -> tuple[str, int]:
    """`pid`: or that of a thread, as proc(5) names it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            # The name, in brackets, may hold blanks and brackets of its own.
            state, parent, *_ = file.read().rpartition(")")[2].split()
    except (OSError, ValueError):
        return "", 0
    return state, int(parent)


def freeze_tree(pid: int) -> set[int]:
    """SIGSTOP a process and its children, also those it was just making; return the children."""
    os.kill(pid, signal.SIGSTOP)
    stopped: set[int] = set()
    while new := children(pid) - stopped:
        send(new, signal.SIGSTOP)
        stopped |= new
    return stopped


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it has ended, which is what most signals here are for


def processes_inside(directory: Path) -> set[int]:
    """Return the processes, this one excepted, whose working directory is `directory` or below it."""
    root = str(directory)
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            place = os.readlink(f"/proc/{entry}/cwd").removesuffix(" (deleted)")
        except OSError:
            continue  # ended meanwhile, or another user's
        if (place == root or place.startswith(root + "/")) and is_alive(int(entry)):
            found.add(int(entry))
    return found


def kill_inside(directory: Path, timeout: float = 10.0) -> None:
    """SIGKILL every process that works in `directory`, stopped ones too, and wait until they have ended."""
    deadline = time.monotonic() + timeout
    while (pids := processes_inside(directory)) and time.monotonic() < deadline:
        send(pids, signal.SIGKILL)
        time.sleep(0.002)


def remove_shared_memory(pid_file: Path) -> None:
    """Remove the System V segment that a killed PostgreSQL server leaves behind; its `postmaster.pid` names it.

    The key is compared and the segment must be unused, because the number may have been given to another since.
    """
    try:
        lines = pid_file.read_text().splitlines()
        segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except OSError:
        return
    if len(lines) < 7 or len(named := lines[6].split()) != 2:
        return
    key, number = (int(word) & 0xFFFFFFFF for word in named)
    for segment in segments:
        fields = segment.split()
        if int(fields[0]) & 0xFFFFFFFF == key and int(fields[1]) == number and int(fields[6]) == 0:
            _libc.shmctl(number, _IPC_RMID, None)
