"""What each plugin alone, none, and the default list add to each kind of call and to connecting."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.bench import Bench, Figure, Line, Row, Side, Stage
from tests.drivers import MYSQL
from wrapper.drivers.psycopg import PsycopgDialect
from wrapper.pipeline import plugin_codes

DEFAULT = PsycopgDialect.default_plugins
LISTS = (DEFAULT, "", *plugin_codes())
EXECUTE_GOAL = 1.10
# For psycopg: connecting takes a MariaDB 0.4 ms, so little that a ratio says nothing of the wrapper; the times do.
# A server that says what it is without being asked (PostgreSQL 14) saves the wrapper a round trip.
CONNECT_GOAL = 1.05
CONNECT_AND_ASK_GOAL = 1.3


def measure(bench: Bench, side: Side) -> list[Figure]:
    rounds = bench.rounds(60, 12)
    turns = {
        "execute": (300, rounds),
        "executemany": (3, rounds),
        "transaction": (60, rounds),
        "connect": (5, rounds),
        "connect by name": (5, rounds),
        "connect with TLS": (5, rounds),
    }
    with bench.stage(side, tls=side.driver.engine is not MYSQL) as stage:
        return [_measure(stage, plugins, turns) for plugins in LISTS]


def _measure(stage: Stage, plugins: str, turns: dict[str, tuple[int, int]]) -> Figure:
    is_mysql = stage.side.driver.engine is MYSQL
    login = stage.login(direct=True) if is_mysql else {**stage.login(), "sslmode": "disable"}
    others = {} if is_mysql else _other_logins(stage)
    needed = {"failover_home_region": "us-east-1", "cluster_instance_host_pattern": stage.lab.instance_host_pattern}
    parameters = {"plugins": plugins, **(needed if plugins == "gdb_failover" else {})}
    child = stage.start("plugin_cost", login=login, turns=turns, others=others, parameters=parameters)
    child.expect("ready", timeout=20)
    if plugins:
        # Without the layer in front, a server of an Aurora MySQL is the only one that anybody knows.
        stage.monitor.wait_until_watching(1 if is_mysql else len(stage.lab.instances))
    child.command("go")
    reports_role = child.expect("done", timeout=240).facts["reports_role"]
    found = {event.facts["operation"]: dict(event.facts) for event in child.events("measured")}
    stage.stop(child)
    text = ", ".join(f"{name} {numbers['ratio']:.2f}{_times(name, numbers)}" for name, numbers in found.items())
    control = ", ".join(f"{numbers['control']:.2f}" for numbers in found.values())
    return Figure(f"{text} x (raw over raw {control})", _met(found, reports_role, is_mysql) if plugins == DEFAULT else None, found)


def _other_logins(stage: Stage) -> dict[str, dict[str, Any]]:
    """For psycopg alone: mysql-connector-python takes no address beside the name."""
    authority = stage.lab.certificate_authority
    return {
        "connect by name": {**stage.login(hostaddr=stage.lab.writer.address), "host": _CLUSTER, "sslmode": "disable"},
        "connect with TLS": {**stage.login(), "sslmode": "verify-full", "sslrootcert": str(authority)},
    }


def _times(operation: str, numbers: dict[str, Any]) -> str:
    if not operation.startswith("connect"):
        return ""
    return f" ({numbers['raw'] * 1000:.2f} → {numbers['seconds'] * 1000:.2f} ms)"


# The name of a cluster endpoint; the address beside it is the writer's, as the resolver would have it.
_CLUSTER = "lab.cluster-bench.local-1.rds.test"


def _met(found: dict[str, dict[str, Any]], reports_role: bool, is_mysql: bool) -> bool:
    goals = {"execute": EXECUTE_GOAL}
    if not is_mysql:
        goal = CONNECT_GOAL if reports_role else CONNECT_AND_ASK_GOAL
        goals |= {operation: goal for operation in found if operation.startswith("connect")}
    return all(found[operation]["ratio"] <= goal for operation, goal in goals.items())


def _line(plugins: str) -> Line:
    if plugins == DEFAULT:
        return Line(f"`plugins={plugins}` (the default), over the raw driver", "", "execute ≤ 1.10 x; psycopg: connects ≤ 1.05 x")
    return Line(f"`plugins={plugins}`" if plugins else "`plugins=` (none)", "", "")


ROW = Row("plugin_cost", tuple(_line(plugins) for plugins in LISTS), measure, compares=False)
