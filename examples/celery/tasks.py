"""Celery with its default pool of processes:

    celery --workdir examples/celery --app tasks worker --concurrency 2     # with examples/web in PYTHONPATH

Broker and results are directories here, so that it runs without a network service. Environment: ORDERS_SPOOL, a directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from app import handle_order  # type: ignore[import-not-found]  # examples/web/app.py
from celery import Celery  # type: ignore[import-untyped]
from celery.signals import worker_process_shutdown  # type: ignore[import-untyped]

import wrapper

_spool = Path(os.environ["ORDERS_SPOOL"])
_queue = str(_spool / "queue")
_results = _spool / "results"
for _directory in (_queue, _results):
    Path(_directory).mkdir(parents=True, exist_ok=True)

application = Celery("tasks", broker="filesystem://", backend=f"file://{_results}")
application.conf.broker_transport_options = {
    "data_folder_in": _queue,
    "data_folder_out": _queue,
    "control_folder": str(_spool / "control"),
    "polling_interval": 0.1,
}
# A task that lost its process is run again; its key makes that harmless.
application.conf.task_acks_late = True
application.conf.task_reject_on_worker_lost = True
application.conf.worker_prefetch_multiplier = 1


@application.task(name="place_order")  # type: ignore[untyped-decorator]
def place_order(key: str, text: str) -> dict[str, Any]:
    """Place an order under a key of the caller's."""
    answer: dict[str, Any] = handle_order(key, text)
    return answer


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def give_up_lease(**_: Any) -> None:
    """Celery's processes end without `atexit`: without this, the monitor forgets one 15 s after its end."""
    wrapper.release_resources()
