"""The example application of an application that uses its database while it is loaded: a preloading server forks afterwards."""

from app import application as application  # type: ignore[import-not-found]
from app import connections, count

with connections.take() as connection:
    count(connection)
