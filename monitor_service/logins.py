"""The login values of one cluster: which to use, what became of them, and asking the clients when none works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic, time

from monitor_service.context import Context
from monitor_service.credentials import CredentialBook
from monitor_service.loop_guard import bounded
from monitor_service.sessions import ProbeError, UnsupportedError
from wrapper.monitor.messages import NeedCredentials, Offer, Unsupported

# Seconds between two requests for login values to the same clients.
ASK_AGAIN = 5.0


class Logins:
    """The shell around a `CredentialBook`."""

    def __init__(self, topic: str, context: Context) -> None:
        self._topic = topic
        self._context = context
        self._book = CredentialBook()
        self._news = asyncio.Event()
        self._asked_at = float("-inf")
        self._is_known = False  # whether the journal says already that no login works
        self._unsupported = ""  # what the monitor lacks that the last refused login would have needed

    def __len__(self) -> int:
        return len(self._book)

    def replace(self, offers: Iterable[Offer]) -> bool:
        """Take over the live offers, newest first; return whether one is new."""
        return self._book.replace(offers)

    async def pick(self, key: str, timeout: float) -> tuple[bytes, Offer] | None:
        """Return the offer that host `key` should try now, None when there is none; the clients are then asked for one.

        Waits, `timeout` seconds at most, for the outcome of an offer that another host is trying for the first time.
        """
        while (picked := self._book.pick(key, monotonic(), time())) is None and self._book.is_on_trial():
            try:
                await bounded(self._context.guard, timeout, self._news.wait())
            except TimeoutError:
                break
        if picked is None and self._book.is_exhausted(time()):
            self._ask_clients(key)
        return picked

    def accepted(self, fingerprint: bytes, key: str) -> None:
        """A server let the offer in."""
        self._is_known, self._unsupported = False, ""
        self._book.accepted(fingerprint, key)
        self._tell()

    def refused(self, fingerprint: bytes, key: str, error: ProbeError, outage: float | None) -> bool:
        """A server refused the offer, `outage` seconds after the writer was lost; return whether another one is left to try."""
        self._book.refused(fingerprint, key, monotonic(), outage)
        self._unsupported = error.detail if isinstance(error, UnsupportedError) else ""
        self._context.publisher.journal(key, "LOGIN REFUSED", error.detail, self._topic)
        self._tell()
        exhausted = self._book.is_exhausted(time())
        if exhausted:
            self._ask_clients(key)
        return not exhausted

    def forgive(self) -> None:
        """A search begins: every host may be asked at once, whatever it had against a login that works elsewhere."""
        self._book.forgive()

    def undecided(self, fingerprint: bytes, key: str) -> None:
        """The attempt ended without a word on the login."""
        self._book.undecided(fingerprint, key)
        self._tell()

    def _tell(self) -> None:
        # Whoever waits for the outcome of a trial holds the old event.
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _ask_clients(self, key: str) -> None:
        now = monotonic()
        if now - self._asked_at < ASK_AGAIN:
            return
        self._asked_at = now
        reason = f"no login value offered works on {key}" if len(self._book) else "no login value was offered"
        for lease in self._context.registry.leases_of(self._topic):
            for interest in lease.interests.values():
                if interest.topic == self._topic:
                    watch = interest.request.watch.key
                    # New values would not help there: the worker has to do without our sessions, and should not offer again.
                    unsupported = Unsupported(watch, f"{key}: {self._unsupported}") if self._unsupported else None
                    self._context.tell(lease.route, unsupported or NeedCredentials(watch, reason))
        if not self._is_known:
            self._is_known = True
            self._context.publisher.journal(key, "NEEDS LOGIN", reason, self._topic)
