"""Is a host down, as far as one connection is concerned?

The monitor publishes evidence (`HostHealth`); each connection judges it by its own interval and count, so that one application's
100 ms x 3 never aborts another's 5 s x 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from wrapper.monitor.state import SILENT, HostHealth

# A probe is given this share of the interval before it counts as silent: three of them and the wait for the first end within
# (count + 1) x interval, and a failing run needs no pause between its probes.
PROBE_TIMEOUT_SHARE = 0.6
# Timers fire a little early or late; a run of `count` probes may measure this much less than count x time-out.
TIMER_TOLERANCE = 0.9


def probe_timeout(interval: float) -> float:
    """Seconds after which a probe made every `interval` seconds counts as silent."""
    return interval * PROBE_TIMEOUT_SHARE


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How one connection judges evidence: `interval` in seconds, `count` of silent probes in a row."""

    interval: float = 1.0
    count: int = 3

    @property
    def shortest_run(self) -> float:
        """Seconds of silence that `count` probes of this interval take."""
        return self.count * probe_timeout(self.interval)


def is_down(evidence: HostHealth | None, sensitivity: Sensitivity, *, superseded: bool = False) -> bool:
    """Whether existing connections to the host should be given up.

    Only silence counts: a refused or reset host has already reset its connections. `superseded`: another host has proved, with a
    higher rank, to be the writer that this connection wants; then a single silent probe is enough, since the old writer's answers
    are worth nothing any more.
    """
    if evidence is None or evidence.failing_since is None or evidence.failed_at is None or evidence.kind != SILENT:
        return False
    if superseded:
        return evidence.silent >= 1
    run = evidence.failed_at - evidence.failing_since
    return evidence.silent >= sensitivity.count and run >= sensitivity.shortest_run * TIMER_TOLERANCE


def covers(evidence: HostHealth, opened_at: float) -> bool:
    """Whether the failing run began after a connection was opened: a younger connection reached the host *during* the run, so the
    evidence is not about it."""
    return evidence.failing_since is not None and opened_at < evidence.failing_since


def is_in_doubt(evidence: HostHealth | None, opened_at: float) -> bool:
    """Whether a connection is worth a look before it is used: its host is failing, has failed since the connection was opened, or
    is no longer a member of the cluster."""
    if evidence is None or evidence.is_failing:
        return True
    return evidence.failed_before is not None and evidence.failed_before > opened_at


def is_path_alive(evidence: HostHealth, last_received: float) -> bool:
    """Whether a connection heard from the host after the failing run began (`last_received`: when its socket last got data), so
    that this path works whatever the probes say."""
    return evidence.failing_since is not None and last_received > evidence.failing_since
