"""Threads, locks and waits of the operating system's, also where gevent has put its own in their place.

The client's thread has to run while every greenlet waits, and nothing that it touches may hand control to a greenlet: gevent's
locks, sockets and `poll` do. Patches are looked up at each use, because an application may patch after it has imported us.
"""

from __future__ import annotations

import _thread
import resource
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def original(module: str, name: str) -> Any:
    """Return a function of the standard library as it was before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(import_module(module), name) if monkey is None else monkey.get_original(module, name)


def is_cooperative() -> bool:
    """Whether sleeping lets greenlets run, so that a wait for another thread has to be made of short sleeps."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("time"))


def allocate_lock() -> _thread.LockType:
    """Return a lock of the operating system's. Held only where nothing sleeps or waits for I/O."""
    # Once for every connection: the long way only where something may have been patched.
    allocate = _thread.allocate_lock if "gevent.monkey" not in sys.modules else original("_thread", "allocate_lock")
    return allocate()


def sleep(seconds: float) -> None:
    """Stop this thread, greenlets and all, for a moment."""
    original("time", "sleep")(seconds)


def start_thread(function: Callable[[], None]) -> None:
    """Run a function on a thread of the operating system. Raises `RuntimeError` where there is none to be had."""
    original("_thread", "start_new_thread")(_run, (function,))


def is_before_uwsgi_forks() -> bool:
    """Whether uwsgi loads the application in the process that its workers will be forked from. Without `enable-threads` it runs no
    hook of Python's then: a child in which a thread was waiting for the interpreter's lock waits for that thread for ever."""
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi is not None and uwsgi.worker_id() == 0 and uwsgi.mule_id() == 0


def waits_so_far() -> int:
    """How often this thread has waited for anything, by the kernel's count."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def seconds_held(waits_before: int) -> float:
    """For how long, since it had waited so often, this thread waited for the interpreter's lock: at least, as seen by the kernel.

    A thread that waits for the lock wakes up once per switch interval, one of a stopped process does not. uwsgi 2.0.21 keeps the
    lock while it has no request, unless it is told to enable threads; sixteen busy threads of Python's keep it long enough, too.
    """
    return (waits_so_far() - waits_before) * sys.getswitchinterval()


def _run(function: Callable[[], None]) -> None:
    try:
        function()
    finally:
        local = sys.modules.get("gevent._hub_local")
        hub = None if local is None else local.get_hub_if_exists()
        if hub is not None:
            # A driver that waits by gevent's means has made one for this thread; its descriptors would stay.
            hub.destroy(destroy_loop=True)
