"""What `import wrapper` costs a process that has the driver already, before it connects to anything."""

from __future__ import annotations

from statistics import median

from tests.benchmarks.bench import Bench, Figure, Line, Row, Side
from tests.benchmarks.children import Child
from tests.benchmarks.stats import mebibytes

GOAL = "≤ 20 ms, ≤ 2 MiB, 0 threads"


def measure(bench: Bench, side: Side) -> list[Figure]:
    samples: dict[str, list[dict[str, float]]] = {"imported": [], "usable": []}
    # Fresh processes, one after the other; the first one fills the page cache and does not count.
    for turn in range(bench.rounds(16, 6)):
        child = Child(side.python, "footprint", {"side": side.name, "driver": side.driver.name}, {})
        try:
            driver = child.expect("driver", 30).facts
            for step, taken in samples.items():
                facts = child.expect(step, 30).facts
                if turn:
                    taken.append({name: facts[name] - driver.get(name, 0) for name in ("seconds", "private_kib", "threads")})
        finally:
            child.stop()
    return [_figure(taken) for taken in samples.values()]


def _figure(samples: list[dict[str, float]]) -> Figure:
    took, kib, threads = (median(sample[name] for sample in samples) for name in ("seconds", "private_kib", "threads"))
    met = took <= 0.020 and kib <= 2048 and threads == 0
    return Figure(f"{took * 1000:.1f} ms, {mebibytes(kib)}, {threads:.0f} threads", met, {"samples": samples})


ROW = Row(
    "import_cost",
    (
        Line("`import wrapper` on top of the driver: time, private memory, threads", "+200-300 ms, +42-56 MiB, 2 threads", GOAL),
        Line("the same and what it takes to connect: `from wrapper import AwsWrapperConnection`", "", GOAL),
    ),
    measure,
)
