"""The clients of this process: made at the first use, dropped by a forked child, paused for a fork, closed at the end."""

from __future__ import annotations

import atexit
import logging
import os
import sys

from wrapper.monitor.client import MonitorClient
from wrapper.monitor.generation import advance
from wrapper.monitor.paths import MonitorDirectoryError, locate
from wrapper.monitor.threads import allocate_lock

logger = logging.getLogger(__name__)

# By whether they use the monitor: connections with monitor_mode=off share one that has no sockets and no thread.
_clients: dict[bool, MonitorClient] = {}
_lock = allocate_lock()
# Clients of processes we were forked from: kept so that nothing of theirs (ZeroMQ contexts above all) is finalized here.
_inherited: list[MonitorClient] = []
_hooked = False


def current_client(mode: str = "attach") -> MonitorClient:
    """Return this process's client, making one after start or fork.

    `mode`: see the `monitor_mode` parameter. One connection with `auto` is enough to have the process start monitors from then on;
    who merely looks at the client changes nothing.

    Never fails: a directory that cannot be used is logged, once per process, and leaves a client that works without a monitor.
    """
    uses_monitor = mode != "off"
    client = _clients.get(uses_monitor)
    if client is None or client.pid != os.getpid():
        client = _make_client(uses_monitor)
    if mode == "auto":
        client.may_start = True
    return client


def _make_client(uses_monitor: bool) -> MonitorClient:
    global _hooked
    _forget_parent()
    with _lock:
        if uses_monitor in _clients:
            return _clients[uses_monitor]
        paths = None
        if uses_monitor:
            try:
                paths = locate()
            except MonitorDirectoryError as error:
                logger.warning("working without the shared monitor: %s", error)
        client = _clients[uses_monitor] = MonitorClient(paths)
        advance()
        _close_with_child()
        if not _hooked:
            _hooked = True
            atexit.register(_at_exit)
            os.register_at_fork(before=_pause_for_fork, after_in_parent=_go_on_after_fork, after_in_child=_forget_parent)
        return client


def _close_with_child() -> None:
    """Processes of multiprocessing, Celery's too, end without `atexit`, but not without finalizers of their own."""
    module = sys.modules.get("multiprocessing.util")
    if module is not None:
        module.Finalize(None, _at_exit, exitpriority=0)


# From Python 3.12 on, forking with several threads warns, and the kernel counts ZeroMQ's too.
_FORK_WARNS = sys.version_info >= (3, 12)
_paused: list[MonitorClient] = []


def _pause_for_fork() -> None:
    if _FORK_WARNS:
        _paused.extend(client for client in list(_clients.values()) if client.pause())


def _go_on_after_fork() -> None:
    for client in _paused:
        client.start()
    _paused.clear()


def _forget_parent() -> None:
    """In a forked child: drop the parent's clients without closing or shutting anything of theirs."""
    global _lock
    if not any(client.pid != os.getpid() for client in _clients.values()):
        return
    # Another thread of the parent may have held the lock at the moment of the fork.
    _lock = allocate_lock()
    inherited = list(_clients.values())
    _clients.clear()
    _paused.clear()
    _inherited.extend(inherited)
    for client in inherited:
        client.abandon()


def catch_up() -> None:
    """Before a call: see `MonitorClient.catch_up`."""
    for client in tuple(_clients.values()):
        client.catch_up()


def _at_exit() -> None:
    for client in list(_clients.values()):
        client.close()


def close_client() -> None:
    """Stop this process's client thread, if it runs. The next connection starts it again."""
    _at_exit()
