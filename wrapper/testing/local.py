"""`LocalAurora`: a local Aurora cluster of real servers, from Python."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from wrapper.testing.client import SOCKET, LabClient
from wrapper.testing.errors import LabError
from wrapper.testing.isolation import isolated
from wrapper.testing.options import Options, choose_flavor
from wrapper.testing.processes import kill_inside, remove_shared_memory

_PREFIX = "aurora-lab-"
LOCK = "lock"
# sun_path of unix(7) holds 108 bytes, the last of which is zero.
_LONGEST_SOCKET_PATH = 107


class LocalAurora(LabClient):
    """A local Aurora cluster: real servers, one writer and replicating readers.

    Use it as a context manager. It lives in one directory and goes away with it, also when this process is killed.

    `instances`: how many. `engine`: `postgresql` (the default) or `mysql`, whose servers are MariaDB's. `flavor`: `aurora-pg` or
    `aurora-mysql`; `pg` or `mysql` for the same without what is Aurora's. `promote_delay`: seconds before a promotion, as a default
    for `failover` and `promote_later`. `drop_sessions`: end the sessions of a promoted instance, as Aurora's restart does.
    `synchronous`: acknowledge commits only when a reader has them, so that no failover loses one. `dns_delay`: seconds until the
    writer endpoint's name follows. `address_names`: call the instances by the last number of their address, so that drivers which
    know nothing of the lab's names reach them. `tls`: the servers offer TLS, with a certificate for all their names and addresses
    by an authority of the lab's own (`certificate_authority`). `regions`: for a Global Database, see `LocalGlobalDatabase`.

    Raises `LabError` when it cannot start.
    """

    def __init__(
        self,
        instances: int = 3,
        flavor: str | None = None,
        *,
        engine: str | None = None,
        promote_delay: float = 0.0,
        drop_sessions: bool = True,
        synchronous: bool = False,
        dns_delay: float = 0.0,
        max_connections: int = 200,
        address_names: bool = False,
        suffix: str = "local-1.rds.test",
        tls: bool = False,
        regions: Sequence[str] = (),
        directory: str | Path | None = None,
    ) -> None:
        sweep()
        flavor = choose_flavor(engine, flavor)
        if directory is None:
            directory = tempfile.mkdtemp(prefix=_PREFIX)
            os.chmod(directory, 0o755)  # the servers' account has to get in
        else:
            try:
                Path(directory).mkdir(mode=0o755)
            except FileExistsError:
                raise LabError(f"directory {str(directory)!r} exists: is a lab running there? Otherwise remove it") from None
        super().__init__(directory)
        self.options = Options(
            str(self.directory),
            instances,
            flavor,
            promote_delay,
            drop_sessions,
            synchronous,
            dns_delay,
            max_connections,
            address_names,
            suffix,
            tls,
            tuple(regions),
        )
        self._process: subprocess.Popen[str] | None = None
        self._owner = os.getpid()
        # Locked before it has its name: no other lab may take this one for a dead one's.
        draft = self.directory / "lock.new"
        self._lock = open(draft, "w")  # noqa: SIM115  handed to the controller
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        draft.rename(self.directory / LOCK)
        try:
            if len(os.fsencode(self.directory / SOCKET)) > _LONGEST_SOCKET_PATH:
                raise LabError(
                    f"directory {str(self.directory)!r} is too long a path for a socket in it: use a shorter one (or set TMPDIR)"
                )
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        command = [*isolated(), sys.executable, "-m", "wrapper.testing.controller", json.dumps(asdict(self.options))]
        # A handle on this process tells the controller of its end, even where a forked child keeps the pipe open.
        owner = os.pidfd_open(os.getpid())
        try:
            self._process = subprocess.Popen(
                [*command, str(owner)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                pass_fds=[self._lock.fileno(), owner],
            )
        finally:
            os.close(owner)
            self._lock.close()  # it is the controller's now: the directory is stale when that is gone
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LabError(f"the lab's controller ended with status {self._process.wait()} before it was ready")
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(answer["error"])
        self._facts = answer["ready"]

    def __enter__(self) -> LocalAurora:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def wait(self) -> None:
        """Wait until the lab is told to go down."""
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """End the servers and remove the directory. Does nothing in a forked child of the process that started the lab."""
        if self._owner != os.getpid():
            return
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        self._lock.close()
        clear(self.directory)


def sweep() -> None:
    """Remove what labs left behind whose controller was killed and whose owner did not see to it."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{LOCK}"):
        try:
            with open(lock) as file:
                if os.fstat(file.fileno()).st_uid == os.getuid():
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    clear(lock.parent)
        except OSError:
            continue  # it is in use, was removed meanwhile, or is another user's


def clear(directory: Path) -> None:
    """End what still runs in a lab's directory (servers that hung when their parent died, above all), and remove it."""
    kill_inside(directory)
    for pid_file in directory.glob("*/data/postmaster.pid"):
        remove_shared_memory(pid_file)
    shutil.rmtree(directory, ignore_errors=True)
