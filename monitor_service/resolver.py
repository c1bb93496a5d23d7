"""Host names to addresses, off the loop and bounded, so that a hung name server never delays a probe of a known host."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from dataclasses import dataclass
from time import monotonic

from wrapper.resolver import static_address

# Look-ups in flight, each on a thread of its own: a hung one holds its thread until the C library gives up.
MAX_LOOKUPS = 32
# Seconds after which an address that is in use is looked up again, in the background.
REFRESH = 10.0


class ResolveError(Exception):
    """A name could not be resolved: trouble on this machine's side, no news of the server."""


@dataclass(slots=True)
class _Known:
    addresses: tuple[str, ...]
    at: float


class Resolver:
    """Keeps the last good address of every host. A host whose address is known never waits for the name server."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._running: dict[str, asyncio.Future[str]] = {}

    def cached(self, host: str) -> str | None:
        """Return the address at once: a literal, the hosts file's, or the last good one (refreshed behind the caller's back)."""
        fixed = _fixed(host)
        if fixed is not None:
            return fixed
        known = self._known.get(host)
        if known is None:
            return None
        if monotonic() - known.at > REFRESH and host not in self._running and len(self._running) < MAX_LOOKUPS:
            # Failures keep the last good address; the next attempt comes with the next use.
            self._start(host).add_done_callback(lambda done: done.exception())
        return known.addresses[0]

    def has_moved(self, host: str, address: str) -> bool:
        """Whether `address`, once an answer for `host`, is none any more. Several addresses come in a different order each time."""
        try:
            cached = self.cached(host)
        except OSError:
            return False  # the hosts file is being replaced: what worked keeps working
        known = self._known.get(host)
        return cached is not None and cached != address and (known is None or address not in known.addresses)

    async def resolve(self, host: str, timeout: float) -> str:
        """Return the address, waiting for the name server only when none is known. Raises `ResolveError`."""
        try:
            known = self.cached(host)
        except OSError as error:
            raise ResolveError(f"the hosts file cannot be read: {error.strerror}") from error
        if known is not None:
            return known
        running = self._running.get(host)
        if running is None:
            if len(self._running) >= MAX_LOOKUPS:
                raise ResolveError(f"{host} waits for {MAX_LOOKUPS} hung name look-ups")
            running = self._start(host)
        try:
            return await asyncio.wait_for(asyncio.shield(running), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            raise ResolveError(f"name look-up of {host} took more than {timeout:g} s") from None
        except OSError as error:
            raise ResolveError(f"name look-up of {host} failed: {error.strerror or error}") from error

    def _start(self, host: str) -> asyncio.Future[str]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str] = loop.create_future()
        self._running[host] = future

        def finish(addresses: tuple[str, ...], error: OSError | None) -> None:
            self._running.pop(host, None)
            if known := self._known.get(host):
                known.at = monotonic()
            if addresses:
                self._known[host] = _Known(addresses, monotonic())
            if future.cancelled():
                return
            if addresses:
                future.set_result(addresses[0])
            else:
                future.set_exception(error or OSError(f"{host} has no address"))
                future.exception()  # whoever waits gets it; nobody may be waiting any more

        def look_up() -> None:
            addresses: tuple[str, ...] = ()
            failure = None
            try:
                found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                addresses = tuple(str(one[4][0]) for one in found)
            except OSError as error:
                failure = error
            except UnicodeError:
                failure = OSError(f"{host!r} is not a host name")
            try:
                loop.call_soon_threadsafe(finish, addresses, failure)
            except RuntimeError:
                pass  # the loop was closed meanwhile: nobody is interested

        try:
            threading.Thread(target=look_up, name=f"resolve {host}", daemon=True).start()
        except RuntimeError as error:  # no memory, or too many processes
            finish((), OSError(str(error)))
        return future


def _fixed(host: str) -> str | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return static_address(host)
    return host
