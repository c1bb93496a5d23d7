"""`aurora_connection_tracker` with MySQL: idle connections to a replaced writer end, busy ones when they are done."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any

import pytest

from tests.integration.conftest import eventually
from tests.integration.test_connection_tracker import handle_of, is_running, replace_writer
from wrapper import errors
from wrapper.testing import LocalAurora

from .conftest import Connect, one

TRACKED = {"plugins": "aurora_connection_tracker,failover"}


def test_idle_connections_end_and_busy_ones_are_left_to_finish(aurora_mysql: LocalAurora, connect: Connect, raw: Connect) -> None:
    first, idle, busy = (connect(**TRACKED) for _ in range(3))
    old = aurora_mysql.writer.id
    answers: list[Any] = []
    with closing(raw(old)) as holder:
        assert one(holder, "SELECT GET_LOCK('busy', 0)") == 1
        # The answer before must not be taken for that to the statement that waits.
        one(busy, "SELECT 1")
        statement = threading.Thread(target=lambda: answers.append(one(busy, "SELECT GET_LOCK('busy', 60)")))
        statement.start()
        eventually(lambda: is_running(aurora_mysql, "GET_LOCK('busy', 60)"), "the statement to run")
        assert handle_of(busy).in_use()
        eventually(handle_of(idle).is_idle, "the connection to be idle for a moment")
        replace_writer(aurora_mysql)
        connect(plugins="failover_v2")  # by the endpoint's name: finds the new writer
        with pytest.raises(errors.FailoverSuccessError):
            one(first, "SELECT 1")
        assert handle_of(idle).is_severed()
        assert not handle_of(busy).is_severed()
        one(holder, "SELECT RELEASE_LOCK('busy')")
        statement.join(20)
    assert answers == [1]
    with pytest.raises(errors.FailoverSuccessError) as caught:
        one(busy, "SELECT 1")
    assert caught.value.outcome == "not_sent"
    assert one(busy, "SELECT @@aurora_server_id") == aurora_mysql.writer.id
