"""How a lab is set up."""

from __future__ import annotations

from dataclasses import dataclass

from wrapper.testing.errors import LabError

# Each flavor and its engine, by the code of the dialect that recognises it; the first of an engine is that engine's default.
FLAVORS = {
    f"{family}{code}": engine
    for code, engine in (("pg", "postgresql"), ("mysql", "mysql"))
    for family in ("aurora-", "multi-az-", "rds-", "")
}
ENGINES = tuple(dict.fromkeys(FLAVORS.values()))


@dataclass
class Options:
    """How a lab is set up; see `LocalAurora`."""

    directory: str
    instances: int = 3
    flavor: str = "aurora-pg"
    promote_delay: float = 0.0
    drop_sessions: bool = True
    synchronous: bool = False
    dns_delay: float = 0.0
    max_connections: int = 200
    address_names: bool = False
    suffix: str = "local-1.rds.test"
    tls: bool = False
    regions: tuple[str, ...] = ()

    @property
    def engine(self) -> str:
        return FLAVORS[self.flavor]

    @property
    def family(self) -> str:
        """The flavor whatever its engine: `aurora`, `multi-az`, `rds`, or nothing for what is nobody's but the engine's."""
        return self.flavor.rpartition("-")[0]

    def check(self) -> None:
        """Raise `LabError` for a value that cannot be."""
        if self.instances < 1 or self.instances > 15:
            raise LabError(f"instances={self.instances} is not valid: expected 1 to 15")
        if self.regions and (self.family != "aurora" or self.address_names or len(set(self.regions)) < 2):
            raise LabError(
                f"regions={','.join(self.regions)} is not valid: a Global Database is an Aurora with names in two regions"
            )
        if self.regions and self.instances % len(self.regions):
            raise LabError(f"instances={self.instances} is not valid: every region has equally many")


def choose_flavor(engine: str | None, flavor: str | None) -> str:
    """Return the flavor meant by the two arguments, either of which may be left out; a family alone means that of the engine, of
    PostgreSQL where none is given. Raises `LabError`."""
    if engine is not None and engine not in ENGINES:
        raise LabError(f"engine={engine!r} is not valid: expected {' or '.join(ENGINES)}")
    fitting = [name for name, its_engine in FLAVORS.items() if engine in (None, its_engine)]
    if flavor is None:
        return fitting[0]
    for name in fitting:
        if flavor and flavor in (name, name.rpartition("-")[0]):
            return name
    which = "" if engine is None else f" with engine={engine!r}"
    raise LabError(f"flavor={flavor!r} is not valid{which}: expected {', '.join(fitting)}, or what stands before the last '-'")
