"""Failover of real connections between real servers, under real faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

import wrapper
from tests.drivers import ask, engine_of, one
from tests.integration.conftest import client, drivers, eventually
from wrapper.errors import AwsWrapperError
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
# Quick to give a host up, and not so quick that a busy machine makes a healthy one look silent.
FAST = {"failure_detection_interval_ms": 100, "failure_detection_count": 6}


def instance_of(connection: Any) -> str:
    """The instance that answers on the connection."""
    return str(one(connection, engine_of(connection).instance))


class Blocked:
    """A statement that runs on a thread of its own, and how it ended."""

    def __init__(self, connection: Any, seconds: float = 60) -> None:
        self.error: BaseException | None = None
        self.ended_at = 0.0
        self._sent = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(connection, engine_of(connection).sleep.format(seconds)))
        self._thread.start()

    def _run(self, connection: Any, expression: str) -> None:
        self._sent.set()
        try:
            one(connection, expression)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            self.error = error
        self.ended_at = time.monotonic()

    def wait(self, timeout: float = 20.0) -> BaseException | None:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"the statement was still blocked after {timeout} s"
        return self.error


def is_active(lab: LocalAurora, instance: str) -> bool:
    """Whether a statement that sleeps is being executed."""
    return any(
        "sleep(" in session["query"].lower() and session["state"] in ("active", "Query") for session in lab.sessions(instance)
    )


def is_superseded(connection: Any) -> bool:
    """Whether this process knows that the connection's host is the writer no longer."""
    cluster = client().state.by_watch(connection.plugin_service.watch.key)
    return cluster is not None and cluster.topology.writer != connection.plugin_service.current_host_info.key


def test_an_idle_connection_fails_over_before_anything_is_sent(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched()
    cursor = connection.cursor()
    old = instance_of(connection)
    aurora.kill("writer")
    aurora.promote_later(0.3, rejoin=False)
    eventually(lambda: is_superseded(connection), "the new writer to be known")
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        cursor.execute("SELECT 1")
    assert caught.value.outcome == "not_sent"
    assert isinstance(caught.value, psycopg.OperationalError)
    assert instance_of(connection) == aurora.writer.id != old
    for use in (lambda: cursor.execute("SELECT 1"), cursor.fetchone, lambda: list(cursor), lambda: next(iter(cursor))):
        with pytest.raises(AwsWrapperError, match="replaced"):
            use()
    cursor.close()


@drivers("psycopg", "mysql-extension", slow=("mysql-pure",))
def test_an_idle_connection_to_a_host_that_has_restarted(watched: Connect, lab: LocalAurora) -> None:
    """The host is well and the writer again; nothing is sent to the connection that died with its former life."""
    connection = watched()
    key = connection.plugin_service.current_host_info.key
    old = instance_of(connection)
    lab.kill(old)

    def health() -> Any:
        cluster = client().state.by_watch(connection.plugin_service.watch.key)
        assert cluster is not None
        return cluster.health[key]

    eventually(lambda: health().is_failing, "the end of the writer to be known")
    lab.start(old)
    eventually(lambda: health().failed_before is not None, "its return to be known")
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        ask(connection, "SELECT 1")
    assert caught.value.outcome == "not_sent"
    assert instance_of(connection) == old


def test_a_statement_in_flight_has_an_unknown_outcome(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched()
    old = aurora.writer.id
    blocked = Blocked(connection)
    eventually(lambda: is_active(aurora, old), "the statement to run")
    aurora.kill("writer")
    aurora.promote_later(0.3, rejoin=False)
    error = blocked.wait()
    assert isinstance(error, wrapper.FailoverSuccessError)
    assert error.outcome == "unknown"
    assert isinstance(error.driver_error, psycopg.OperationalError)
    assert error.__cause__ is error.driver_error
    assert instance_of(connection) == aurora.writer.id != old


def test_a_restart_in_place_is_a_failover_to_the_same_host(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched()
    aurora.kill("instance-1" if aurora.writer.id == "instance-1" else aurora.writer.id)
    aurora.start(aurora.writer.id)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id


def test_an_open_transaction_ends_with_its_fate_unknown(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(autocommit=False)
    connection.execute("SELECT 1")
    aurora.kill("writer")
    aurora.promote_later(0.2, rejoin=False)
    with pytest.raises(wrapper.TransactionResolutionUnknownError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id


def test_a_switch_inside_a_block_never_commits_half_of_it(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched()
    connection.execute("CREATE TABLE halves (x int)")
    eventually(lambda: replicated(aurora, "halves"), "the table to reach the readers")

    def work() -> None:
        with connection.transaction():
            connection.execute("INSERT INTO halves VALUES (1)")
            aurora.kill("writer")
            aurora.promote_later(0.1, rejoin=False)
            with pytest.raises(wrapper.TransactionResolutionUnknownError):
                connection.execute("INSERT INTO halves VALUES (2)")
            # Still inside: nothing may be done that looks like the same transaction.
            with pytest.raises(wrapper.TransactionResolutionUnknownError):
                connection.execute("INSERT INTO halves VALUES (3)")
            with pytest.raises(wrapper.TransactionResolutionUnknownError):
                connection.cursor()

    with pytest.raises(wrapper.TransactionResolutionUnknownError):
        work()
    assert connection.execute("SELECT count(*) FROM halves").fetchone() == (0,)
    connection.execute("DROP TABLE halves")


def test_leaving_a_with_block_that_met_a_switch_raises(watched: Connect, aurora: LocalAurora) -> None:
    def work() -> None:
        with watched(autocommit=False) as connection:
            connection.execute("SELECT 1")
            aurora.kill("writer")
            aurora.promote_later(0.1, rejoin=False)
            with pytest.raises(wrapper.TransactionResolutionUnknownError):
                connection.execute("SELECT 1")

    with pytest.raises(wrapper.TransactionResolutionUnknownError):
        work()


def replicated(lab: LocalAurora, table: str) -> bool:
    for instance in lab.readers:
        with psycopg.connect(lab.admin_dsn(instance.id)) as connection:
            if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
                return False
    return True


@pytest.mark.parametrize("busy", [True, False])
@drivers("psycopg", "mysql-extension", slow=("mysql-pure",))
def test_a_hung_writer_is_left_on_the_evidence(watched: Connect, lab: LocalAurora, busy: bool) -> None:
    connection = watched(**FAST)
    old = lab.writer.id
    handle = connection.plugin_service.physical(connection.target_connection).handle
    blocked = Blocked(connection) if busy else None
    if busy:
        eventually(lambda: is_active(lab, old), "the statement to run")
    lab.hang("writer")
    lab.promote_later(0.5, rejoin=False)
    eventually(lambda: handle.aborted_by is not None, "the connection to be given up")
    assert handle.aborted_by.kind == "silent"
    if blocked is not None:
        assert isinstance(blocked.wait(), wrapper.FailoverSuccessError)
    else:
        with pytest.raises(wrapper.FailoverSuccessError):
            ask(connection, "SELECT 1")
    assert instance_of(connection) != old
    # The old writer comes back and honestly believes that it still is the writer: nobody goes back to it.
    lab.resume(old)
    health = eventually(lambda: answers(connection, old, lab), "the old writer to answer the monitor")
    assert health.role == "writer"
    assert instance_of(connection) == lab.writer.id != old


def answers(connection: Any, instance: str, lab: LocalAurora) -> Any:
    cluster = client().state.by_watch(connection.plugin_service.watch.key)
    assert cluster is not None
    health = next(health for key, health in cluster.health.items() if key.startswith(f"{lab.instance(instance).endpoint}:"))
    return health if not health.is_failing and health.role == "writer" else None


def test_each_connection_judges_by_its_own_settings(watched: Connect, aurora: LocalAurora) -> None:
    """One hung host, two connections: the impatient one is given up, the patient one is left alone and finishes its statement."""
    impatient = watched(**FAST)
    patient = watched(failure_detection_interval_ms=5000, failure_detection_count=5)
    writer = aurora.writer.id
    blocked = Blocked(patient, 1)
    eventually(lambda: is_active(aurora, writer), "the statement to run")
    handle = impatient.plugin_service.physical(impatient.target_connection).handle
    aurora.hang("writer")
    eventually(lambda: handle.aborted_by is not None, "the impatient connection to be given up")
    aurora.resume(writer)
    assert blocked.wait() is None
    with pytest.raises(wrapper.FailoverSuccessError):
        impatient.execute("SELECT 1")


def test_a_healthy_statement_may_last_longer_than_everything(watched: Connect) -> None:
    connection = watched(**FAST)
    assert connection.execute("SELECT 'done' FROM pg_sleep(1.5)").fetchone() == ("done",)


def test_a_planned_switchover_is_followed(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched()
    old = aurora.writer.id
    aurora.failover()
    eventually(lambda: is_superseded(connection), "the new writer to be known")
    with pytest.raises(wrapper.FailoverSuccessError) as caught:
        connection.execute("SELECT 1")
    assert caught.value.outcome == "not_sent"
    assert instance_of(connection) == aurora.writer.id != old


def test_a_read_only_transaction_of_the_applications_own_is_no_failover(watched: Connect) -> None:
    connection = watched(autocommit=False)
    connection.read_only = True
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
        connection.execute("CREATE TABLE never (x int)")
    assert not isinstance(caught.value, wrapper.FailoverError)


def test_session_state_moves_along(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(autocommit=False, row_factory=dict_row)
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.read_only = True
    connection.prepare_threshold = 2
    aurora.failover()
    eventually(lambda: is_superseded(connection), "the new writer to be known")
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert connection.autocommit is False
    assert connection.isolation_level is psycopg.IsolationLevel.SERIALIZABLE
    assert connection.read_only is True
    assert connection.prepare_threshold == 2
    row = connection.execute("SELECT current_setting('transaction_isolation') AS i, current_setting('transaction_read_only') AS r")
    assert row.fetchone() == {"i": "serializable", "r": "on"}


@pytest.mark.parametrize("mode", ["strict_reader", "reader-or-writer"])
def test_a_killed_reader_is_left_for_another(watched: Connect, aurora: LocalAurora, mode: str) -> None:
    first, second = aurora.readers
    connection = watched(first.id, failover_mode=mode)
    assert instance_of(connection) == first.id
    aurora.kill(first.id)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == second.id == connection.plugin_service.current_host_info.host_id


def test_reader_or_writer_takes_the_writer_when_no_reader_is_left(watched: Connect, aurora: LocalAurora) -> None:
    first, second = aurora.readers
    connection = watched(first.id, failover_mode="reader_or_writer")
    aurora.kill(second.id)
    aurora.kill(first.id)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id


def test_a_connection_to_a_reader_is_left_alone_while_it_works(watched: Connect, aurora: LocalAurora) -> None:
    """The default mode wants a writer, but only a failure moves a connection that was opened to a reader."""
    reader = aurora.readers[0]
    connection = watched(reader.id)
    aurora.failover(aurora.readers[1].id)
    assert instance_of(connection) == reader.id


def test_nobody_within_the_time_is_an_error_that_names_what_is_known(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched(failover_timeout_sec=1.0)
    aurora.kill("writer")
    with pytest.raises(wrapper.FailoverFailedError, match=r"no writer proved itself within 1 s.*instance-") as caught:
        connection.execute("SELECT 1")
    assert isinstance(caught.value, psycopg.OperationalError)


def test_connect_failover(watched: Connect, aurora: LocalAurora) -> None:
    """With the name still leading to the dead writer, a new connection finds the new one."""
    watched()
    old = aurora.writer.id
    aurora.kill(old)
    aurora.promote_later(0.2, rejoin=False)
    connection = watched(old, enable_connect_failover=True)
    assert instance_of(connection) == aurora.writer.id != old


def test_without_enable_connect_failover_the_drivers_error_comes_out(watched: Connect, aurora: LocalAurora) -> None:
    watched()
    old = aurora.writer.id
    aurora.kill(old)
    with pytest.raises(psycopg.OperationalError, match=r"refused|does not answer") as caught:
        watched(old)
    assert not isinstance(caught.value, wrapper.FailoverError)


def test_without_a_monitor_the_worker_finds_the_writer_itself(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(monitor_mode="off")
    old = aurora.writer.id
    aurora.kill("writer")
    aurora.promote_later(0.3, rejoin=False)
    with pytest.raises(wrapper.FailoverError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id != old
    aurora.failover()
    with pytest.raises(wrapper.FailoverError):
        connection.execute("SELECT 1")
    assert instance_of(connection) == aurora.writer.id


def test_failures_outside_the_chain_are_noticed_by_the_next_call(watched: Connect, aurora: LocalAurora) -> None:
    """COPY, streams and server-side cursors end with the driver's error; the next call fails over before it sends."""
    connection = watched()

    def lose_while_streaming() -> None:
        for row in connection.cursor().stream("SELECT generate_series(1, 2000000)"):
            if row == (1,):
                aurora.kill("writer")
                aurora.promote_later(0.2, rejoin=False)

    with pytest.raises(psycopg.OperationalError) as caught:
        lose_while_streaming()
    assert not isinstance(caught.value, wrapper.FailoverError)
    with pytest.raises(wrapper.FailoverSuccessError) as success:
        connection.execute("SELECT 1")
    assert success.value.outcome == "not_sent"
    assert instance_of(connection) == aurora.writer.id


def test_a_cursor_that_the_application_makes_itself(watched: Connect, aurora: LocalAurora) -> None:
    """As psycopg's documentation does it. Its statements pass the chain by, but it does not stay on a lost connection for ever."""
    connection, kind = watched(), psycopg.ClientCursor
    cursor = kind(connection)
    assert cursor.execute("SELECT 1").fetchone() == (1,)
    assert cursor.connection is connection
    aurora.kill("writer")
    aurora.promote_later(0.2, rejoin=False)
    # The first call gets the driver's own error, unless somebody else noticed the loss before.
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError) as caught:
            kind(connection).execute("SELECT 1")
        if isinstance(caught.value, wrapper.FailoverError):
            break
    assert isinstance(caught.value, wrapper.FailoverSuccessError)
    assert caught.value.outcome == "not_sent"
    assert kind(connection).execute("SELECT inet_server_addr() IS NOT NULL").fetchone() == (True,)
    assert instance_of(connection) == aurora.writer.id
    with pytest.raises(psycopg.OperationalError):
        cursor.execute("SELECT 1")


def test_a_copy_that_is_lost_breaks_its_block(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched()
    connection.execute("CREATE TABLE copied (x text)")
    eventually(lambda: replicated(aurora, "copied"), "the table to reach the readers")

    def lose_copy() -> None:
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            copy.write_row(("one",))
            aurora.kill("writer")
            aurora.promote_later(0.2, rejoin=False)

    with pytest.raises(psycopg.OperationalError):
        lose_copy()
    try:
        connection.execute("SELECT 1")
    except wrapper.FailoverError:
        pass
    assert connection.execute("SELECT count(*) FROM copied").fetchone() == (0,)
    connection.execute("DROP TABLE copied")
