"""The lab's Global Database, as the drivers alone see it: what the servers say of themselves, switchovers, lost regions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mysql.connector
import psycopg
import pytest

from wrapper.testing import LabError, LocalAurora, LocalGlobalDatabase
from wrapper.testing.global_database import REGIONS

from .test_command_line import run

pytestmark = pytest.mark.slow

HOME, AWAY = REGIONS
TABLES = {
    "postgresql": ("aurora_global_db_instance_status()", "aurora_replica_status()"),
    "mysql": ("information_schema.aurora_global_db_instance_status", "information_schema.replica_host_status"),
}


@pytest.fixture(scope="module", params=["postgresql", "mysql"])
def lab_of_two_regions(request: pytest.FixtureRequest) -> Iterator[LocalGlobalDatabase]:
    with LocalGlobalDatabase(engine=request.param) as lab:
        yield lab


@pytest.fixture
def lab(lab_of_two_regions: LocalGlobalDatabase) -> LocalGlobalDatabase:
    lab_of_two_regions.restore()
    return lab_of_two_regions


def ask(lab: LocalAurora, instance: str, sql: str) -> list[tuple[Any, ...]]:
    parameters = lab.parameters(instance, by_address=True, autocommit=True)
    connection: Any = (
        mysql.connector.connect(**parameters, use_pure=True) if lab.engine == "mysql" else psycopg.connect(**parameters)
    )
    with closing(connection):
        cursor = connection.cursor()
        cursor.execute(sql)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


def members(lab: LocalGlobalDatabase, instance: str) -> dict[str, str]:
    """Region by instance, as an instance tells it; the writer's in capitals."""
    sql = f"SELECT server_id, session_id = 'MASTER_SESSION_ID', aws_region FROM {TABLES[lab.engine][0]}"
    return {name: (region.upper() if is_writer else region) for name, is_writer, region in ask(lab, instance, sql)}


def members_of_region(lab: LocalGlobalDatabase, instance: str) -> dict[str, bool]:
    """Whether it is the writer by instance of the same region, as an instance tells it."""
    sql = f"SELECT server_id, session_id = 'MASTER_SESSION_ID' FROM {TABLES[lab.engine][1]}"
    return {name: bool(is_writer) for name, is_writer in ask(lab, instance, sql)}


def test_every_instance_lists_all_and_its_region(lab: LocalGlobalDatabase) -> None:
    writer = lab.writer.id
    regions = {one.id: region for region in REGIONS for one in lab.in_region(region)}
    assert list(regions.values()) == [HOME, HOME, AWAY, AWAY]
    for instance in regions:
        assert members(lab, instance) == {**regions, writer: HOME.upper()}
        assert members_of_region(lab, instance) == {one.id: one.id == writer for one in lab.in_region(regions[instance])}


def test_names_follow_the_writer(lab: LocalGlobalDatabase) -> None:
    def addresses() -> dict[str, str]:
        lines = Path(lab.hosts_file).read_text().splitlines()
        return {name: address for address, name in (line.split() for line in lines)}

    for region in (HOME, AWAY):
        if region != lab.region:
            lab.switchover(region)
        names = addresses()
        assert names[lab.global_endpoint] == names[lab.endpoint(region)] == lab.writer.address
        for other in REGIONS:
            readers = [one.address for one in lab.in_region(other) if one != lab.writer]
            assert names[lab.endpoint(other, "reader")] in readers


def test_a_switchover_loses_nothing_and_the_old_region_follows(lab: LocalGlobalDatabase) -> None:
    ask(lab, lab.writer.id, "DROP TABLE IF EXISTS kept")
    ask(lab, lab.writer.id, "CREATE TABLE kept (x INT)")
    ask(lab, lab.writer.id, "INSERT INTO kept VALUES (1)")
    report = lab.switchover(AWAY)
    assert lab.region == AWAY
    assert ask(lab, report.new_writer, "SELECT x FROM kept") == [(1,)]
    ask(lab, report.new_writer, "INSERT INTO kept VALUES (2)")
    lab.switchover(HOME)
    assert ask(lab, lab.writer.id, "SELECT x FROM kept ORDER BY x") == [(1,), (2,)]


def test_failover_stays_in_the_region_and_fails_without_a_reader_there(lab: LocalGlobalDatabase) -> None:
    old = lab.writer.id
    lab.failover(rejoin=False)
    assert lab.region == HOME
    with pytest.raises(LabError, match="no reader is running"):
        lab.failover()
    lab.start(old)


def test_a_lost_region_is_detached_and_can_come_back(lab: LocalGlobalDatabase) -> None:
    report = lab.fail_over_region()
    assert (lab.region, lab.status()["detached"]) == (AWAY, [HOME])
    assert set(members(lab, report.new_writer).values()) == {AWAY, AWAY.upper()}
    lab.start(report.old_writer)
    assert members(lab, report.old_writer) == {}
    assert members_of_region(lab, report.old_writer)[report.old_writer]
    assert [entry["role"] for entry in lab.status()["instances"]].count("writer") == 2
    lab.rejoin_region(HOME)
    assert len(members(lab, report.old_writer)) == 4
    assert [entry["role"] for entry in lab.status()["instances"]].count("writer") == 1


def test_what_cannot_be_is_said(lab: LocalGlobalDatabase) -> None:
    with pytest.raises(LabError, match="has the writer already"):
        lab.switchover(HOME)
    with pytest.raises(LabError, match=r"no region 'mars': expected us-east-1 or eu-west-1"):
        lab.switchover("mars")
    lab.kill_region(AWAY)
    with pytest.raises(LabError, match="nobody can be promoted"):
        lab.fail_over_region()
    assert lab.region == HOME
    with pytest.raises(LabError, match="regions=a is not valid"):
        LocalGlobalDatabase(regions=["a"])
    with pytest.raises(LabError, match=r"regions=.* is not valid"):
        LocalGlobalDatabase(flavor="pg")


def test_from_a_shell(tmp_path: Path) -> None:
    directory = Path(f"/tmp/aurora-lab-global-{os.getpid()}")
    there = ("--directory", str(directory))
    command = [sys.executable, "-m", "wrapper.testing", "up", "--regions", f"{HOME},{AWAY}", "--instances", "1", *there]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("instance-2"):
            assert line, "`up` ended early"
        run("switchover", AWAY, *there)
        assert json.loads(run("status", "--json", *there))["region"] == AWAY
        run("fail-over-region", HOME, *there)
        assert json.loads(run("status", "--json", *there))["detached"] == [AWAY]
        run("rejoin-region", AWAY, *there)
        run("kill-region", AWAY, *there)
        assert "has the writer already" in run("switchover", HOME, *there, status=1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
