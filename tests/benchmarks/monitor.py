"""The shared monitor of one run: found by its directory, signalled by its pid, stopped at the end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from monitor_service.client import MonitorConnection
from monitor_service.election import is_held
from wrapper.monitor.messages import Status, StatusRequest, StopRequest
from wrapper.monitor.paths import MonitorPaths


class Monitor:
    """Whatever monitor serves a directory at the moment; the workers start it."""

    def __init__(self, directory: Path) -> None:
        self.paths = MonitorPaths(directory)

    def document(self, timeout: float = 1.0) -> dict[str, Any] | None:
        """Return what the monitor says of itself, None when none answers."""
        try:
            with MonitorConnection(self.paths) as connection:
                answer = connection.ask(StatusRequest(), timeout)
        except TimeoutError:
            return None
        return answer.document if isinstance(answer, Status) else None

    def wait_until_watching(self, hosts: int, clients: int = 1, timeout: float = 20.0) -> int:
        """Wait until a monitor watches one cluster of so many hosts with a session on each; return its pid. Raises
        `TimeoutError`."""
        deadline = time.monotonic() + timeout
        seen = "no monitor answered"
        while time.monotonic() < deadline:
            document = self.document()
            clusters = document["clusters"] if document else []
            if document and len(clusters) == 1 and clusters[0]["writer"] and clusters[0]["clients"] >= clients:
                answering = [host for host in clusters[0]["hosts"] if host["session"] and host["kind"] == "answered"]
                if len(answering) == len(clusters[0]["hosts"]) == hosts:
                    return int(document["pid"])
            if document:
                seen = "; ".join(
                    f"{cluster['clients']} clients, writer {cluster['writer']}, "
                    + ", ".join(f"{host['key']} {host['evidence']}" for host in cluster["hosts"])
                    for cluster in clusters
                )
            time.sleep(0.02)
        raise TimeoutError(f"no monitor watched {hosts} hosts for {clients} clients within {timeout:g} s: {seen or 'no cluster'}")

    def stop(self) -> None:
        """End the monitor, if one runs: by request, else by force."""
        document = self.document()
        if document is None:
            return
        with MonitorConnection(self.paths) as connection:
            try:
                connection.ask(StopRequest())
            except TimeoutError:
                pass  # see below
        deadline = time.monotonic() + 3.0
        while is_held(self.paths) and time.monotonic() < deadline:
            time.sleep(0.01)
        if is_held(self.paths):
            os.kill(int(document["pid"]), signal.SIGKILL)
