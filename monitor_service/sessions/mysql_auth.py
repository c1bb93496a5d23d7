"""How a password is shown to a MySQL server, per login method. No I/O.

Here are the methods of servers' own accounts that mysql-connector-python has too. The others (LDAP, Kerberos, OCI, OpenID Connect,
WebAuthn, further factors; MariaDB's ed25519 and PAM, which that driver lacks as well) are refused by name: whoever logs in by them
gives the monitor an account of its own (docs/mysql.md).

Sources: MySQL Source Code Documentation, "Authentication Methods"; RFC 8017 (RSAES-OAEP) and RFC 5280 (SubjectPublicKeyInfo).
"""

from __future__ import annotations

import base64
import hashlib
import os
from itertools import cycle

NATIVE = "mysql_native_password"
CACHING_SHA2 = "caching_sha2_password"
SHA256 = "sha256_password"
CLEAR = "mysql_clear_password"
METHODS = frozenset({NATIVE, CACHING_SHA2, SHA256, CLEAR})

# What caching_sha2_password says: it knows the account from its last login; it does not, and wants the password itself.
FAST_LOGIN, FULL_LOGIN = b"\x03", b"\x04"
# What asks for the server's public key.
_ASK_FOR_KEY = {SHA256: b"\x01", CACHING_SHA2: b"\x02"}
_KEY_BEGINS, _KEY_ENDS = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"


class UnsupportedLoginError(Exception):
    """The server wants to be shown the password in a way that is not possible here."""


class Prover:
    """One login: shows `password` as the server wants it.

    `is_secure`: TLS is on. `may_encrypt`: without TLS, the password may be encrypted for whoever sends a public key: where TLS was
    switched off, and with it any proof of who the server is.
    """

    def __init__(self, password: bytes, *, is_secure: bool, may_encrypt: bool) -> None:
        self._password = password
        self._is_secure = is_secure
        self._may_encrypt = may_encrypt
        self._method = NATIVE
        self._nonce = b""

    def prove(self, method: str, nonce: bytes) -> bytes:
        """Return the first answer by a method. Raises `UnsupportedLoginError`."""
        self._method, self._nonce = method, nonce
        if method == CLEAR:
            return self._whole_password()
        if method not in METHODS:
            raise UnsupportedLoginError(f"the server asks for the login method {method!r}, which the monitor does not have")
        if not self._password:
            return b"\0" if method == SHA256 else b""
        if method == SHA256:
            return self._whole_password()
        if method == NATIVE:
            once = hashlib.sha1(self._password).digest()
            return _xor(once, hashlib.sha1(nonce + hashlib.sha1(once).digest()).digest())
        once = hashlib.sha256(self._password).digest()
        return _xor(once, hashlib.sha256(hashlib.sha256(once).digest() + nonce).digest())

    def go_on(self, said: bytes) -> bytes | None:
        """Return the next answer by the same method; None when the server only lets us know. Raises `UnsupportedLoginError`, and
        `ValueError` for what is no word of the method."""
        if said == FAST_LOGIN:
            return None
        if said == FULL_LOGIN:
            return self._whole_password()
        if said.startswith(_KEY_BEGINS) and self._may_encrypt and not self._is_secure:
            return encrypt(_xor(self._password + b"\0", self._nonce), *read_key(said))
        raise ValueError(f"no word of {self._method}: {said[:20]!r}")

    def _whole_password(self) -> bytes:
        if self._is_secure:
            return self._password + b"\0"
        if self._may_encrypt and self._method in _ASK_FOR_KEY:
            return _ASK_FOR_KEY[self._method]
        # caching_sha2_password asks for it too when the server has not seen the account log in since its start.
        raise UnsupportedLoginError(f"the server asks for the password itself ({self._method}), which is not told without TLS")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, cycle(right), strict=False))


# -- a server's public key -----------------------------------------------------------------------------------------------------


def read_key(pem: bytes) -> tuple[int, int]:
    """Return modulus and exponent of an RSA key. Raises `ValueError`."""
    text = pem.partition(_KEY_BEGINS)[2].partition(_KEY_ENDS)[0]
    # Algorithm and key; the key is a bit string, which begins with the number of its unused bits.
    (whole,) = _parts(base64.b64decode(text))
    _, bits = _parts(whole)
    (key,) = _parts(bits[1:])
    modulus, exponent = (int.from_bytes(part, "big") for part in _parts(key))
    if modulus.bit_length() < 512 or not 1 < exponent < modulus:
        raise ValueError("not an RSA key")
    return modulus, exponent


def _parts(der: bytes) -> list[bytes]:
    """Return the contents of a row of DER values."""
    found = []
    while der:
        size, begin = der[1] if len(der) > 1 else len(der), 2
        if size & 0x80:
            begin += size & 0x7F
            size = int.from_bytes(der[2:begin], "big")
        if len(der) < begin + size:
            raise ValueError("not a public key: it is cut off")
        found.append(der[begin : begin + size])
        der = der[begin + size :]
    return found


def encrypt(text: bytes, modulus: int, exponent: int) -> bytes:
    """Return RSAES-OAEP with SHA-1, empty label. Raises `UnsupportedLoginError` for a text that is longer than the key allows."""
    size = (modulus.bit_length() + 7) // 8
    label = hashlib.sha1().digest()
    padding = size - len(text) - 2 * len(label) - 2
    if padding < 0:
        raise UnsupportedLoginError("the password is too long for the server's public key: use TLS")
    seed = os.urandom(len(label))
    block = label + bytes(padding) + b"\1" + text
    masked = _xor(block, _mask(seed, len(block)))
    padded = _xor(seed, _mask(masked, len(seed))) + masked
    return pow(int.from_bytes(padded, "big"), exponent, modulus).to_bytes(size, "big")


def _mask(seed: bytes, size: int) -> bytes:
    """Return MGF1."""
    blocks = (hashlib.sha1(seed + number.to_bytes(4, "big")).digest() for number in range(size // 20 + 1))
    return b"".join(blocks)[:size]
