"""What a monitor does to its own process before it holds any secret."""

from __future__ import annotations

import os
import resource

# Descriptors wanted: one per host and per worker, with room; the soft limit is often 1024.
WANTED_DESCRIPTORS = 65536
# Of eight parts of all descriptors, six are for workers, two each, one is for sessions, and one is kept free: libzmq ends the
# process when it has none for a worker that connects, and whom it accepts is judged only afterwards.
_PARTS = 8
_FOR_WORKERS = 6
_PR_SET_DUMPABLE = 4  # linux/prctl.h


def become_daemon() -> None:
    """Leave whoever started us: another session, no terminal, none of its descriptors."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.closerange(3, 4096)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)


def forget_libpq_environment() -> None:
    """Probes log in with what workers offer. The environment belongs to whoever started the monitor."""
    for name in list(os.environ):
        if name.startswith("PG"):
            del os.environ[name]


def raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, WANTED_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_clients(descriptors: int) -> int:
    """Return how many workers a limit of `descriptors` leaves room for.

    >>> most_clients(1024)
    384
    """
    return descriptors * _FOR_WORKERS // _PARTS // 2


def descriptor_limit() -> int:
    """Return how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return WANTED_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def lacks_descriptors() -> bool:
    """Whether so few are left that no more peers and no more sessions can be had."""
    try:
        lowest = os.eventfd(0, os.EFD_CLOEXEC)  # all below it are taken
    except OSError:
        return True
    os.close(lowest)
    limit = descriptor_limit()
    return lowest >= limit - limit // _PARTS


def keep_memory_private() -> None:
    """No core file, and no debugger of another process: the memory holds login values.

    Both are needed: a `core_pattern` that pipes into a program pays no heed to the limit, and a debugger none to either but this.
    """
    import ctypes

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE) failed")
