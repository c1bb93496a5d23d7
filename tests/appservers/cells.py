"""The matrix: which servers, with which options, started how, and what happens to them before the database fails."""

from __future__ import annotations

import re
from dataclasses import dataclass

EXAMPLES = "{root}/examples"
# Ways in which the shared monitor is started.
ON_DEMAND = "first connection"
HOOK = "on_starting hook"
MULE = "mule"
DAEMON1 = "attach-daemon"
DAEMON2 = "attach-daemon2"
# They end with the server; the others stay a while for workers to come.
OF_THE_SERVER = (MULE, DAEMON1, DAEMON2)


@dataclass(frozen=True)
class Cell:
    """One way of running the example application.

    `command`: the server's, with {root}, {port}, and {env} and {bin} of the virtual environment. `talk`: how orders reach it.
    `calls`: how many orders each worker takes at a time. `monitor`: who starts it. `event`: what happens to the workers first, a
    name in `scenario.EVENTS`. `slow`: whether it is left to `-m slow`.
    """

    server: str
    options: str
    command: str
    talk: str = "http"
    calls: int = 1
    monitor: str = ON_DEMAND
    event: str = ""
    slow: bool = True

    @property
    def name(self) -> str:
        return "-".join(re.findall(r"\w+", f"{self.server} {self.options} {self.event}")).lower()


WORKERS = 2
_GUNICORN = (
    "{bin}/gunicorn --workers 2 --bind 127.0.0.1:{port} --log-level warning --no-control-socket --chdir {root}/examples/web "
)
_SYNC = f"{_GUNICORN} -c {EXAMPLES}/gunicorn/sync_conf.py app:application"
_SYNC_PRELOAD = f"{_GUNICORN} --preload --pythonpath {{root}}/tests/appservers preloaded:application"
_GTHREAD = f"{_GUNICORN} --worker-class gthread --threads 2 app:application"
_GTHREAD_PRELOAD = (
    f"{_GUNICORN} -c {EXAMPLES}/gunicorn/threads_conf.py --pythonpath {{root}}/tests/appservers preloaded:application"
)
_GEVENT = f"{_GUNICORN} --worker-class gevent app:application"
_GEVENT_PRELOAD = f"{_GUNICORN} -c {EXAMPLES}/gunicorn/gevent_conf.py --pythonpath {{root}}/tests/appservers preloaded:application"
_UVICORN_WORKER = "{bin}/gunicorn --workers 2 --bind 127.0.0.1:{port} --log-level warning --no-control-socket " + (
    "--chdir {root}/examples/uvicorn --pythonpath {root}/examples/web --worker-class uvicorn_worker.UvicornWorker asgi:application"
)

_UWSGI = "{bin}/uwsgi --http-socket 127.0.0.1:{port} --virtualenv {env} --disable-logging "
_ORDERS = f"{_UWSGI} --ini {EXAMPLES}/uwsgi/orders.ini"
_MULE = f"{_UWSGI} --ini {EXAMPLES}/uwsgi/mule.ini"
_DAEMON = f"{_UWSGI} --ini {EXAMPLES}/uwsgi/daemon.ini"
_PLAIN = (
    f"{_UWSGI} --master --processes 2 --die-on-term --need-app --pythonpath {{root}}/tests/appservers --chdir {{root}}/examples/web"
)

_CELERY = "{bin}/celery --workdir {root}/examples/celery --app tasks worker --concurrency 2 --loglevel WARNING"
_POOL = "{bin}/python {root}/examples/multiprocessing/orders.py"
_UVICORN = "{bin}/uvicorn --workers 2 --app-dir {root}/examples/uvicorn --port {port} --log-level warning asgi:application"

CELLS = (
    Cell("gunicorn", "sync", _SYNC),
    Cell("gunicorn", "sync, preload", _SYNC_PRELOAD),
    Cell("gunicorn", "gthread", _GTHREAD, calls=2),
    Cell("gunicorn", "gthread, preload", _GTHREAD_PRELOAD, calls=2, monitor=HOOK),
    Cell("gunicorn", "gevent", _GEVENT, calls=3),
    Cell("gunicorn", "gevent, preload", _GEVENT_PRELOAD, calls=3, monitor=HOOK, slow=False),
    Cell("gunicorn", "sync", _SYNC, event="reload (HUP)"),
    Cell("gunicorn", "gthread, preload", _GTHREAD_PRELOAD, calls=2, monitor=HOOK, event="reload (HUP)"),
    Cell("gunicorn", "sync, preload", _SYNC_PRELOAD, event="graceful restart (USR2)"),
    Cell("gunicorn", "sync", f"{_SYNC} --max-requests 12 --max-requests-jitter 0", event="max_requests"),
    Cell("gunicorn", "sync, preload", _SYNC_PRELOAD, event="kill -9 of a worker"),
    Cell("gunicorn", "gthread", f"{_GTHREAD} --max-requests 40", calls=2, event="max_requests"),
    Cell("gunicorn", "gevent", _GEVENT, calls=3, event="reload (HUP)"),
    Cell("gunicorn", "gevent, preload", _GEVENT_PRELOAD, calls=3, monitor=HOOK, event="graceful restart (USR2)"),
    Cell("gunicorn", "gevent, preload", _GEVENT_PRELOAD, calls=3, monitor=HOOK, event="kill -9 of a worker"),
    Cell("gunicorn", "uvicorn workers, endpoints on threads", _UVICORN_WORKER, calls=2),
    Cell("gunicorn", "uvicorn workers, endpoints on threads", _UVICORN_WORKER, calls=2, event="reload (HUP)"),
    Cell("gunicorn", "uvicorn workers, endpoints on threads", _UVICORN_WORKER, calls=2, event="kill -9 of a worker"),
    Cell("uwsgi", "fork after load", f"{_PLAIN} --module preloaded:application", slow=False),
    Cell("uwsgi", "fork after load, enable-threads", f"{_PLAIN} --enable-threads --module preloaded:application"),
    Cell("uwsgi", "lazy-apps", f"{_PLAIN} --lazy-apps --module app:application"),
    Cell("uwsgi", "lazy-apps, threads 2", f"{_UWSGI} --ini {EXAMPLES}/uwsgi/lazy.ini", calls=2),
    Cell("uwsgi", "enable-threads, mule", _MULE, monitor=MULE),
    Cell("uwsgi", "enable-threads, attach-daemon2", _DAEMON, monitor=DAEMON2),
    Cell(
        "uwsgi",
        "enable-threads, attach-daemon",
        f"{_ORDERS} --attach-daemon='exec {{bin}}/aws-shared-monitor run'",
        monitor=DAEMON1,
    ),
    Cell("uwsgi", "enable-threads", _ORDERS, event="reload (HUP)"),
    Cell("uwsgi", "enable-threads, mule", _MULE, monitor=MULE, event="reload (HUP)"),
    Cell("uwsgi", "enable-threads, attach-daemon2", _DAEMON, monitor=DAEMON2, event="reload (HUP)"),
    Cell("uwsgi", "enable-threads", f"{_ORDERS} --max-requests 12", event="max_requests"),
    Cell("uwsgi", "enable-threads", _ORDERS, event="kill -9 of a worker"),
    Cell("celery", "prefork", _CELERY, talk="celery"),
    Cell("celery", "prefork", f"{_CELERY} --max-tasks-per-child 8", talk="celery", event="max_requests"),
    Cell("celery", "prefork", _CELERY, talk="celery", event="kill -9 of a worker"),
    Cell("multiprocessing", "fork", f"{_POOL} fork", talk="lines"),
    Cell("multiprocessing", "spawn", f"{_POOL} spawn", talk="lines", slow=False),
    Cell("multiprocessing", "forkserver", f"{_POOL} forkserver", talk="lines"),
    Cell("uvicorn", "workers, endpoints on threads", _UVICORN, calls=2),
    Cell("uvicorn", "workers, endpoints on threads", _UVICORN, calls=2, event="kill -9 of a worker"),
    Cell("uvicorn", "workers, endpoints on threads", _UVICORN, calls=2, event="reload (HUP)"),
    Cell("uvicorn", "workers, endpoints on threads", f"{_UVICORN} --limit-max-requests 40", calls=2, event="max_requests"),
)
