"""A bare ZeroMQ publisher beside the monitor: it sends a message when it is told to, and when its session with a host is reset.

The second is all that anybody needs to tell of a reset who finds nothing out: no second look, no evidence, no state. What the reset
itself costs the machine, in the host and its server, is the same as with the monitor.

Arguments: `url`, `login`, `key` of the subject. Commands: `open` (a session), `send`. Events: `bound`, `open`, `sent`.
"""

from __future__ import annotations

import select
import sys
import time
from typing import Any

import psycopg
import zmq

from tests.benchmarks.workers.parent import arguments, next_command, tell
from tests.benchmarks.workers.subscribers import BARE_TOPIC
from wrapper.monitor.messages import encode
from wrapper.monitor.state import REFUSED, HealthUpdate, HostHealth


def main() -> None:
    given = arguments()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher = context.socket(zmq.PUB)
    publisher.bind(given["url"])
    tell("bound")
    session: psycopg.Connection[Any] | None = None
    sent = 0
    while True:
        ready, _, _ = select.select([sys.stdin] if session is None else [sys.stdin, session], [], [])
        if sys.stdin in ready:
            command = next_command()
            if command == "stop":
                break
            if command == "open":
                session = psycopg.connect(**given["login"], autocommit=True)
                tell("open")
                continue
        sent += 1
        health = HostHealth(given["key"], 1.0, 1.0, 1.0, 1, 0, REFUSED, detail="connection refused")
        data = encode(HealthUpdate(health), epoch=1, topic=BARE_TOPIC, seq=sent)
        began = time.monotonic()
        publisher.send_multipart([BARE_TOPIC.encode(), data])
        tell("sent", at=began, seq=sent)
        if session in ready:
            assert session is not None
            session.close()
            session = None
    context.destroy(linger=0)


if __name__ == "__main__":
    main()
