"""What a row is made of, and the stage that rows play on: a local cluster, a monitor directory of its own, and worker processes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks.children import Child
from tests.benchmarks.monitor import Monitor
from tests.drivers import Driver, ask
from wrapper.monitor.paths import DIRECTORY_VARIABLE
from wrapper.testing import LocalAurora

OURS = "ours"
REFERENCE = "reference"
RAW = "raw"

# Workers of the rows that have many: the size of a small application server.
WORKERS = 8


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell. `met`: whether the goal was reached, None where there is none. `numbers`: what the text was made from."""

    text: str
    met: bool | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table. `before`: what the reference did with psycopg when it was first measured on such a machine. `engine`:
    the only one that the line is for."""

    what: str
    before: str
    goal: str
    engine: str | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared: its name, the Python that has it installed, and the driver below it."""

    name: str
    python: str
    driver: Driver


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, which fills one or more lines with one figure each. `compares`: the reference can be measured too."""

    name: str
    lines: tuple[Line, ...]
    measure: Callable[[Bench, Side], list[Figure]]
    compares: bool = True

    def lines_for(self, driver: Driver) -> list[Line]:
        """Return the lines that are measured with this driver."""
        return [line for line in self.lines if line.engine in (None, driver.engine.name)]


class Stage:
    """A cluster in good health, an empty monitor directory, and the processes started on it."""

    def __init__(self, lab: LocalAurora, side: Side, directory: Path) -> None:
        self.lab = lab
        self.side = side
        self.monitor = Monitor(directory)
        self._environment = {DIRECTORY_VARIABLE: str(directory)}
        self._children: list[Child] = []

    def start(
        self, module: str, *, side: str | None = None, instance: str | None = None, direct: bool = False, **arguments: Any
    ) -> Child:
        """Start a worker that connects to an instance, by default the writer. `side` is the stage's, or `raw`. `direct`: to the
        server itself, past the layer that makes an Aurora MySQL of it."""
        side = side or self.side.name
        parameters = {**self.parameters, **arguments.pop("parameters", {})} if side != RAW else {}
        given = {"side": side, "login": self.login(instance, direct=direct), "parameters": parameters, **arguments}
        child = Child(self.side.python, module, given, self._environment)
        self._children.append(child)
        return child

    @property
    def parameters(self) -> dict[str, Any]:
        """What either wrapper must be told of the cluster: how instances are addressed.

        The reference also gets the connect time-out that is our default: without one it waits minutes for a hung server.
        """
        pattern = {"cluster_instance_host_pattern": self.lab.instance_host_pattern}
        return pattern if self.side.name == OURS else {**pattern, "connect_timeout": 5}

    def login(self, instance: str | None = None, *, direct: bool = False, **more: Any) -> dict[str, Any]:
        """Return what a worker connects with: the driver's name, and what its connect function takes."""
        driver = self.side.driver
        return {"driver": driver.name, **driver.options, **self.lab.parameters(instance, by_address=True, direct=direct, **more)}

    def ask(self, *statements: str) -> list[tuple[Any, ...]]:
        """Have the writer execute statements of the application's user; return the rows of the last one."""
        with closing(self.side.driver.open(**self.lab.parameters(by_address=True))) as connection:
            return [ask(connection, statement) for statement in statements][-1]

    def admin(self, instance: str) -> Any:
        """Open a superuser connection of the driver alone, which no count of the application's sessions includes."""
        return self.side.driver.open(**self.lab.admin_parameters(instance), connect_timeout=5)

    def stop(self, child: Child, patience: float = 3.0) -> None:
        self._children.remove(child)
        child.stop(patience)

    def close(self) -> None:
        for child in self._children:
            child.command("stop")
        # Whatever hangs in a call to a hung server is ended at once: its numbers are in.
        for child in self._children:
            child.stop(0.5)
        self.monitor.stop()


class Bench:
    """One run of the suite. `quick`: fewer rounds, shorter waits."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self._labs: dict[tuple[str, bool, bool], LocalAurora] = {}

    def rounds(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @contextmanager
    def stage(self, side: Side, *, synchronous: bool = False, tls: bool = False) -> Iterator[Stage]:
        """Set the stage on one cluster that all rows share, put in order before each. `synchronous`, `tls`: see `LocalAurora`."""
        lab = self._lab(side.driver.engine.name, synchronous, tls)
        lab.reset()
        with tempfile.TemporaryDirectory(prefix="bench-") as directory:
            stage = Stage(lab, side, Path(directory))
            stage.ask("CREATE TABLE IF NOT EXISTS bench_writes (worker bigint, n bigint)", "TRUNCATE TABLE bench_writes")
            try:
                yield stage
            finally:
                stage.close()

    def _lab(self, engine: str, synchronous: bool, tls: bool) -> LocalAurora:
        kind = engine, synchronous, tls
        if kind not in self._labs:
            self.close()
            self._labs[kind] = LocalAurora(engine=engine, address_names=True, synchronous=synchronous, tls=tls, max_connections=300)
        return self._labs[kind]

    def close(self) -> None:
        """End the servers."""
        for lab in self._labs.values():
            lab.close()
        self._labs.clear()
