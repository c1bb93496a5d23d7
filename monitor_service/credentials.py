"""Which login to try on which host, and when. Pure: offers, outcomes and times in; an offer, or the reason for none, out.

At most one failing login per offer and back-off step: an offer that has never worked is tried by one host at a time, so a wrong
password costs one attempt, not one per host.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from monitor_service.cadence import LOGIN_RETRY, is_being_mended, login_backoff
from wrapper.monitor.messages import Offer

_SALT = os.urandom(16)
_NEVER = (0, 0.0)
# What another user's offer may hold: plain values, and files by which a server is verified. Whatever else names a file (`passfile`,
# `sslkey`, `ssl_key`, `sslkeylogfile`, `service` …) would have the monitor use, or write, a file of its own user's.
_PLAIN = frozenset(
    {
        *("user", "password", "dbname", "sslmode", "sslnegotiation", "sslrootcert", "sslcrl", "sslcrldir", "sslsni"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding", "require_auth"),
        *("username", "passwd", "password1", "ssl_disabled", "ssl_ca", "ssl_verify_cert", "ssl_verify_identity"),
        *("tls_versions", "tls_ciphersuites", "ssl_cipher"),
    }
)
# Where nothing can be: without a name, libpq looks for its user's own (~/.pgpass, ~/.postgresql/postgresql.crt).
_NO_FILE = f"{os.devnull}/none"


def fingerprint(offer: Offer) -> bytes:
    """Return what tells two offers apart without holding their values."""
    text = msgspec.msgpack.encode(sorted((name, str(value)) for name, value in offer.parameters.items()))
    return hashlib.blake2b(text, key=_SALT).digest()


def of_another_user(offer: Offer, driver: str) -> Offer:
    """Return what is used of an offer that did not come from the monitor's own user: none of that user's files is read for it."""
    values = {name: value for name, value in offer.parameters.items() if name in _PLAIN}
    if driver == "psycopg":
        values |= {"passfile": _NO_FILE, "sslcert": _NO_FILE}
    return Offer(values, offer.expires_at)


@dataclass(slots=True)
class _Record:
    proved: bool = False
    trial: str | None = None  # the host that is trying it for the first time
    failures: int = 0  # in a row, until any host accepts it
    not_before: float = 0.0
    refused_by: dict[str, tuple[int, float]] = field(default_factory=dict)  # host -> failures in a row, not before


class CredentialBook:
    """What became of each offer of one cluster."""

    def __init__(self) -> None:
        self._offers: list[tuple[bytes, Offer]] = []
        self._records: dict[bytes, _Record] = {}

    def replace(self, offers: Iterable[Offer]) -> bool:
        """Take over the live offers, newest first; return whether one is new. Records of offers that are gone are forgotten, and
        their values with them."""
        found: dict[bytes, Offer] = {}
        for offer in offers:
            found.setdefault(fingerprint(offer), offer)
        self._offers = list(found.items())
        has_news = not self._records.keys() >= found.keys()
        self._records = {key: self._records.get(key) or _Record() for key in found}
        return has_news

    def pick(self, host: str, now: float, wall: float) -> tuple[bytes, Offer] | None:
        """Return the offer that `host` should log in with now, None when there is none. `wall`: seconds since the Unix epoch."""
        for key, offer in self._offers:
            record = self._records[key]
            if offer.expires_at is not None and offer.expires_at <= wall:
                continue
            if record.refused_by.get(host, _NEVER)[1] > now or record.not_before > now:
                continue
            if not record.proved:
                if record.trial is not None and record.trial != host:
                    return None  # its first trial is running; its outcome decides for all hosts
                record.trial = host
            return key, offer
        return None

    def is_on_trial(self) -> bool:
        """Whether some host is trying an offer for the first time: its outcome is worth waiting for."""
        return any(record.trial is not None for record in self._records.values())

    def accepted(self, key: bytes, host: str) -> None:
        """Record that the server let the offer in."""
        record = self._records.get(key)
        if record is not None:
            record.proved, record.trial, record.failures, record.not_before = True, None, 0, 0.0
            record.refused_by.pop(host, None)

    def refused(self, key: bytes, host: str, now: float, outage: float | None = None) -> None:
        """Record a login error. `outage`: seconds since the cluster's writer was lost, None when all is well. An offer that worked
        before is not to blame then, and is tried again soon."""
        record = self._records.get(key)
        if record is None:
            return
        record.trial = None
        # Of an offer that works elsewhere, the host alone is in doubt.
        failures = record.refused_by.get(host, _NEVER)[0] if record.proved else record.failures
        if record.proved and is_being_mended(outage):
            record.failures, failures = max(record.failures, 1), max(failures, 1)
            until = now + LOGIN_RETRY
        else:
            record.failures, failures = record.failures + 1, failures + 1
            until = now + login_backoff(failures)
        record.refused_by[host] = failures, until
        if not record.proved:
            record.not_before = until

    def forgive(self) -> None:
        """Let every host be tried again at once with the offers that have worked somewhere."""
        for record in self._records.values():
            if record.proved:
                record.refused_by.clear()

    def undecided(self, key: bytes, host: str) -> None:
        """Record that the attempt ended without a word on the login."""
        record = self._records.get(key)
        if record is not None and record.trial == host:
            record.trial = None

    def is_exhausted(self, wall: float) -> bool:
        """Whether every offer has expired or was refused the last time: the clients have to be asked for a new one."""
        return not any(
            (offer.expires_at is None or offer.expires_at > wall) and self._records[key].failures == 0
            for key, offer in self._offers
        )

    def __len__(self) -> int:
        return len(self._offers)
