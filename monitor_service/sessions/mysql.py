"""Probe sessions for MySQL and MariaDB, over a protocol client of our own (`mysql_protocol`, `channel`).

Why none of the drivers: each was tried on real servers under fault (hang, reset, garbage, a full server, cancelled questions).

* mysql-connector-python 9.7, asyncio: the answer of a cancelled question went to the next one; a connect to a server without TLS
  raised `TypeError`; garbage in place of a greeting waited for the time-out; most CPU per question.
* aiomysql 0.3, asyncmy 0.2: sound under cancellation. But TLS verifies the very host that is connected to (here an address, not a
  name), nobody learns whether a byte came before silence, and a knock cannot become a login.

The last point decides. MySQL speaks first, so a knock is a connection whose greeting has come, and dropping it there is an error
that servers count against the client's address: after `max_connect_errors` (100) of them they refuse it, applications and all
(1129). Measured on MySQL 9.7 and MariaDB 10.11:

    closed, or reset, after the greeting; a TLS handshake broken off       counted
    closed before a hung server could accept it                            counted when the server goes on
    reset before a hung server could accept it                             not counted
    any whole login packet, whatever becomes of it                         not counted

So one connection knocks and logs in; silence is reset; and where there is no login to try, a nameless one is sent before closing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from monitor_service.loop_guard import Deadline, LoopGuard, bounded
from monitor_service.sessions import APPLICATION_NAME, ProbeError, UnsupportedError, kind_of
from monitor_service.sessions import mysql_protocol as protocol
from monitor_service.sessions.channel import Channel
from monitor_service.sessions.mysql_auth import METHODS, NATIVE, Prover, UnsupportedLoginError
from monitor_service.sessions.mysql_login import Login, tls_context
from wrapper.drivers.classify import ErrorKind
from wrapper.drivers.mysql_errors import classify
from wrapper.monitor.state import ANSWERED, OURS, REFUSED, SILENT

T = TypeVar("T")

_COM_QUIT, _COM_QUERY = b"\x01", b"\x03"
# Autocommit, so that no answer is an old snapshot's; and the server's own limit, for a question whose asker is gone (seconds for
# MariaDB, milliseconds for MySQL). Each reads the comment that is meant for it.
_PREPARATION = "SET SESSION autocommit = 1 /*M!100101 , max_statement_time = 5 */ /*!50708 , max_execution_time = 5000 */"


class Door:
    """The way into the server at one address: a knock and the login after it share a connection."""

    def __init__(self, host: str, address: str, port: int, guard: LoopGuard) -> None:
        self._host = host
        self._address = address
        self._port = port
        self._guard = guard
        self._greeted: tuple[_Conversation, protocol.Greeting] | None = None

    async def knock(self, timeout: float) -> None:
        """Return when the server has greeted. Raises `ProbeError` within `timeout` seconds."""
        self.close()
        try:
            conversation = _Conversation(Channel(self._address))
        except OSError as error:
            raise ProbeError(OURS, f"no socket: {error.strerror}") from error
        self._greeted = conversation, await self._within(timeout, conversation, self._be_greeted(conversation))

    async def log_in(self, offer: Mapping[str, Any], timeout: float) -> ProbeSession:
        """Log in. Raises `ProbeError`; a server that does not finish the login within `timeout` seconds is `silent`."""
        if self._greeted is None:
            await self.knock(timeout)
        assert self._greeted is not None
        conversation, greeting = self._greeted
        login = Login.of(offer)
        try:
            context = tls_context(login.tls, is_offered=bool(greeting.capabilities & protocol.TLS))
        except (OSError, ValueError) as error:
            self.close()
            raise ProbeError(ANSWERED, f"TLS: {error}", ErrorKind.LOGIN) from None
        self._greeted = None
        await self._within(timeout, conversation, self._show_login(conversation, greeting, login, context))
        return ProbeSession(conversation, self._guard, self._address)

    def close(self) -> None:
        """Go away, leaving nothing that the server would count against us."""
        if self._greeted is not None:
            conversation, greeting = self._greeted
            self._greeted = None
            conversation.leave(greeting)

    async def _within(self, timeout: float, conversation: _Conversation, step: Coroutine[Any, Any, T]) -> T:
        channel = conversation.channel
        channel.heard = False
        try:
            return await bounded(self._guard, timeout, step)
        except TimeoutError:
            channel.reset()
            raise _cut_off(channel, timeout) from None
        except BaseException as error:
            channel.reset()
            probe_error = _probe_error(error)
            if probe_error is None:
                raise
            raise probe_error from None

    async def _be_greeted(self, conversation: _Conversation) -> protocol.Greeting:
        await conversation.channel.connect(self._port)
        return protocol.parse_greeting(await conversation.hear())

    async def _show_login(
        self, conversation: _Conversation, greeting: protocol.Greeting, login: Login, context: ssl.SSLContext | None
    ) -> None:
        channel = conversation.channel
        if context is not None:
            await conversation.reply(protocol.tls_request(greeting))
            await channel.start_tls(context, self._host)
        attributes = {"program_name": APPLICATION_NAME}
        secure = channel.is_secure
        prover = Prover(login.password, is_secure=secure, may_encrypt=login.tls is None)
        # A method that is not known here need not be the account's: the server says which that is.
        method = greeting.plugin if greeting.plugin in METHODS else NATIVE
        proof = prover.prove(method, greeting.nonce)
        await conversation.reply(protocol.login(greeting, login.user, method, proof, attributes, is_secure=secure))
        while (answer := await conversation.hear())[0] != protocol.OK:
            reply = _next_proof(prover, answer)
            if reply is not None:
                await conversation.reply(reply)


class ProbeSession:
    """One autocommit session that is asked one question at a time. After any `ProbeError` it must be closed."""

    def __init__(self, conversation: _Conversation, guard: LoopGuard, address: str) -> None:
        self.address = address
        self._conversation = conversation
        self._channel = conversation.channel
        self._guard = guard
        self._is_prepared = False

    async def ask(self, query: str, timeout: float) -> list[tuple[Any, ...]]:
        """Return the rows. Raises `ProbeError`; silence is ended by shutting the socket."""
        self._channel.unwatch()
        deadline = Deadline(self._guard, timeout, self.shut)
        try:
            if not self._is_prepared:
                # Part of the first question: a server that lets us in and answers nothing is silent, not busy.
                await self._conversation.ask(_PREPARATION)
                self._is_prepared = True
            return await self._conversation.ask(query)
        except OSError as error:
            if not deadline.expired:
                # Whatever ended the session: what it says of the server is found out on a new one.
                raise ProbeError(REFUSED, _words(error), ErrorKind.NETWORK) from None
            raise _cut_off(self._channel, timeout) from None
        except (protocol.ServerError, protocol.ProtocolError) as error:
            raise _probe_error(error) or error from None
        finally:
            deadline.cancel()

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the idle session hears something: the server has closed it or has something to say."""

        def heard() -> None:
            self._channel.unwatch()
            callback()

        self._channel.watch(heard)

    def shut(self) -> None:
        """End a running question at once; it raises. The session is then of no more use."""
        self._channel.shut()

    def close(self) -> None:
        """Give the session up; nothing may be running on it. Does not wait for the server."""
        self._channel.unwatch()
        self._conversation.part()


class _Conversation:
    """Packets over a channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._packets = protocol.Packets()

    async def hear(self) -> bytes:
        """Return the payload of the next packet."""
        while (payload := self._packets.take()) is None:
            self._packets.feed(await self.channel.receive())
        return payload

    async def reply(self, payload: bytes) -> None:
        await self.channel.send(self._packets.reply(payload))

    async def ask(self, query: str) -> list[tuple[Any, ...]]:
        self.channel.heard = False
        await self.channel.send(self._packets.command(_COM_QUERY + query.encode()))
        head = await self.hear()
        if head[0] == protocol.OK:
            return []
        types = [protocol.column_type(await self.hear()) for _ in range(protocol.column_count(head))]
        await self.hear()
        rows = []
        while not protocol.is_end(payload := await self.hear()):
            rows.append(protocol.parse_row(payload, types))
        return rows

    def part(self) -> None:
        """End a session."""
        self.channel.say(self._packets.command(_COM_QUIT))
        self.channel.close()

    def leave(self, greeting: protocol.Greeting) -> None:
        """Close a connection whose server waits for a login."""
        self.channel.say(self._packets.reply(protocol.nameless_login(greeting)))
        self.channel.close()


def _next_proof(prover: Prover, answer: bytes) -> bytes | None:
    """Return what to reply to what a server says of a login; None for nothing."""
    if answer[0] == protocol.END:
        return prover.prove(*protocol.parse_switch(answer))
    if answer[0] == protocol.NEXT_FACTOR:
        method, _ = protocol.parse_switch(answer)
        raise UnsupportedLoginError(f"the server asks for one more factor, by {method!r}, and the monitor has but one")
    if answer[0] != protocol.MORE_AUTH:
        raise protocol.ProtocolError(f"not an answer to a login: {answer[:20]!r}")
    try:
        return prover.go_on(answer[1:])
    except ValueError as error:
        raise protocol.ProtocolError(str(error)) from None


def _probe_error(error: BaseException) -> ProbeError | None:
    """Return how a question ended by an error; None for what is none of the server's doing, nor of the network's."""
    if isinstance(error, protocol.ServerError):
        kind = classify(error)
        # The last words of a session say nothing of the server.
        return ProbeError(REFUSED if kind is ErrorKind.NETWORK else ANSWERED, str(error)[:200], kind)
    if isinstance(error, UnsupportedLoginError):
        return UnsupportedError(str(error))
    if isinstance(error, protocol.ProtocolError):
        return ProbeError(ANSWERED, str(error))
    if isinstance(error, ssl.SSLError):
        return ProbeError(ANSWERED, f"TLS: {getattr(error, 'verify_message', None) or error.reason or error}", ErrorKind.LOGIN)
    if isinstance(error, OSError):
        return ProbeError(kind_of(error), _words(error), ErrorKind.NETWORK)
    return None


def _cut_off(channel: Channel, timeout: float) -> ProbeError:
    if channel.heard:
        return ProbeError(ANSWERED, f"no end of the answer within {timeout:g} s")
    return ProbeError(SILENT, f"no byte within {timeout:g} s")


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
