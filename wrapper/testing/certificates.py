"""TLS certificates of a lab: an authority of its own, and one certificate for all of its servers, made by the `openssl` program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from wrapper.testing.errors import LabError

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Certificates:
    """The files in `directory`: `ca.pem`, by which clients verify the servers, and the servers' `server.pem` and `server.key`."""

    def __init__(self, directory: Path, names: Iterable[str]) -> None:
        """Make them for servers that are called `names`, numeric addresses among them. Raises `LabError`."""
        if shutil.which("openssl") is None:
            raise LabError("tls=True needs the program openssl")
        self.directory = directory
        self.authority = directory / "ca.pem"
        self.certificate = directory / "server.pem"
        self.key = directory / "server.key"
        directory.mkdir(mode=0o755)
        (directory / "names").write_text("subjectAltName=" + ",".join(f"{_kind(name)}:{name}" for name in names))
        self._openssl(
            "req", "-x509", *_KEY, "-days", "30", "-subj", "/CN=lab authority", "-keyout", "ca.key", "-out", "ca.pem"
        )  # fmt: skip
        self._openssl("req", *_KEY, "-subj", "/CN=lab server", "-keyout", "server.key", "-out", "server.csr")
        self.sign(expired=False)

    def sign(self, *, expired: bool) -> None:
        """Make the servers' certificate anew for the same key, good for a month or `expired` since yesterday."""
        self._openssl(
            "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "-1" if expired else "30",
            "-extfile", "names", "-out", "server.new",
        )  # fmt: skip
        (self.directory / "server.new").replace(self.certificate)

    def _openssl(self, *arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            raise LabError(f"openssl {arguments[0]} failed: {done.stderr.strip()[-500:]}")


def _kind(name: str) -> str:
    try:
        ip_address(name)
    except ValueError:
        return "DNS"
    return "IP"
