"""The minor upgrade of a Multi-AZ DB cluster, under a connection that writes all the time."""

from __future__ import annotations

import pytest

import wrapper
from tests.benchmarks.upgrades import Writer, play

from .conftest import FAST, Flavoured


@pytest.mark.slow
def test_a_writer_is_interrupted_once_and_loses_nothing(multi_az: Flavoured) -> None:
    """Readers that restart are nothing to it. What it was not told to be written may have been, once."""
    connection = multi_az.watched(**FAST)
    multi_az.run(connection, "CREATE TABLE written (x INT PRIMARY KEY)")
    writer = Writer(connection)
    try:
        play(multi_az.lab, writer)
    finally:
        writer.stop()
    (error,) = writer.refused
    assert isinstance(error, wrapper.FailoverSuccessError)
    assert multi_az.instance_of(connection) == multi_az.lab.writer.id
    stored = {row[0] for row in multi_az.run(connection, "SELECT x FROM written")}
    confirmed = {number for number, _ in writer.confirmed}
    assert confirmed <= stored
    assert len(stored - confirmed) <= 1
    multi_az.run(connection, "DROP TABLE written")
