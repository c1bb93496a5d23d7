"""gunicorn with processes, or with threads in each of them:

    gunicorn -c examples/gunicorn/threads_conf.py --chdir examples/web app:application

Preloading is safe: connections that were opened while the application was loaded lead to sessions of the worker's own.
"""

# Starts the shared monitor before the first worker. Not required: the first connection would.
from wrapper.integrations.gunicorn import on_starting as on_starting

workers = 2
worker_class = "gthread"
threads = 4
preload_app = True
