"""What a MySQL probe takes from an offer, whose names are those of mysql.connector's connect arguments.

Left out on purpose: the database (a probe needs none, and might have no right to it), character set and collation (a probe's text
is UTF-8), `conn_attrs`, `init_command`, SQL mode, time zone, time-outs, `unix_socket`, pools and lists of hosts.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The `ssl_…` and `tls_…` arguments."""

    ca: str | None
    certificate: str | None
    key: str | None
    verifies_certificate: bool
    verifies_name: bool
    versions: tuple[str, ...]
    ciphers: str

    @property
    def is_strict(self) -> bool:
        return self.verifies_certificate or self.verifies_name


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """Login values. `tls`: None when it is forbidden."""

    user: str
    password: bytes
    tls: TlsOptions | None

    @classmethod
    def of(cls, offer: Mapping[str, Any]) -> Login:
        password = _first(offer, "password", "passwd", "password1") or ""
        return cls(
            user=str(_first(offer, "user", "username") or ""),
            password=password if isinstance(password, bytes) else str(password).encode(),
            tls=None if offer.get("ssl_disabled") else _tls_options(offer),
        )


def tls_context(options: TlsOptions | None, *, is_offered: bool) -> ssl.SSLContext | None:
    """Return how to talk TLS; None for not at all. As mysql.connector: wherever a server offers it and nobody forbids it.

    Raises `OSError` for files that are missing or no certificates, `ValueError` for a server that cannot be verified.
    """
    if options is None:
        return None
    if is_offered:
        files = (options.ca, options.certificate, options.key)
        return _tls_context(options, tuple(os.stat(file).st_mtime_ns for file in files if file))
    if options.is_strict:
        raise ValueError("the login values want the server verified, which does not offer it")
    return None


def _tls_options(offer: Mapping[str, Any]) -> TlsOptions:
    ciphers = offer.get("tls_ciphersuites") or offer.get("ssl_cipher") or ""
    return TlsOptions(
        ca=offer.get("ssl_ca") or None,
        certificate=offer.get("ssl_cert") or None,
        key=offer.get("ssl_key") or None,
        verifies_certificate=bool(offer.get("ssl_verify_cert")),
        verifies_name=bool(offer.get("ssl_verify_identity")),
        versions=tuple(offer.get("tls_versions") or ()),
        ciphers=ciphers if isinstance(ciphers, str) else ":".join(ciphers),
    )


@lru_cache(maxsize=64)
def _tls_context(options: TlsOptions, stamps: tuple[int, ...]) -> ssl.SSLContext:
    """`stamps`: the files' times, so that a replaced file is read again. Reading a bundle takes 20 ms: too long for each login."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = options.verifies_name
    context.verify_mode = ssl.CERT_REQUIRED if options.is_strict else ssl.CERT_NONE
    if options.ca:
        context.load_verify_locations(options.ca)
    elif options.is_strict:
        context.load_default_certs()
    if options.certificate:
        context.load_cert_chain(options.certificate, options.key)
    wanted = sorted(_VERSIONS[version] for version in options.versions if version in _VERSIONS)
    if wanted:
        context.minimum_version, context.maximum_version = wanted[0], wanted[-1]
    # The suites of TLS 1.3 are not Python's to choose.
    older = [cipher for cipher in options.ciphers.split(":") if cipher and not cipher.startswith("TLS_")]
    if older:
        context.set_ciphers(":".join(older))
    return context


def _first(offer: Mapping[str, Any], *names: str) -> Any:
    return next((offer[name] for name in names if offer.get(name) is not None), None)
