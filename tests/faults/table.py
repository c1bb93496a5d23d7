"""What can go wrong, what the application sees, within what time, and the tests that show it. `docs/faults.md` is made of this."""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    """One row. `tests`: paths under `tests/` with the test's name; `reference`: what the AWS Advanced Python Wrapper does, from its
    documentation and sources. Empty: nothing to say."""

    fault: str
    seen: str
    bound: str
    tests: tuple[str, ...]
    reference: str = ""


SECTIONS: dict[str, tuple[Fault, ...]] = {
    "Databases and networks": (
        Fault(
            "the server process dies (reset, refused)",
            "the call fails at once and fails over; every other worker of the machine knows",
            "milliseconds, and the database's own promotion",
            (
                "integration/test_failover.py::test_a_statement_in_flight_has_an_unknown_outcome",
                "integration/mysql/test_failover.py::test_a_statement_that_meets_a_dead_writer",
                "monitor/test_health.py::test_a_killed_server_is_known_at_once_without_any_hint",
            ),
            "the failing call fails over; other processes learn of it by failures of their own",
        ),
        Fault(
            "the server or the network hangs",
            "connections to it are ended on the evidence, busy and idle",
            "(count + 1) \u00d7 interval + 0.1 s",
            (
                "integration/test_failover.py::test_a_hung_writer_is_left_on_the_evidence",
                "monitor/test_health.py::test_a_hung_server_is_silent_within_the_bound",
            ),
            "calls that last longer than the detection time are watched, idle connections are not; 17 s after the hang by default "
            "with a monitoring connect time-out, 130 s without",
        ),
        Fault(
            "the writer fails over",
            "`FailoverSuccessError` on a live connection to the new writer, session state restored, nothing replayed",
            "the database's own promotion + ~0.1 s",
            (
                "integration/test_failover.py::test_a_planned_switchover_is_followed",
                "integration/test_session_state.py::test_what_was_set_survives_the_writer",
            ),
            "the same error; autocommit and read-only are carried over",
        ),
        Fault(
            "an old writer resumes after a promotion",
            "nothing: its claim ranks lower",
            "",
            (
                "monitor/test_failover.py::test_an_old_writer_that_resumes_stays_superseded",
                "integration/test_stale_dns.py::test_an_old_writer_that_goes_on_believing",
            ),
        ),
        Fault(
            "many connections fail over at once",
            "each has the new writer; reconnects are spread (`failover_reconnect_rate`)",
            "half a second more for 200; shown with 1,000 of 8 processes",
            (
                "integration/test_storm.py::test_many_connections_fail_over_at_once",
                "unit/test_decisions.py::test_a_few_connect_at_once_and_the_others_at_the_rate",
            ),
            "every connection reconnects at the same instant, without limit",
        ),
        Fault(
            "a server accepts and never answers",
            "silent: like one that hangs",
            "as above",
            ("monitor/test_impostors.py::test_each_impostor_is_taken_for_what_it_is",),
            "a login attempt without a time-out of its own, by default up to libpq's 130 s",
        ),
        Fault(
            "a server answers byte by byte, or garbage",
            "alive, but no host to connect to; open connections are left alone",
            "",
            ("monitor/test_impostors.py::test_each_impostor_is_taken_for_what_it_is",),
            "a failed probe of any kind counts as a dead host",
        ),
        Fault(
            "a server resets after the first byte, in the login, or in a row",
            "refused: closed to new connections; open ones are judged by their own",
            "one probe",
            ("monitor/test_impostors.py::test_each_impostor_is_taken_for_what_it_is",),
            "a failed probe of any kind counts as a dead host",
        ),
        Fault(
            "a server is full",
            "alive, but no host to connect to",
            "",
            (
                "monitor/test_health.py::test_too_many_connections_is_an_answer_but_no_candidate",
                "monitor/test_health.py::test_a_server_that_answers_but_takes_no_logins_is_alive",
            ),
            "a failed probe of any kind counts as a dead host",
        ),
    ),
    "Logins": (
        Fault(
            "the password changes while everything runs",
            "nothing; the monitor asks for the next login and takes it",
            "one failing login per host and step (0.25 s while the writer is searched for, else 1, 2, 4 … 60 s)",
            (
                "monitor/test_rolling_credentials.py::test_the_monitor_takes_the_next_offer_and_locks_nobody_out",
                "integration/test_credentials.py::test_a_new_password_in_the_file_reaches_the_monitor_with_the_next_connection",
            ),
            "each probe logs in with the values of the connection that started it; a failing login counts as a dead host",
        ),
        Fault(
            "a certificate expires",
            "new connections fail with the driver's error; open ones stay",
            "",
            ("integration/test_tls.py::test_an_expired_certificate_is_a_matter_of_the_login",),
        ),
        Fault(
            "every host of a failover refuses the login, also the monitor's",
            "`FailoverFailedError` with the login error",
            "15 s, or the failover's time-out",
            (
                "integration/test_login_faults.py::test_a_failover_that_nobody_lets_in_ends_with_the_login_error",
                "integration/test_login_faults.py::test_a_login_error_is_told_when_the_time_is_over_first",
                "integration/test_tls.py::test_a_failover_ends_with_the_certificate_that_nobody_accepts",
            ),
            "the failover's time-out passes, also when the logins were refused for a moment only",
        ),
    ),
    "The monitor": (
        Fault(
            "it is killed",
            "nothing; another is elected and watches",
            "2 s",
            ("integration/test_monitor_faults.py::test_a_killed_monitor_costs_no_query_and_is_replaced",),
            "has none: each process watches with threads of its own",
        ),
        Fault(
            "it is stopped for a while and goes on",
            "nothing; no connection is aborted",
            "",
            (
                "integration/test_monitor_faults.py::test_a_stopped_monitor_aborts_nothing_when_it_goes_on",
                "monitor/test_health.py::test_a_stopped_monitor_blames_nobody",
            ),
        ),
        Fault(
            "it and the writer die together; the writer dies while it is stopped",
            "failover by a direct search",
            "the database's own promotion + 1 s",
            (
                "integration/test_monitor_faults.py::test_monitor_and_writer_die_together",
                "integration/test_monitor_faults.py::test_the_writer_dies_while_the_monitor_is_stopped",
            ),
        ),
        Fault(
            "it can reach nothing",
            "nothing, until workers' own connections fail",
            "",
            ("monitor/test_failover.py::test_two_clusters_that_fall_silent_together_are_our_own_trouble",),
            "every connection of the process is aborted",
        ),
        Fault(
            "it is restarted or handed over",
            "nothing; what was known stands until the new one has proofs",
            "",
            (
                "integration/test_handover.py::test_a_hand_over_is_noticed_by_nobody",
                "integration/test_handover.py::test_the_next_monitor_is_told_what_failed_before_it",
                "unit/test_new_epoch.py::test_what_is_kept",
            ),
        ),
        Fault(
            "its directory or its files are removed, as temp directories are swept",
            "nothing; it ends, and the workers make the directory and a monitor anew",
            "",
            (
                "integration/test_handover.py::test_a_removed_directory_is_made_again",
                "monitor/test_displaced.py::test_what_was_cleaned_away_is_made_again",
                "monitor/test_process.py::test_a_monitor_that_lost_its_files_ends",
            ),
        ),
        Fault(
            "two versions on one machine",
            "two monitors, side by side",
            "",
            ("monitor/test_lifecycle.py::test_two_versions_of_the_protocol_live_side_by_side",),
        ),
    ),
    "The machine": (
        Fault(
            "more workers than the monitor has descriptors for",
            "nothing; those that are too many are refused, work without it, and are watched once there is room",
            "7.5 s after there is",
            (
                "monitor/test_limits.py::test_more_workers_than_descriptors_end_no_monitor",
                "integration/test_scarcity.py::test_a_worker_that_is_one_too_many_is_watched_when_there_is_room",
            ),
        ),
        Fault(
            "the monitor's limit of descriptors is lowered under it",
            "nothing; it says so, blames no host, and opens its sessions when there is room. A worker that connects to it then "
            "makes the ZeroMQ library end its process: like a killed one, it is replaced",
            "the next probe",
            (
                "monitor/test_limits.py::test_a_monitor_without_descriptors_blames_nobody",
                "integration/test_scarcity.py::test_a_starving_monitor_costs_no_query",
            ),
        ),
        Fault(
            "the monitor gets no memory",
            "nothing; it goes on or is replaced",
            "",
            ("integration/test_scarcity.py::test_a_starving_monitor_costs_no_query",),
        ),
        Fault(
            "a disk is full",
            "nothing: a monitor that runs needs none, one that starts needs a few bytes, which are kept from the last time; "
            "without them it says which file, and workers work without it",
            "",
            (
                "monitor/test_limits.py::test_a_log_that_takes_nothing_stops_nobody",
                "monitor/test_limits.py::test_a_full_disk_is_told_in_a_sentence",
                "monitor/test_limits.py::test_an_epoch_is_raised_on_a_full_disk",
                "integration/test_scarcity.py::test_a_worker_on_a_full_disk_works_without_a_monitor",
            ),
        ),
        Fault(
            "the monitor crashes",
            "as when it is killed; no core file shows login values",
            "",
            ("monitor/test_security.py::test_a_crashed_monitor_leaves_no_core",),
        ),
        Fault(
            "the wall clock jumps",
            "nothing: all waiting and judging is by the monotonic clock; login values that expire do so by the wall clock",
            "",
            ("unit/test_wall_clock.py::test_who_reads_the_wall_clock", "unit/test_wall_clock.py::test_a_jump_changes_no_event"),
        ),
        Fault(
            "a name server fails, or is slow",
            "nothing for hosts whose address is known; of the others: no news, never a failing host",
            "",
            (
                "monitor/test_names.py::test_a_name_server_in_trouble_blames_no_host",
                "monitor/test_names.py::test_a_worker_goes_on_while_names_fail",
                "monitor/test_health.py::test_a_name_that_does_not_resolve_is_our_trouble",
            ),
            "a blocking look-up per connection",
        ),
        Fault(
            "a name leads elsewhere",
            "the monitor follows, and tells",
            "10 s + one probe",
            ("monitor/test_names.py::test_a_name_that_moves_is_followed_and_told",),
        ),
    ),
    "Workers and the wire": (
        Fault(
            "a worker is killed",
            "its lease lapses; nobody else notices",
            "15 s",
            ("monitor/test_control.py::test_the_lease_of_a_killed_worker_lapses",),
        ),
        Fault(
            "a fork after connect, preload, reload",
            "the child attaches itself; the parent is unaffected",
            "first use",
            (
                "integration/test_fork.py::test_a_child_gets_a_session_and_a_watch_of_its_own",
                "integration/test_fork.py::test_a_fork_that_runs_no_hook_is_noticed_at_the_first_call",
                "appservers/test_matrix.py::test_the_wrapper_in",
            ),
            "connects of the child fail after 10 s, or nothing is watched in it",
        ),
        Fault(
            "updates are lost between monitor and worker",
            "nothing: the gap, or the next heartbeat, shows it, and the whole is read again",
            "one heartbeat",
            ("integration/test_lost_updates.py::test_lost_updates_are_noticed_and_made_good",),
        ),
        Fault(
            "a subscriber is slow, or never reads",
            "it loses updates; nobody else does, and the monitor keeps 1,000 messages for it at most",
            "",
            ("monitor/test_subscribers.py::test_who_never_reads_loses_messages_and_nobody_else",),
        ),
        Fault(
            "damaged bytes on a socket of the monitor's",
            "nothing; dropped, counted, logged once",
            "",
            (
                "monitor/test_fuzz.py::test_damaged_bytes_are_counted_and_forgotten",
                "monitor/test_control.py::test_garbage_on_either_socket_is_dropped_and_counted",
            ),
        ),
        Fault(
            "a monitor that talks nonsense",
            "nothing; dropped and counted",
            "",
            ("integration/test_lost_updates.py::test_a_client_that_is_fed_garbage_does_its_work",),
        ),
        Fault(
            "a client makes up counts, times and names",
            "nothing; dropped or refused, and no line of the log is forged",
            "",
            ("monitor/test_security.py::test_what_a_client_makes_up_is_its_own_trouble",),
        ),
        Fault(
            "another user's process listens where the monitor should be",
            "nothing; it is sent nothing, and not believed; said once",
            "",
            ("monitor/test_displaced.py::test_a_worker_tells_its_login_to_nobody_who_took_the_monitors_place",),
        ),
        Fault(
            "another user on a socket",
            "refused, counted, logged once",
            "",
            ("monitor/test_users.py::test_a_foreign_user_is_refused_even_where_the_files_let_it_in",),
        ),
    ),
}
