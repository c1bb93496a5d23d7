"""What changed between two host lists, in the words of the host-list-changed notification."""

from __future__ import annotations

from collections.abc import Iterable

from wrapper.hosts import HostAvailability, HostInfo, HostRole
from wrapper.plugin import HostEvent

_BY_ROLE = {HostRole.WRITER: HostEvent.CONVERTED_TO_WRITER, HostRole.READER: HostEvent.CONVERTED_TO_READER}
_BY_AVAILABILITY = {HostAvailability.AVAILABLE: HostEvent.WENT_UP, HostAvailability.UNAVAILABLE: HostEvent.WENT_DOWN}


def host_changes(old: Iterable[HostInfo], new: Iterable[HostInfo]) -> dict[str, set[HostEvent]]:
    """Return the events per `HostInfo.url`; hosts that are as they were are not listed."""
    before = {host.url: host for host in old}
    after = {host.url: host for host in new}
    changes: dict[str, set[HostEvent]] = {url: {HostEvent.HOST_DELETED} for url in before.keys() - after.keys()}
    for url, host in after.items():
        known = before.get(url)
        if known is None:
            changes[url] = {HostEvent.HOST_ADDED}
            continue
        events = set()
        if host.role is not known.role and host.role in _BY_ROLE:
            events.add(_BY_ROLE[host.role])
        if host.availability is not known.availability:
            events.add(_BY_AVAILABILITY[host.availability])
        if events:
            changes[url] = events | {HostEvent.HOST_CHANGED}
    return changes
