"""Encryption of a monitor's sockets over TCP: CURVE (rfc.zeromq.org/spec/26), with keys in files as pyzmq keeps them.

A key directory of a worker holds `client.key_secret` (its own pair) and `server.key` (the monitor's public key).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

SERVER_PUBLIC = "server.key"
CLIENT_SECRET = "client.key_secret"


class KeyFileError(Exception):
    """A key cannot be used; the text names the file and the reason, never the key."""


def load_pair(path: Path) -> tuple[bytes, bytes]:
    """Return the public and the secret key in a file that nobody else may read. Raises `KeyFileError`."""
    try:
        found = path.stat()
    except OSError as error:
        raise KeyFileError(f"key file {str(path)!r} cannot be read: {error.strerror}") from None
    if found.st_uid not in (os.getuid(), 0) or stat.S_IMODE(found.st_mode) & 0o077:
        raise KeyFileError(
            f"key file {str(path)!r} of uid {found.st_uid} has mode {stat.S_IMODE(found.st_mode):04o}; others could read it: "
            "it has to be your own, with mode 0600"
        )
    public, secret = _load(path)
    if secret is None:
        raise KeyFileError(f"key file {str(path)!r} holds no secret key")
    return public, secret


def load_public(path: Path) -> bytes:
    """Return the public key in a file. Raises `KeyFileError`."""
    return _load(path)[0]


def encrypt(socket: Any, keys: Path | None) -> None:
    """Have a socket's connections made with the keys of a directory; without one it stays as it is. Raises `KeyFileError`."""
    if keys is None:
        return
    public, secret = load_pair(keys / CLIENT_SECRET)
    socket.curve_serverkey = load_public(keys / SERVER_PUBLIC)
    socket.curve_publickey = public
    socket.curve_secretkey = secret


def _load(path: Path) -> tuple[bytes, bytes | None]:
    from zmq.auth import load_certificate

    try:
        return load_certificate(path)
    except (OSError, ValueError) as error:
        raise KeyFileError(
            f"key file {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or 'it holds no key'}"
        ) from None
