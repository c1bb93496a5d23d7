"""A writer that was hung, replaced and resumed honestly claims to be the writer: nobody may believe it."""

from __future__ import annotations

import time

from tests.benchmarks.bench import Bench, Figure, Line, Row, Side
from tests.benchmarks.outages import TUNED, Fleet, play, recover
from wrapper.hosts import host_key

# Seconds for which the resumed writer is left to claim what it likes.
_WATCH = 5.0


def measure(bench: Bench, side: Side) -> list[Figure]:
    went_back = flips = failed = lost = 0
    rounds = bench.rounds(5, 2)
    with bench.stage(side) as stage:
        fleet = Fleet(stage, observe=True, parameters=dict(TUNED))
        for turn in range(rounds):
            if turn:
                recover(stage, fleet)
            old = stage.lab.writer
            lost += play(stage, fleet, stage.lab.hang).missing
            resumed = time.monotonic()
            stage.lab.resume(old.id)
            time.sleep(_WATCH if not bench.quick else _WATCH / 2)
            failed += len(fleet.failed(resumed))
            key = host_key(old.address, old.port)
            for worker in fleet.workers:
                went_back += sum(event.facts["host"] == old.direct_address for event in worker.events("back", resumed))
                flips += sum(event.facts["writer"] in (key, None) for event in worker.events("state", resumed))
        fleet.stop()
    text = f"{went_back} workers went back, {flips} changes of the writer in any state, {failed} failed queries ({rounds} rounds)"
    met = went_back == flips == failed == lost == 0
    return [Figure(text, met, {"went_back": went_back, "flips": flips, "failed": failed, "not_back_in_time": lost})]


ROW = Row(
    "old_writer_resumed",
    (Line("old writer hung, another promoted, old one resumed: does anybody go back, flip-flop", "-", "nobody"),),
    measure,
    compares=False,
)
