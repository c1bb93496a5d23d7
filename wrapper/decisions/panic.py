"""How often a host is asked while its cluster's writer is being searched for, by the monitor and by a worker that searches
alone."""

from __future__ import annotations

# Seconds. Hundreds of machines may be asking a cluster in recovery: the longer an outage lasts, the slower they ask. A
# hundredth of the outage is what the search may add to it; a failover of one second is then noticed within 10 ms.
PANIC_SHORTEST = 0.010
PANIC_LONGEST = 0.250
PANIC_SHARE = 1 / 100
# For this long refused logins are put up with: RDS refuses them while it reboots or promotes an instance.
LOGIN_PATIENCE = 15.0


def panic_pause(outage: float, chance: float) -> float:
    """Return the seconds between two questions to one host, `outage` seconds into the search; `chance` in [0, 1) spreads askers."""
    return min(max(outage * PANIC_SHARE, PANIC_SHORTEST), PANIC_LONGEST) * (0.75 + 0.5 * chance)
