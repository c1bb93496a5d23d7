"""A process whose Python never rests and that, after every millisecond of work, looks at a page that it shares with the benchmark:
all that a worker could do at best, with no wrapper and no thread. What it takes to see a change is the scheduler's share.

Argument: `path` of the page, whose first eight bytes are a counter. Events: `ready`, and `seen` for every other count.
"""

from __future__ import annotations

import mmap
import time

from tests.benchmarks.workers.parent import arguments, listen, tell
from tests.benchmarks.workers.spinning import work


def main() -> None:
    path = arguments()["path"]
    stopping = listen()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ) as page:
        counter = memoryview(page).cast("Q")
        count = counter[0]
        tell("ready")
        while not stopping.is_set():
            work()
            if counter[0] != count:
                seen = time.monotonic()
                count = counter[0]
                tell("seen", at=seen)
        counter.release()


if __name__ == "__main__":
    main()
