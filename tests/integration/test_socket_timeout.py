"""`socket_timeout`: how long a call may wait for a server that owes an answer and says nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import wrapper
from tests.integration.conftest import eventually
from tests.integration.test_failover import instance_of
from tests.integration.test_session_state import terminate
from wrapper import AwsWrapperConnection
from wrapper.drivers import psycopg_guard
from wrapper.errors import AwsWrapperError, QueryTimeoutError
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
# More than a busy machine needs for what is answered at once.
LIMIT = 0.5
# Long enough that a test would end by pytest's own time-out.
FOREVER = "SELECT pg_sleep(1000)"


def silent(connection: Any, use: Callable[[Any], Any]) -> QueryTimeoutError:
    """Run what gets no answer; return the error, having looked at what must hold of each."""
    with pytest.raises(QueryTimeoutError, match=f"no answer within {LIMIT:g} s") as caught:
        use(connection)
    assert isinstance(caught.value, psycopg.OperationalError)
    assert connection.closed
    return caught.value


def stream(connection: Any) -> None:
    list(connection.cursor().stream(FOREVER))


def pipeline(connection: Any) -> None:
    with connection.pipeline():
        connection.execute(FOREVER)


def copy_out(connection: Any) -> None:
    with connection.cursor().copy(f"COPY ({FOREVER}) TO STDOUT") as copy:
        copy.read()


def server_cursor(connection: Any) -> None:
    with connection.transaction(), connection.cursor("named") as cursor:
        cursor.execute(FOREVER).fetchone()


def executemany(connection: Any) -> None:
    connection.cursor().executemany(FOREVER, [()])


def block(connection: Any) -> None:
    with connection.transaction():
        connection.execute(FOREVER)


USES = [lambda connection: connection.execute(FOREVER), executemany, stream, pipeline, copy_out, server_cursor, block]


@pytest.mark.parametrize("use", USES)
def test_every_kind_of_call_is_limited(connect: Connect, use: Callable[[Any], Any]) -> None:
    silent(connect(plugins="host_monitoring_v2", socket_timeout=LIMIT), use)


def test_a_connection_without_plugins_is_limited_too(connect: Connect) -> None:
    silent(connect(plugins="", socket_timeout=LIMIT), USES[0])


def test_a_connection_to_no_single_host_is_limited_too(aurora: LocalAurora) -> None:
    hosts = {"host": ",".join(instance.address for instance in aurora.instances), "port": str(aurora.port)}
    dsn = aurora.dsn(by_address=True)
    with AwsWrapperConnection.connect(psycopg.Connection.connect, dsn, **hosts, socket_timeout=LIMIT) as connection:
        silent(connection, USES[0])


def test_a_driver_that_cannot_be_limited_is_refused(aurora: LocalAurora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psycopg_guard, "CAN_LIMIT", False)
    with pytest.raises(AwsWrapperError, match=rf"socket_timeout={LIMIT} needs psycopg 3\.2\.11"):
        AwsWrapperConnection.connect(psycopg.Connection.connect, aurora.dsn(), plugins="", socket_timeout=LIMIT)


def test_zero_is_no_limit(connect: Connect) -> None:
    assert connect(socket_timeout=0).execute("SELECT 'done' FROM pg_sleep(0.4)").fetchone() == ("done",)


def test_copy_to_a_server_that_hangs(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(plugins="", socket_timeout=LIMIT)
    connection.execute("CREATE TEMP TABLE copied (x text)")

    def copy_in(connection: Any) -> None:
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            copy.write_row(("one",))
            aurora.hang("writer")

    silent(connection, copy_in)


def test_failover_follows(watched: Connect, aurora: LocalAurora) -> None:
    """As in the reference, a time-out means that the network failed. The writer is well: it is connected to again."""
    connection = watched(socket_timeout=LIMIT)
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        connection.execute("SELECT pg_sleep(10)")
    assert caught.value.outcome == "unknown"
    assert isinstance(caught.value.driver_error, QueryTimeoutError)
    assert instance_of(connection) == aurora.writer.id
    # The new connection is limited as well.
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT pg_sleep(10)")


def test_failover_from_a_server_that_hangs(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(socket_timeout=LIMIT, failure_detection_interval_ms=5000, failure_detection_count=5)
    old = aurora.writer.id
    aurora.hang("writer")
    aurora.promote_later(1.0)
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        connection.execute("SELECT 1")
    assert isinstance(caught.value.driver_error, QueryTimeoutError)
    assert instance_of(connection) == aurora.writer.id != old


def test_a_server_that_goes_on_answering_is_not_silent(connect: Connect) -> None:
    """The result takes much longer than the limit; no row does. Each is larger than the server's buffer, so that it is sent."""
    connection = connect(socket_timeout=1.0)
    rows = connection.execute("SELECT repeat('x', 20000), pg_sleep(0.2) FROM generate_series(1, 8)").fetchall()
    assert len(rows) == 8


def test_waiting_for_notifications_is_nobodys_debt(connect: Connect) -> None:
    connection = connect(socket_timeout=LIMIT)
    connection.execute("LISTEN here")
    assert list(connection.notifies(timeout=3 * LIMIT)) == []
    connection.execute("NOTIFY here")
    assert [found.channel for found in connection.notifies(timeout=3 * LIMIT, stop_after=1)] == ["here"]


def test_the_guard_still_sees_other_failures(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(socket_timeout=1000)
    physical = connection.plugin_service.physical(connection.target_connection)
    terminate(aurora, connection)
    with pytest.raises(psycopg.OperationalError):
        list(connection.notifies(timeout=20))
    assert isinstance(physical.failed, psycopg.OperationalError)
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        connection.execute("SELECT 1")
    assert caught.value.outcome == "not_sent"


def test_the_session_is_restored_after_a_timeout(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(socket_timeout=LIMIT)
    connection.execute("SET application_name = 'mine'")
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute(FOREVER)
    assert connection.execute("SELECT current_setting('application_name')").fetchone() == ("mine",)
    eventually(lambda: [s for s in aurora.sessions(aurora.writer.id) if s["application_name"] == "mine"], "the session to be there")
