"""gunicorn with processes that take one request at a time, each replaced after some thousand:

gunicorn -c examples/gunicorn/sync_conf.py --chdir examples/web app:application

Nothing in it is for the wrapper's sake. Without a preload each worker loads the application for itself.
"""

workers = 2
worker_class = "sync"
max_requests = 5000
max_requests_jitter = 500
