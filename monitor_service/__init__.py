"""The shared monitor: one process per host and user that watches databases and publishes what it knows to all workers."""
