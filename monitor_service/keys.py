"""The monitor's side of CURVE: its own keys, and those of the clients that it serves over TCP.

A key directory of a monitor holds `server.key_secret`, `server.key`, `clients/NAME.key` (the public key of each client that is
admitted) and `handout/NAME/`, what that client has to be given.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import zmq
from zmq.auth import create_certificates

from wrapper.monitor.curve import SERVER_PUBLIC, KeyFileError, load_pair, load_public

SERVER_SECRET = "server.key_secret"


def make_keys(directory: Path, clients: list[str]) -> list[str]:
    """Make the monitor's keys where there are none, and a pair for each named client. Returns what was done, in sentences.

    Raises `KeyFileError` for a client that has keys already: whoever uses them would be locked out.
    """
    for name in clients:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise KeyFileError(f"client name {name!r}: letters, digits, '-' and '_' are allowed")
        if (directory / "clients" / f"{name}.key").exists():
            raise KeyFileError(f"client {name!r} has keys already; remove {directory / 'clients' / name}.key to take them back")
    before = os.umask(0o077)
    try:
        return _make(directory, clients)
    except OSError as error:
        raise KeyFileError(
            f"key directory {str(directory)!r} cannot be used: {error.strerror}; name one that uid {os.getuid()} can write"
        ) from error
    finally:
        os.umask(before)


def _make(directory: Path, clients: list[str]) -> list[str]:
    (directory / "clients").mkdir(mode=0o700, parents=True, exist_ok=True)
    done = []
    if not (directory / SERVER_SECRET).exists():
        create_certificates(directory, "server")
        done.append(f"made the monitor's keys in {directory}")
    for name in clients:
        handout = directory / "handout" / name
        handout.mkdir(mode=0o700, parents=True)
        public, _ = create_certificates(handout, "client")
        shutil.move(public, directory / "clients" / f"{name}.key")
        shutil.copy(directory / SERVER_PUBLIC, handout / SERVER_PUBLIC)
        done.append(f"client {name!r} is admitted after the next start of the monitor; move {handout} to where it runs")
    return done


def authorized_keys(directory: Path) -> frozenset[str]:
    """Return the public keys (Z85) of the clients that are admitted. Raises `KeyFileError`."""
    return frozenset(load_public(path).decode() for path in sorted((directory / "clients").glob("*.key")))


def serve_encrypted(socket: zmq.Socket[bytes], directory: Path) -> None:
    """Have whatever the socket is bound to from now on speak CURVE with the monitor's keys. Raises `KeyFileError`."""
    public, secret = load_pair(directory / SERVER_SECRET)
    socket.curve_server = True
    socket.curve_publickey = public
    socket.curve_secretkey = secret


def check_listening(url: str, keys: Path | None) -> str | None:
    """Return why the monitor cannot listen so; None when it can."""
    if keys is None:
        return f"--listen {url} needs --keys DIR: TCP is served encrypted or not at all (see 'aws-shared-monitor keys')"
    if not zmq.has("curve"):
        return "this libzmq was built without CURVE: TCP cannot be served"
    try:
        load_pair(keys / SERVER_SECRET)
        admitted = authorized_keys(keys)
    except KeyFileError as error:
        return str(error)
    return None if admitted else f"no client is admitted: make keys with 'aws-shared-monitor keys {keys} NAME'"
