"""gunicorn with greenlets:

gunicorn -c examples/gunicorn/gevent_conf.py --chdir examples/web app:application

"""

from gevent import monkey  # type: ignore[import-untyped]

# Before anything imports psycopg, which decides at its import how it waits. gunicorn itself patches in the workers, and with
# preload_app that is too late.
monkey.patch_all()

from wrapper.integrations.gunicorn import on_starting as on_starting  # noqa: E402
from wrapper.integrations.gunicorn import post_worker_init as post_worker_init  # noqa: E402

workers = 2
worker_class = "gevent"
preload_app = True
