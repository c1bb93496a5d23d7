"""What an application has set on a connection, after the connection was replaced; and what becomes of the old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

import wrapper
from tests.integration.conftest import eventually
from tests.integration.test_failover import instance_of
from wrapper.pipeline import _REGISTRY
from wrapper.plugin import NOTIFY_CONNECTION_CHANGED, ConnectionEvent, OldConnectionSuggestedAction, Plugin
from wrapper.session_state import SessionStateTransferHandlers, TrackedSession
from wrapper.testing import LocalAurora

Connect = Callable[..., Any]
NAME = "under-test"


class Keeper(Plugin):
    """Answers for the old connection as it is told."""

    answer = OldConnectionSuggestedAction.NO_OPINION

    @property
    def subscribed_methods(self) -> set[str]:
        return {NOTIFY_CONNECTION_CHANGED}

    def notify_connection_changed(self, changes: set[ConnectionEvent]) -> OldConnectionSuggestedAction:
        return Keeper.answer


class KeeperFactory:
    @staticmethod
    def get_instance(plugin_service: Any, props: Mapping[str, Any]) -> Plugin:
        return Keeper()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    wrapper.register_plugin("keeper", KeeperFactory)
    yield
    del _REGISTRY["keeper"]
    Keeper.answer = OldConnectionSuggestedAction.NO_OPINION
    SessionStateTransferHandlers.reset_transfer_session_state_on_switch_func()


def open_another(connection: Any) -> Any:
    """A second connection to the same host, as a plugin opens it."""
    service = connection.plugin_service
    return service.connect(service.current_host_info, dict(service.parameters))


def switch(connection: Any, to: Any = None) -> Any:
    """Have the wrapper connection lead to another session, as a plugin does; return that."""
    new = open_another(connection) if to is None else to
    service = connection.plugin_service
    service.set_current_connection(new, service.physical(new).host_info)
    assert connection.target_connection is new
    return new


def terminate(lab: LocalAurora, connection: Any) -> None:
    """End a session from the server's side."""
    with psycopg.connect(lab.admin_dsn(lab.writer.id)) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))


def lose(connection: Any, lab: LocalAurora) -> None:
    """End the connection's session; let the next call find another one."""
    terminate(lab, connection)
    with pytest.raises(wrapper.FailoverError):
        connection.execute("SELECT 1")


def shown(connection: Any, name: str) -> str:
    (value,) = connection.target_connection.cursor(row_factory=psycopg.rows.tuple_row).execute(f"SHOW {name}").fetchone()
    return str(value)


class Cursor(psycopg.Cursor[Any]):
    pass


class ServerCursor(psycopg.ServerCursor[Any]):
    pass


class Upper(psycopg.adapt.Dumper):
    def dump(self, obj: Any) -> bytes:
        return str(obj).upper().encode()


def set_all(connection: Any) -> dict[str, Any]:
    values = {
        "autocommit": False,
        "isolation_level": psycopg.IsolationLevel.SERIALIZABLE,
        "read_only": True,
        "deferrable": True,
        "row_factory": dict_row,
        "cursor_factory": Cursor,
        "server_cursor_factory": ServerCursor,
        "prepare_threshold": 2,
        "prepared_max": 7,
    }
    for name, value in values.items():
        setattr(connection, name, value)
    return values


def test_what_was_set_survives_the_writer(watched: Connect, aurora: LocalAurora) -> None:
    connection = watched()
    notices: list[Any] = []
    notifications: list[Any] = []
    connection.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    connection.add_notify_handler(notifications.append)
    connection.adapters.register_dumper(str, Upper)
    for name, value in (
        ("TimeZone", "Asia/Tokyo"),
        ("DateStyle", "German"),
        ("client_encoding", "LATIN1"),
        ("IntervalStyle", "iso_8601"),
    ):
        connection.execute(f"SET {name} = '{value}'")
    connection.execute("SET application_name = 'it''s mine'")
    values = set_all(connection)
    old = aurora.writer.id
    aurora.kill("writer")
    aurora.promote_later(0.1, rejoin=False)
    with pytest.raises(wrapper.FailoverSuccessError):
        connection.execute("SELECT 1")

    assert {name: getattr(connection, name) for name in values} == values
    row = connection.execute(
        "SELECT aurora_db_instance_identifier() AS host, current_setting('transaction_isolation') AS isolation, "
        "current_setting('transaction_read_only') AS read_only, current_setting('transaction_deferrable') AS deferrable, "
        "%s AS dumped",
        ("shout",),
    ).fetchone()
    assert row.pop("host") == aurora.writer.id != old
    assert row == {"isolation": "serializable", "read_only": "on", "deferrable": "on", "dumped": "SHOUT"}
    settings = ("TimeZone", "DateStyle", "client_encoding", "IntervalStyle", "application_name")
    assert [shown(connection, name) for name in settings] == ["Asia/Tokyo", "German, DMY", "LATIN1", "iso_8601", "it's mine"]
    assert connection.info.encoding == "iso8859-1"
    connection.rollback()
    connection.autocommit = True
    connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    connection.execute("LISTEN here; NOTIFY here")
    assert notices == ["hello"]
    assert [notification.channel for notification in notifications] == ["here"]


def test_what_was_never_touched_is_the_new_servers(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect()
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    with psycopg.connect(aurora.admin_dsn(aurora.writer.id), autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {aurora.user} SET DateStyle = 'German'")
        admin.execute(f"ALTER ROLE {aurora.user} SET TimeZone = 'Europe/Paris'")
        try:
            switch(connection)
        finally:
            admin.execute(f"ALTER ROLE {aurora.user} RESET ALL")
    assert (shown(connection, "DateStyle"), shown(connection, "TimeZone")) == ("German, DMY", "Asia/Tokyo")


def test_what_stands_in_the_connection_parameters_needs_no_transfer(connect: Connect) -> None:
    connection = connect(options="-c search_path=pg_catalog -c statement_timeout=12s")
    switch(connection)
    assert (shown(connection, "search_path"), shown(connection, "statement_timeout")) == ("pg_catalog", "12s")


def test_a_setting_that_the_server_does_not_report_stays_behind(connect: Connect) -> None:
    connection = connect()
    before = shown(connection, "statement_timeout")
    connection.execute("SET statement_timeout = '12s'")
    switch(connection)
    assert shown(connection, "statement_timeout") == before


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("how", ["SET", "SET LOCAL"])
def test_what_was_set_in_the_lost_transaction_went_with_it(
    connect: Connect, aurora: LocalAurora, how: str, autocommit: bool
) -> None:
    """As a rollback leaves it: a SET LOCAL above all must not become the new session's own."""
    connection = connect(autocommit=autocommit)
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    if not autocommit:
        connection.commit()
    with pytest.raises(wrapper.TransactionResolutionUnknownError), connection.transaction():
        connection.execute(f"{how} TimeZone = 'Europe/Paris'")
        connection.execute("SELECT 1")
        lose(connection, aurora)
    assert shown(connection, "TimeZone") == "Asia/Tokyo"


@pytest.mark.parametrize(("end", "kept"), [("commit", "Europe/Paris"), ("rollback", "Asia/Tokyo")])
def test_what_was_set_in_a_transaction_that_ended(connect: Connect, aurora: LocalAurora, end: str, kept: str) -> None:
    connection = connect(autocommit=False)
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    connection.commit()
    connection.execute("SET TimeZone = 'Europe/Paris'")
    getattr(connection, end)()
    lose(connection, aurora)
    connection.rollback()
    assert shown(connection, "TimeZone") == kept


def test_a_transaction_that_the_server_ended(connect: Connect, aurora: LocalAurora) -> None:
    """The commit is refused, so that the driver learns of the end by an error."""
    connection = connect(autocommit=False)
    connection.execute("CREATE TEMP TABLE late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    connection.commit()
    connection.execute("INSERT INTO late VALUES (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.commit()
    connection.autocommit = True
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    lose(connection, aurora)
    assert shown(connection, "TimeZone") == "Asia/Tokyo"


def test_a_switch_inside_a_transaction_takes_what_holds_outside(connect: Connect) -> None:
    connection = connect(autocommit=False)
    before = shown(connection, "TimeZone")
    connection.rollback()
    connection.execute("SET LOCAL TimeZone = 'Asia/Tokyo'")
    switch(connection)
    assert shown(connection, "TimeZone") == before


def test_without_transfer_the_object_stays_and_the_session_is_new(connect: Connect) -> None:
    Keeper.answer = OldConnectionSuggestedAction.PRESERVE
    connection = connect(plugins="keeper", transfer_session_state_on_switch=False)
    old = connection.target_connection
    notices: list[Any] = []
    connection.add_notice_handler(notices.append)
    connection.adapters.register_dumper(str, Upper)
    set_all(connection)
    connection.autocommit = True
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    connection.autocommit = False

    def never(state: TrackedSession, new: Any) -> bool:
        raise AssertionError("the hook was called")

    SessionStateTransferHandlers.set_transfer_session_state_on_switch_func(never)
    new = switch(connection)
    assert (connection.autocommit, connection.isolation_level, connection.read_only, connection.deferrable) == (
        True,
        None,
        None,
        None,
    )
    assert shown(connection, "TimeZone") != "Asia/Tokyo"
    assert (connection.row_factory, connection.cursor_factory) == (dict_row, Cursor)
    assert (connection.server_cursor_factory, connection.prepare_threshold, connection.prepared_max) == (ServerCursor, 2, 7)
    assert connection.execute("SELECT %s AS dumped", ("shout",)).fetchone() == {"dumped": "SHOUT"}
    connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    assert len(notices) == 1
    switch(connection, old)
    connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    assert len(notices) == 2
    new.close()


# -- hooks ---------------------------------------------------------------------------------------------------------------------


def test_a_hook_comes_first_and_may_leave_the_rest_to_us(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect(autocommit=False)
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    connection.autocommit = True
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    seen: list[Any] = []

    def hook(state: TrackedSession, new: Any) -> bool:
        assert connection.target_connection is old
        (session,) = [session for session in aurora.sessions(aurora.writer.id) if session["pid"] == new.info.backend_pid]
        seen.append((state, session["query"]))
        # The driver begins a transaction for it: what is set must last all the same.
        new.autocommit = False
        new.execute("SET statement_timeout = '12s'")
        return False

    old = connection.target_connection
    SessionStateTransferHandlers.set_transfer_session_state_on_switch_func(hook)
    new = switch(connection)
    ((state, query),) = seen
    assert query == ""
    assert (state.auto_commit.value, state.auto_commit.pristine_value) == (True, False)
    assert not state.auto_commit.is_pristine()
    assert state.auto_commit.can_restore_pristine()
    assert state.readonly.is_pristine()
    assert state.current.parameters["TimeZone"] == "Asia/Tokyo"
    assert new.info.transaction_status is TransactionStatus.IDLE
    assert (connection.autocommit, connection.isolation_level) == (True, psycopg.IsolationLevel.SERIALIZABLE)
    assert (shown(connection, "TimeZone"), shown(connection, "statement_timeout")) == ("Asia/Tokyo", "12s")


def test_a_hook_that_returns_true_has_done_everything(connect: Connect) -> None:
    connection = connect()
    before = shown(connection, "TimeZone")
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    connection.autocommit = False
    SessionStateTransferHandlers.set_transfer_session_state_on_switch_func(lambda state, new: True)
    switch(connection)
    assert (connection.autocommit, shown(connection, "TimeZone")) == (True, before)


# -- when it cannot be done ----------------------------------------------------------------------------------------------------


def fail(state: TrackedSession, new: Any) -> bool:
    raise ZeroDivisionError("the hook's own")


def set_nonsense(state: TrackedSession, new: Any) -> bool:
    new.execute("SET TimeZone = 'Nowhere'")
    return False


FAILURES = [(fail, ZeroDivisionError), (set_nonsense, psycopg.errors.InvalidParameterValue)]


@pytest.mark.parametrize(("hook", "error"), FAILURES)
def test_a_failed_switch_leaves_the_connection_as_it_was(connect: Connect, aurora: LocalAurora, hook: Any, error: Any) -> None:
    connection = connect(autocommit=False, application_name=NAME)
    cursor = connection.execute("CREATE TEMP TABLE mine (x int)")
    old, new = connection.target_connection, open_another(connection)
    host = connection.plugin_service.current_host_info
    SessionStateTransferHandlers.set_transfer_session_state_on_switch_func(hook)
    with pytest.raises(error):
        switch(connection, new)
    assert new.closed
    assert connection.target_connection is old
    assert connection.plugin_service.current_host_info == host
    assert cursor.execute("SELECT count(*) FROM mine").fetchone() == (0,)
    eventually(lambda: len(sessions(aurora)) == 1, "the new session to be gone")


def sessions(lab: LocalAurora) -> list[Any]:
    return [session for session in lab.sessions(lab.writer.id) if session["application_name"] == NAME]


@pytest.mark.parametrize(("hook", "error"), FAILURES)
def test_a_failover_that_cannot_restore_the_session_says_so(connect: Connect, aurora: LocalAurora, hook: Any, error: Any) -> None:
    connection = connect(application_name=NAME)
    SessionStateTransferHandlers.set_transfer_session_state_on_switch_func(hook)
    terminate(aurora, connection)
    with pytest.raises(wrapper.FailoverFailedError, match=r"did not take over the session settings: .") as caught:
        connection.execute("SELECT 1")
    assert isinstance(caught.value.__cause__, error)
    assert isinstance(caught.value.driver_error, psycopg.OperationalError)
    assert connection.closed
    eventually(lambda: not sessions(aurora), "the new session to be gone")


def test_a_failover_goes_on_when_the_new_session_is_lost_meanwhile(connect: Connect, aurora: LocalAurora) -> None:
    connection = connect()
    connection.execute("SET TimeZone = 'Asia/Tokyo'")
    attempts: list[Any] = []

    def lose_the_first(state: TrackedSession, new: Any) -> bool:
        attempts.append(new)
        if len(attempts) == 1:
            terminate(aurora, new)
        return False

    SessionStateTransferHandlers.set_transfer_session_state_on_switch_func(lose_the_first)
    lose(connection, aurora)
    first, second = attempts
    assert first.closed
    assert connection.target_connection is second
    assert (instance_of(connection), shown(connection, "TimeZone")) == (aurora.writer.id, "Asia/Tokyo")


# -- the old connection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rollback", [True, False])
def test_a_preserved_connection_stays_open(connect: Connect, rollback: bool) -> None:
    Keeper.answer = OldConnectionSuggestedAction.PRESERVE
    connection = connect(plugins="keeper", autocommit=False, rollback_on_switch=rollback)
    old = connection.target_connection
    connection.execute("CREATE TEMP TABLE mine (x int)")
    switch(connection)
    assert not old.closed
    assert old.info.transaction_status is (TransactionStatus.IDLE if rollback else TransactionStatus.INTRANS)
    if rollback:
        with pytest.raises(psycopg.errors.UndefinedTable):
            old.execute("SELECT FROM mine")
    else:
        old.commit()
        assert old.execute("SELECT count(*) FROM mine").fetchone() == (0,)
    old.close()


@pytest.mark.parametrize("rollback", [True, False])
@pytest.mark.parametrize("answer", [OldConnectionSuggestedAction.NO_OPINION, OldConnectionSuggestedAction.DISPOSE])
def test_any_other_is_closed(connect: Connect, aurora: LocalAurora, rollback: bool, answer: OldConnectionSuggestedAction) -> None:
    Keeper.answer = answer
    connection = connect(plugins="keeper", autocommit=False, rollback_on_switch=rollback, application_name=NAME)
    old = connection.target_connection
    handle = connection.plugin_service.physical(old).handle
    connection.execute("SELECT 1")
    switch(connection)
    assert old.closed
    assert not handle.is_open
    eventually(lambda: len(sessions(aurora)) == 1, "the old session to be gone")
    assert connection.info.transaction_status is TransactionStatus.IDLE


def test_going_back_to_a_preserved_connection(connect: Connect) -> None:
    """What was set in between comes along, and handlers are not doubled."""
    Keeper.answer = OldConnectionSuggestedAction.PRESERVE
    connection = connect(plugins="keeper")
    notices: list[Any] = []
    removed: list[Any] = []
    for handler in (notices.append, removed.append):
        connection.add_notice_handler(handler)
    connection.execute("SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601'")
    old = connection.target_connection
    new = switch(connection)
    connection.remove_notice_handler(removed.append)
    connection.execute("SET TimeZone = 'Europe/Paris'; SET DateStyle = 'German'; RESET IntervalStyle")
    connection.row_factory = dict_row
    switch(connection, old)
    connection.execute("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    assert (len(notices), len(removed)) == (1, 0)
    assert connection.row_factory is dict_row
    settings = ("TimeZone", "DateStyle", "IntervalStyle")
    assert [shown(connection, name) for name in settings] == ["Europe/Paris", "German, DMY", "postgres"]
    new.close()
