"""How `initial_connection` and `stale_dns` open a connection that leads where it should: the shell around
`wrapper.decisions.opening`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wrapper.chance import chance
from wrapper.decisions.opening import (
    ENDPOINT,
    Aim,
    GiveUp,
    Opening,
    Wait,
    first_step,
    is_doubted,
    is_outranked,
    is_right,
    next_step,
)
from wrapper.drivers.classify import ErrorKind
from wrapper.errors import AwsConnectError, FailoverError, for_driver
from wrapper.hosts import HostInfo, HostRole
from wrapper.monitor.direct import RENEWAL
from wrapper.monitor.generation import GENERATION, wait_for_change
from wrapper.urls import parse_endpoint

if TYPE_CHECKING:
    from wrapper.plugin_service import PluginService

logger = logging.getLogger(__name__)


class WrongRole(Exception):
    """A connection leads to a host that is not what was wanted; `host` is what it says of itself."""

    def __init__(self, host: HostInfo, aim: Aim) -> None:
        super().__init__(f"it led to {host}{', which was replaced' if host.role is aim.verify else ''}")
        self.host = host


class Opener:
    """Opens connections for one wrapper connection. `strategy`: how one of several instances is chosen."""

    def __init__(self, service: PluginService, strategy: str) -> None:
        self._service = service
        self._driver = service.driver_dialect
        self._strategy = strategy

    def open(
        self,
        host_info: HostInfo,
        aim: Aim,
        known: tuple[HostInfo, ...],
        by_name: Callable[[], Any],
        to: Callable[[HostInfo], Any],
    ) -> Any:
        """Return a connection of the wanted role. `known`: the hosts for the first attempt. `by_name` connects to the endpoint,
        `to` to an instance.

        Raises the driver's last error when the time is over, `AwsConnectError` when the last host had the wrong role, and at once
        whatever another attempt would not change, such as refused credentials.
        """
        region = parse_endpoint(host_info.host).region
        began = time.monotonic()
        opening: Opening | None = None  # as long as nothing has failed
        failure: Exception | None = None
        expected = 0
        while True:
            seen = GENERATION[0]
            now = time.monotonic()
            step = first_step(aim, region, known) if opening is None else next_step(opening, self._service.hosts, now)
            if isinstance(step, GiveUp):
                assert failure is not None
                raise self._given_up(host_info, aim, failure)
            if isinstance(step, Wait):
                self._wait(seen, step.until - now)
                time.sleep(self._service.known_cluster.admission_delay(host_info.key, expected, time.monotonic()))
                continue
            host = self._choose(aim, step.hosts)
            try:
                connection = by_name() if host is None else to(host)
                self.check(connection, aim)
                return connection
            except Exception as error:
                if not self._may_pass(error, aim):
                    raise
                failure = error
                tried = ENDPOINT if host is None else host.key
                expected = max(expected, self._service.known_cluster.connections_to(tried))
                logger.info("connecting to %s for %s was no success: %s", host or host_info, host_info.host, error)
                self._report(tried, error)
                if opening is None:
                    settings = self._service.settings
                    deadline = began + settings.seconds("open_connection_retry_timeout_ms")
                    opening = Opening(aim, region, deadline, settings.seconds("open_connection_retry_interval_ms"))
                # Spread, so that the workers that met the same failure do not come back together.
                failed_at = time.monotonic() + opening.interval * chance.uniform(-0.25, 0.25)
                opening = opening.failed_at(tried, failed_at)
                if isinstance(error, WrongRole):
                    opening = opening.failed_at(error.host.key, failed_at)

    def check(self, connection: Any, aim: Aim) -> None:
        """Find out where a fresh connection leads. Raises `WrongRole` after closing it and learning from it who is who."""
        service = self._service
        physical = service.physical(connection)
        if physical is None:
            return
        try:
            service.introduce(connection, needs_role=aim.verify is not None)
            if self._is_right(connection, physical.host_info, aim):
                return
            # What a pooled connection was told of the role may be old.
            service.force_refresh_host_list(connection)
            if not self._is_right(connection, physical.host_info, aim):
                raise WrongRole(physical.host_info, aim)
        except BaseException:
            service.discard(connection)
            raise

    def _is_right(self, connection: Any, host: HostInfo, aim: Aim) -> bool:
        service = self._service
        if host.role is not aim.verify and not is_right(aim, host.role, service.all_hosts):
            return False
        if aim.verify is not HostRole.WRITER or not is_doubted(host.key, service.known_cluster.now().views):
            return True
        return not is_outranked(host.key, service.ask_role(connection).rank, service.views)

    def _choose(self, aim: Aim, hosts: tuple[HostInfo, ...]) -> HostInfo | None:
        if len(hosts) < 2:
            return hosts[0] if hosts else None
        return self._service.get_host_info_by_strategy(aim.substitute or HostRole.UNKNOWN, self._strategy, hosts) or hosts[0]

    def _may_pass(self, error: Exception, aim: Aim) -> bool:
        """Whether it makes sense to try again."""
        if isinstance(error, WrongRole):
            return True
        if isinstance(error, FailoverError):
            return False  # it has had the time that it was given
        kind = self._driver.classify(error)
        return kind in (ErrorKind.NETWORK, ErrorKind.STARTING) or (kind is ErrorKind.READ_ONLY and aim.verify is HostRole.WRITER)

    def _wait(self, seen: int, time_left: float) -> None:
        service = self._service
        if service.views and not service.client.is_live:
            service.search_directly()
            time_left = min(time_left, RENEWAL)
        wait_for_change(seen, time_left)

    def _report(self, tried: str, error: Exception) -> None:
        service = self._service
        if service.watch is None:
            return
        if isinstance(error, WrongRole):
            service.client.report(service.watch, error.host.key, "wrong_role")
        elif tried != ENDPOINT:
            service.client.report(service.watch, tried, "network")

    def _given_up(self, endpoint: HostInfo, aim: Aim, failure: Exception) -> Exception:
        if not isinstance(failure, WrongRole):
            return failure
        wanted = aim.verify.value if aim.verify is not None else "host"
        timeout = self._service.settings.seconds("open_connection_retry_timeout_ms")
        text = f"connecting to {endpoint.get_host_and_port()} led to no {wanted} within {timeout:g} s: the last time {failure}"
        return for_driver(AwsConnectError, self._driver.operational_error())(text)
