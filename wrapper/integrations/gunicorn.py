"""Hooks for gunicorn. None is required: a worker notices by itself that it was forked, and its first connection starts the monitor.

Import the ones you want into gunicorn's configuration file:

    from wrapper.integrations.gunicorn import on_starting, post_worker_init
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from wrapper.monitor.launch import ensure_monitor
from wrapper.monitor.threads import is_cooperative

logger = logging.getLogger(__name__)


def on_starting(server: Any) -> None:
    """Start the shared monitor before the first worker, unless one runs already."""
    ensure_monitor()


def post_worker_init(worker: Any) -> None:
    """In a worker with greenlets: warn when psycopg was imported before gevent patched, so that every query stops them all."""
    waiting = sys.modules.get("psycopg.waiting")
    if is_cooperative() and waiting is not None and waiting.wait is waiting.wait_c:
        logger.warning(
            "psycopg was imported before gevent patched the standard library: a query stops all greenlets of this worker. "
            "Put 'from gevent import monkey; monkey.patch_all()' at the top of gunicorn's configuration file"
        )
