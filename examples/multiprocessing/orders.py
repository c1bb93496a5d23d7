"""A pool of processes, started in any of the three ways:

    echo '{"key": "1", "text": "x"}' | python examples/multiprocessing/orders.py forkserver     # with examples/web in PYTHONPATH

Reads one order per line and writes one answer per line. The parent has a connection before it starts the pool: with `fork` the
children inherit it, and each is led to a session of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
from typing import Any

from app import connections, count, handle_order  # type: ignore[import-not-found]  # examples/web/app.py

PROCESSES = 2
_output = threading.Lock()


def say(document: dict[str, Any]) -> None:
    """Write one line."""
    with _output:
        print(json.dumps(document), flush=True)


def main() -> None:
    """Serve orders until the input ends."""
    with connections.take() as connection:
        count(connection)
    with multiprocessing.get_context(sys.argv[1]).Pool(PROCESSES) as pool:
        for line in sys.stdin:
            order = json.loads(line)
            pool.apply_async(
                handle_order, (order["key"], order["text"]), callback=say, error_callback=lambda e: say({"error": str(e)})
            )
        pool.close()
        pool.join()


if __name__ == "__main__":
    main()
