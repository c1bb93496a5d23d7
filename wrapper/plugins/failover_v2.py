"""`failover_v2` and `failover`: move a connection to a working host of the wanted role when its own is lost.

`failover_v2` also leaves a writer that was demoted or replaced; to `failover` that is the application's own business, as it was in
the AWS Advanced Python Wrapper. `gdb_failover` is the same with another policy.

This is the shell around `wrapper.decisions.failover`: it notices, reports, performs the plan's steps and raises. The failed
statement is never repeated here; `FailoverError.outcome` says whether the application may do so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from wrapper.decisions.failover import (
    DIRECT_AFTER,
    POLICIES,
    Attempt,
    Candidate,
    FailoverMode,
    GiveUp,
    Plan,
    Policy,
    Wait,
    next_step,
)
from wrapper.decisions.panic import LOGIN_PATIENCE
from wrapper.decisions.verdict import is_in_doubt
from wrapper.drivers.base import DriverDialect
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import (
    AwsWrapperError,
    FailoverError,
    FailoverFailedError,
    FailoverSuccessError,
    Outcome,
    TransactionResolutionUnknownError,
    for_driver,
)
from wrapper.hosts import HostInfo, HostRole
from wrapper.monitor.direct import Refusal
from wrapper.monitor.generation import GENERATION, wait_for_change
from wrapper.monitor.handles import is_superseded
from wrapper.monitor.regions import region_of
from wrapper.physical import PREFLIGHT_TIMEOUT, Physical
from wrapper.plugin import CONNECT, CURSOR_METHODS, NO_METHODS, Call, Plugin, with_names
from wrapper.plugins.obstacle import has_obstacle, is_in_vain
from wrapper.settings import Settings
from wrapper.urls import EndpointKind

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

logger = logging.getLogger(__name__)

# A host that answered this recently is connected to at once; otherwise a pre-flight bounds the wait for one that has died since. It
# costs the server a process, which matters when many connections arrive at a new writer together.
_FRESH_PROOF = 0.1
# While a failover waits, the hint is repeated: the first one may have met a monitor that was just dying.
_REPORT_INTERVAL = 0.25

# Seconds between two logins to a host that refuses them in the middle of a failover.
_LOGIN_PAUSE = 0.2

_STRATEGY = "failover_reader_host_selector_strategy"

_DESCRIPTIONS = {
    "network": "lost",
    "read_only": "to a host that no longer takes writes",
    "superseded": "to a writer that was replaced",
}


class FailoverV2Plugin(Plugin):
    """Failover of one connection. `policy`: which hosts it may end up on; by default what `failover_mode` and the endpoint say.
    `leaves_demoted`: a connection that wants a writer leaves a host that is the writer no longer."""

    reads_shared_state = True

    def __init__(
        self,
        service: PluginService,
        settings: Settings,
        *,
        policy: Policy | None = None,
        leaves_demoted: bool = True,
    ) -> None:
        self._service = service
        self._driver = service.driver_dialect
        self._settings = settings
        kind = service.known_cluster.endpoint_kind
        usual = "reader_or_writer" if kind is EndpointKind.READER_CLUSTER else "strict_writer"
        self.policy = policy or POLICIES[settings["failover_mode"] or usual]
        self._leaves_demoted = leaves_demoted
        # There is nowhere to go from an endpoint that is not one TCP host.
        self._enabled = settings["enable_failover"] and service.watch is not None

    @property
    def subscribed_methods(self) -> AbstractSet[str]:
        return with_names(self._driver.network_bound_methods, CONNECT) if self._enabled else NO_METHODS

    # -- noticing --------------------------------------------------------------------------------------------------------------

    def connect(
        self,
        target_driver_func: Callable[..., Any],
        driver_dialect: DriverDialect,
        host_info: HostInfo,
        props: dict[str, Any],
        is_initial_connection: bool,
        connect_func: Callable[[], Any],
    ) -> Any:
        if is_initial_connection and self._settings.is_given(_STRATEGY):
            self._require_strategy()
        try:
            return connect_func()
        except Exception as error:
            if not self._settings["enable_connect_failover"] or self._driver.classify(error) is not ErrorKind.NETWORK:
                raise
            if has_obstacle(self._service, error):
                raise
            if not any(view.topology.hosts for view in self._service.views):
                raise  # nothing else is known
            connection, _ = self._find(self._plan(time.monotonic()), host_info.key, error)
            return connection

    def _require_strategy(self) -> None:
        # Better now than in the middle of a failover.
        strategy = self._settings[_STRATEGY]
        if not self._service.accepts_strategy(HostRole.READER, strategy):
            raise AwsWrapperError(f"{_STRATEGY}={strategy!r} needs a plugin that this connection lacks")

    def bind(self, method_name: str, call: Call) -> Call:
        status_of = self._driver.cursor_status if method_name in CURSOR_METHODS else self._driver.connection_status

        def guarded(target: Any, /, *args: Any, **kwargs: Any) -> Any:
            status = status_of(target)
            try:
                return call(target, *args, **kwargs)
            except Exception as error:
                self._failed(error, status)
                raise

        return guarded

    def shared_state_changed(self) -> None:
        """Before a call: if the connection is known to be lost or to lead to the wrong host, fail over without sending."""
        connection = self._service.current_connection
        physical = self._service.physical(connection)
        if physical is None or physical.handle is None or not self._enabled:
            return
        cause = self._cause_to_leave(connection, physical)
        if cause is None or is_in_vain(self._service):
            return
        in_transaction = self._driver.is_in_transaction(connection)
        if in_transaction and cause == "superseded":
            return  # let the server refuse: the transaction is the application's to end
        self._fail_over(cause, in_transaction, "not_sent", physical.failed)

    def _cause_to_leave(self, connection: Any, physical: Physical) -> str | None:
        handle = physical.handle
        if handle is None or not handle.is_open:
            return None  # closed by the application
        if physical.failed is not None or handle.aborted_by is not None or self._driver.is_closed(connection):
            return "network"
        cluster = self._service.cluster
        if cluster is None:
            return None
        if is_superseded(handle, cluster) and self._insists_on_writer(physical):
            return "superseded"
        evidence = cluster.health.get(handle.key)
        return "network" if is_in_doubt(evidence, handle.opened_at) and handle.is_severed() else None

    def _failed(self, error: Exception, status: Any) -> None:
        """Look at an error on its way to the application; returns if it is the application's own business. `status`: the
        connection's state before the call."""
        if isinstance(error, FailoverError):
            return
        in_transaction = self._driver.means_in_transaction(status)
        outcome: Outcome = "not_sent" if self._driver.means_lost(status) else "unknown"
        connection = self._service.current_connection
        physical = self._service.physical(connection)
        if physical is None:
            return
        kind = self._driver.classify(error)
        if kind not in (ErrorKind.READ_ONLY, ErrorKind.NETWORK):
            return
        # What the application's own handler says is not second-guessed.
        is_certain = self._driver.is_overruled(error)
        if kind is ErrorKind.READ_ONLY and self._insists_on_writer(physical):
            if (is_certain or self._is_demoted(connection, physical)) and not has_obstacle(self._service, error):
                self._fail_over("read_only", in_transaction, outcome, error)
        elif (
            kind is ErrorKind.NETWORK
            and (is_certain or self._is_lost(connection, physical, error))
            and not has_obstacle(self._service, error)
        ):
            self._fail_over("network", in_transaction, outcome, error)

    def _insists_on_writer(self, physical: Physical) -> bool:
        """Whether a connection that is where this one is has no business on any other host than the writer."""
        region = region_of(physical.host_info.key, self._service.views)
        return self._leaves_demoted and self.policy.mode(region) is FailoverMode.STRICT_WRITER

    def _is_lost(self, connection: Any, physical: Physical, error: Exception) -> bool:
        """Whether a network error is about this connection: a function such as dblink may raise one of its own."""
        if self._driver.is_closed(connection):
            # The application gives the handle back when it closes a connection itself.
            return physical.handle is not None and physical.handle.is_open
        if getattr(getattr(error, "diag", None), "severity_nonlocalized", None) in ("FATAL", "PANIC"):
            return True
        return physical.handle is not None and physical.handle.is_severed()

    def _is_demoted(self, connection: Any, physical: Physical) -> bool:
        """Whether a refused write means that the host lost its role, rather than a read-only transaction of the application's."""
        reported = self._driver.reported_role(connection)
        if reported is not None:
            return reported is HostRole.READER
        cluster = self._service.cluster
        if cluster is not None and cluster.topology.writer not in (None, physical.host_info.key):
            return True
        try:
            return self._service.ask_role(connection).role is HostRole.READER
        except Exception as error:  # noqa: BLE001  the application is to see the refused write, not this
            logger.debug("%s refused a write and does not say why: %s", physical.host_info, error)
            return False

    # -- performing ------------------------------------------------------------------------------------------------------------

    def _plan(self, now: float) -> Plan:
        timeout = self._settings["failover_timeout_sec"]
        direct_after = DIRECT_AFTER if self._service.client.is_live else 0.0
        return Plan(self.policy, since=now, started=now, deadline=now + timeout, direct_after=direct_after)

    def _fail_over(self, cause: str, in_transaction: bool, outcome: Outcome, error: BaseException | None) -> None:
        """Replace the connection and raise what the application must know."""
        now = time.monotonic()
        service = self._service
        old = service.current_connection
        physical = service.physical(old)
        assert physical is not None
        lost = physical.host_info
        was = _DESCRIPTIONS[cause]
        logger.info("connection to %s is %s; looking for another host (%s)", lost, was, self.policy)
        service.report(physical, cause if cause != "superseded" else "network")
        service.discard(old)
        host = self._switch(self._plan(now), lost.key, error, outcome)
        elapsed = time.monotonic() - now
        logger.info("failed over from %s to %s in %.3f s", lost, host, elapsed)
        if in_transaction:
            raise self._error(
                TransactionResolutionUnknownError,
                f"the connection to {lost.get_host_and_port()} was {was} while a transaction was open; whether it was committed is "
                f"unknown. The connection leads to {host.get_host_and_port()} now: start the transaction again",
                outcome,
                error,
            ) from error
        raise self._error(
            FailoverSuccessError,
            f"the connection to {lost.get_host_and_port()} was {was} and leads to {host.get_host_and_port()} now; "
            + ("nothing was sent: repeat the call" if outcome == "not_sent" else "the call may have been carried out"),
            outcome,
            error,
        ) from error

    def _error(self, kind: type[FailoverError], text: str, outcome: Outcome, error: BaseException | None) -> FailoverError:
        return for_driver(kind, self._driver.operational_error())(text, outcome=outcome, driver_error=error)

    def _switch(self, plan: Plan, lost: str, error: BaseException | None, outcome: Outcome) -> HostInfo:
        """Lead the connection to another host, session state and all, and return it. Raises `FailoverFailedError`."""
        service = self._service
        while True:
            connection, host = self._find(plan, lost, error, outcome)
            try:
                service.set_current_connection(connection, host)
                return host
            except Exception as failure:
                if service.current_connection is connection:
                    raise  # a plugin's own, after the switch
                if self._driver.classify(failure) is not ErrorKind.NETWORK:
                    text = f"failover from {lost} failed: {host.key} did not take over the session settings: {failure}"
                    raise self._error(FailoverFailedError, text, outcome, error) from failure
                logger.info("failover: %s was lost while it took over the session settings: %s", host.key, failure)
                plan = plan.failed_at(host.key, time.monotonic())

    def _find(self, plan: Plan, lost: str, error: BaseException | None, outcome: Outcome = "not_sent") -> tuple[Any, HostInfo]:
        """Perform the plan: return a connection to a host that has just confirmed its role. Raises `FailoverFailedError`."""
        service = self._service
        reported_at = plan.started
        refused_at: float | None = None
        refusal: Refusal | None = None
        fresh = _FRESH_PROOF
        expected = service.known_cluster.connections_to(lost)
        while True:
            seen = GENERATION[0]
            now = time.monotonic()
            step = next_step(plan, service.views, now)
            if isinstance(step, GiveUp):
                if refusal is not None:
                    raise self._locked_out(lost, outcome, refusal.error) from refusal.error
                raise self._error(FailoverFailedError, f"failover from {lost} failed: {step.reason}", outcome, error) from error
            if isinstance(step, Attempt):
                pause = service.known_cluster.admission_delay(lost, expected, now)
                expected = 0  # once is enough
                if pause > 0.0:
                    time.sleep(min(pause, plan.deadline - now))
                    fresh += pause  # not all of them shall ask before they connect
                    continue  # what was true before the pause may not be any more
                candidate = self._choose(step.candidates)
                try:
                    return self._try(candidate, plan.deadline - now, fresh)
                except Exception as attempt_error:
                    kind = self._driver.classify(attempt_error)
                    if kind is ErrorKind.LOGIN:
                        refused_at = refused_at or time.monotonic()
                        if time.monotonic() + _LOGIN_PAUSE > min(refused_at + LOGIN_PATIENCE, plan.deadline):
                            raise
                        time.sleep(_LOGIN_PAUSE)
                    logger.info("failover: %s was no success: %s", candidate.key, attempt_error)
                    plan = plan.failed_at(candidate.key, time.monotonic())
                    if kind is not ErrorKind.LOGIN:
                        self._report(candidate.key, "wrong_role" if isinstance(attempt_error, _WrongRole) else "network")
                continue
            if isinstance(step, Wait):
                refusal = service.search_directly() if step.search else None
                if refusal is not None and now - max(refusal.since, plan.started) > LOGIN_PATIENCE:
                    raise self._locked_out(lost, outcome, refusal.error) from refusal.error
                if now - reported_at >= _REPORT_INTERVAL:
                    reported_at = now
                    self._report(lost, "network")
                wait_for_change(seen, min(step.until, now + _REPORT_INTERVAL) - time.monotonic())

    def _locked_out(self, lost: str, outcome: Outcome, error: Exception) -> FailoverError:
        text = f"failover from {lost} failed: no host that answers accepts the login: {error}"
        return self._error(FailoverFailedError, text, outcome, error)

    def _report(self, key: str, error: str) -> None:
        if self._service.watch is not None:
            self._service.client.report(self._service.watch, key, error)

    def _choose(self, candidates: tuple[Candidate, ...]) -> Candidate:
        if len(candidates) == 1:
            return candidates[0]
        hosts = {candidate.key: self._service.host_by_key(candidate.key).with_role(candidate.role) for candidate in candidates}
        strategy = self._settings["failover_reader_host_selector_strategy"]
        chosen = self._service.get_host_info_by_strategy(HostRole.UNKNOWN, strategy, tuple(hosts.values()))
        return next((candidate for candidate in candidates if hosts[candidate.key] == chosen), candidates[0])

    def _try(self, candidate: Candidate, time_left: float, fresh: float) -> tuple[Any, HostInfo]:
        """Connect through the rest of the chain and have the host itself confirm the role, on this very connection."""
        service = self._service
        host = service.host_by_key(candidate.key)
        if time.monotonic() - candidate.proved_at > fresh:
            service.preflight(host, max(0.001, min(PREFLIGHT_TIMEOUT, time_left)))
        connection = service.connect(host, dict(service.parameters), plugin_to_skip=self)
        try:
            confirmed = service.introduce(connection, needs_role=True)
            if confirmed.role is not candidate.role:
                raise _WrongRole(f"{candidate.key} is a {confirmed.role.value}, not a {candidate.role.value}")
        except BaseException:
            service.discard(connection)
            raise
        return connection, confirmed


class _WrongRole(Exception):
    """A host denied, on our own connection, the role that it was believed to have."""


class FailoverV2PluginFactory:
    """Makes the plugin for one connection."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        assert isinstance(props, Settings)
        return FailoverV2Plugin(plugin_service, props)


class FailoverPluginFactory:
    """Makes the plugin for one connection, as `failover`."""

    @staticmethod
    def get_instance(plugin_service: PluginService, props: Mapping[str, Any]) -> Plugin:
        assert isinstance(props, Settings)
        return FailoverV2Plugin(plugin_service, props, leaves_demoted=False)
