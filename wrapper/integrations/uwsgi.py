"""Helpers for uwsgi. None is required: a worker notices by itself that it was forked, and its first connection starts the monitor.

    [uwsgi]
    enable-threads = true
    import = wrapper.integrations.uwsgi
    mule = wrapper.integrations.uwsgi:run_monitor

Importing this module inside uwsgi warns where threads are not enabled. The mule is the shared monitor; `attach-daemon2 =
cmd=aws-shared-monitor run,stopsignal=15` does the same without one.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import Any

from wrapper.monitor.launch import interpreter

logger = logging.getLogger(__name__)


def run_monitor() -> None:
    """Become the shared monitor: a process of its own, in place of the mule that uwsgi forked."""
    # Above all the socket that uwsgi listens on.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    python = interpreter()
    os.execv(python, [python, "-I", "-m", "monitor_service", "run"])


def _uwsgi() -> Any:
    try:
        return import_module("uwsgi")  # exists inside uwsgi alone
    except ModuleNotFoundError:
        return None


def _warn_without_threads(options: dict[str, Any]) -> None:
    if not any(options.get(name) for name in ("enable-threads", "threads", "gevent")):
        logger.warning(
            "uwsgi runs without enable-threads: older versions (2.0.21) then stop Python's threads between requests, and news of "
            "the cluster is read at the next call only; set enable-threads = true"
        )


_server = _uwsgi()
if _server is not None:
    _warn_without_threads(_server.opt)
