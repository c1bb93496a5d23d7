"""One server of the lab, whatever its engine: a data directory and, at times, processes."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from wrapper.testing.errors import LabError
from wrapper.testing.processes import die_with_parent, is_alive, send, wait_until_stopped

PATIENCE = 20.0


class Server(ABC):
    """A server at one address, started from the controller's main thread only: it dies when the *thread* that started it ends.

    `source`: the server that it replicates from, or None for a writer. `refuses_logins`: whether applications may not log
    in. Both are what the server was told; one that hangs or is down learns it when it is refreshed or started.
    """

    # What the engine's driver raises; while something is waited for, it counts as "not yet".
    driver_error: ClassVar[type[Exception]]

    def __init__(self, directory: Path, instance_id: str, address: str, port: int) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        self.view_file = directory / "view.json"
        self.id = instance_id
        self.address = address
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        self.is_hung = False
        self.source: Server | None = None
        self.refuses_logins = False
        self._occupied: list[socket.socket] = []

    # -- what each engine does its own way -------------------------------------------------------------------------------------

    @property
    def direct_address(self) -> str:
        """Where the server itself listens, with nothing in between."""
        return self.address

    @property
    @abstractmethod
    def was_writer(self) -> bool:
        """Whether the data are those of a writer, past or present."""

    @abstractmethod
    def session(self) -> AbstractContextManager[Any]:
        """Return a session of the superuser's."""

    @abstractmethod
    def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement as superuser on a session of its own; return its rows."""

    @abstractmethod
    def start(self, source: Server | None) -> None:
        """Start as the writer, or as a reader of `source`; returns when it answers."""

    @abstractmethod
    def follow(self, source: Server) -> None:
        """Replicate from `source` from now on."""

    @abstractmethod
    def refresh(self) -> None:
        """Tell a server that was resumed what it did not hear while it hung."""

    @abstractmethod
    def renew_certificate(self) -> None:
        """Show new sessions the certificate that is in its file now."""

    @abstractmethod
    def convert(self, source: Server) -> None:
        """Make the data of a former writer that is down fit to follow `source`. What nobody else had is lost, as on Aurora."""

    @abstractmethod
    def clone(self, source: Server) -> None:
        """Replace the data of a server that is down by a fresh copy that can follow `source`."""

    @abstractmethod
    def follows(self, source: Server, timeout: float) -> bool:
        """Wait until it replicates from `source` properly; false when it does not."""

    @abstractmethod
    def followers(self, readers: Iterable[Server]) -> set[str]:
        """Return which of `readers` replicate from this server, by id."""

    @abstractmethod
    def position(self) -> int:
        """How much of the writer's history a reader has received."""

    @abstractmethod
    def promote(self, *, drop_sessions: bool) -> float:
        """Become the writer; return the moment from which it takes writes (CLOCK_MONOTONIC). `drop_sessions`: end those it has."""

    @abstractmethod
    def drop_sessions(self) -> int:
        """End every client session; return how many there were, when they are gone."""

    @abstractmethod
    def refuse_logins(self, on: bool) -> None:
        """Refuse applications' logins, or no longer."""

    @abstractmethod
    def occupy(self, limit: int) -> None:
        """Take every connection slot that applications may have, `limit` being their number, and stay full when sessions end."""

    @abstractmethod
    def vacate(self) -> None:
        """Give the slots back."""

    @abstractmethod
    def stop(self, *, patience: float = 3.0) -> None:
        """Shut down in order, after the readers have everything; what takes longer than `patience` seconds is cut short."""

    @abstractmethod
    def _freeze(self) -> set[int]:
        """SIGSTOP every process of the server; return them all."""

    @abstractmethod
    def _pids(self) -> set[int]:
        """Return every process of the server."""

    # -- the same for all ------------------------------------------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_responsive(self) -> bool:
        return self.is_running and not self.is_hung

    @property
    def is_full(self) -> bool:
        return bool(self._occupied)

    def launch(self, command: list[str], **how: Any) -> subprocess.Popen[bytes]:
        """Start a process of the server's, which logs to its file and ends with the controller."""
        with open(self.log, "ab") as log:
            how = {"stdin": subprocess.DEVNULL, "stdout": log, **how}
            return subprocess.Popen(command, stderr=log, cwd=self.directory, preexec_fn=die_with_parent, **how)

    def run(self, program: str, command: list[str], **how: Any) -> None:
        """Run a program of the engine's to its end. Raises `LabError` with what it said when it fails."""
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.directory, check=False, timeout=120, preexec_fn=die_with_parent, **how
        )
        if done.returncode != 0:
            raise LabError(f"{program} failed for {self.id}: {(done.stderr or done.stdout).strip()[-2000:]}")

    def wait(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE, pause: float = 0.005) -> None:
        """Wait until `condition` is true; database errors count as not yet."""
        deadline = time.monotonic() + timeout
        last = ""
        while time.monotonic() < deadline:
            if not self.is_running:
                break
            try:
                if condition():
                    return
            except self.driver_error as error:
                last = f": {error}"
            time.sleep(pause)
        tail = self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""
        raise LabError(f"{self.id} did not come {what} within {timeout:g} s{last}\n{tail}")

    def kill(self) -> None:
        """SIGKILL the whole server at once; clients see a reset."""
        process = self.process
        if process is not None and process.poll() is None:
            pids = self._freeze()  # so that no session lives to say goodbye
            send(pids, signal.SIGKILL)
            process.wait()
            deadline = time.monotonic() + PATIENCE
            while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
                time.sleep(0.001)  # a new server refuses to start beside an old one's sessions
        self.process = None
        self.is_hung = False
        self.vacate()

    def hang(self, *, postmaster_only: bool = False) -> None:
        """SIGSTOP the server: the kernel goes on accepting, nobody answers."""
        if self.is_running:
            if postmaster_only:
                self._hang_acceptor()
            else:
                wait_until_stopped(self._freeze())
            self.is_hung = True

    @abstractmethod
    def _hang_acceptor(self) -> None:
        """SIGSTOP what accepts connections, and nothing else."""

    def resume(self) -> None:
        """SIGCONT the server."""
        if self.is_running:
            send(self._pids(), signal.SIGCONT)
        self.is_hung = False
