"""Makes one call that the server takes minutes for, and reports how it ended."""

from __future__ import annotations

from tests.benchmarks.workers.connecting import connect
from tests.benchmarks.workers.parent import arguments, listen, tell
from tests.drivers import engine_of, one


def main() -> None:
    given = arguments()
    stopping = listen()
    connection = connect(given["side"], given["login"], given["parameters"])
    tell("calling")
    try:
        one(connection, engine_of(connection).sleep.format(300))
    except Exception as error:  # noqa: BLE001  that is the answer
        tell("ended", error=type(error).__name__)
    else:
        tell("ended", error="no error")
    stopping.wait()


if __name__ == "__main__":
    main()
