"""The server's side of a conversation in lines, whichever protocol is spoken in it: SMTP (RFC 5321) and POP3 (RFC 1939) alike.

The one invariant: octets are kept until the state asks for them; where the session ends, or TLS begins, what is left of them is dropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeVar

from mailsec.model.limits import Limits
from mailsec.model.requests import Ask, Close, Deadline, Request, StartTls

__all__ = ["FOREIGN", "Conversation", "LastWords"]

S = TypeVar("S", bound=Enum)
R = TypeVar("R")

# What web clients send first. A page in a browser that makes it post to this port must not get a command through.
FOREIGN = frozenset({b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH", b"TRACE", b"PRI"})


class LastWords(NamedTuple, Generic[R]):
    """What is said to a client before it is left."""

    long_line: R
    bare_lf: R
    too_many_errors: R | None
    """None where nothing may be said that answers no command (RFC 1939 §3)."""


class Conversation(ABC, Generic[S, R]):
    """What a server keeps of one connection, and how it goes from line to line; `S` are its states, `R` its replies.

    `closed` and `handshake` are the states that all such protocols have: the session has ended; the TLS handshake is awaited.
    """

    def __init__(self, limits: Limits, words: LastWords[R], *, closed: S, handshake: S, tls: str) -> None:
        self.state = closed
        self._limits = limits
        self._words = words
        self._closed = closed
        self._awaits_tls = handshake
        self._tls_from_the_start = tls == "implicit"
        self._requests: list[Request] = []
        self._buffer = b""
        self._at = 0
        self._answered: Callable[[Any], None] | None = None
        self._bad = 0
        self._draining = False

    # -- what the driver calls ------------------------------------------------------------------------------------------------

    def connection_made(self) -> list[Request]:
        if self._tls_from_the_start:
            self._handshake()
        else:
            self._greet()
        return self._take()

    def answer(self, value: Any) -> list[Request]:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(value)
            self._work()
        return self._take()

    def connection_lost(self, reason: str) -> list[Request]:
        # Nothing is asked any more: a broken connection of POP3 deletes nothing (RFC 1939 §6).
        self.state = self._closed
        self._answered = None
        self._requests.clear()
        return []

    # -- what a protocol brings -----------------------------------------------------------------------------------------------

    @abstractmethod
    def _greet(self) -> None:
        """The connection stands (under TLS where it begins with that)."""

    @abstractmethod
    def _work(self) -> None:
        """Go on with what waits in the buffer until a question is open, the state forbids it, or nothing whole is left."""

    @abstractmethod
    def _wait(self) -> None:
        """A command is awaited: set its deadline."""

    @abstractmethod
    def _say(self, reply: R) -> None:
        """Send `reply`."""

    # -- from line to line ----------------------------------------------------------------------------------------------------

    def _keep(self, data: bytes) -> None:
        self._buffer = self._buffer[self._at :] + data if self._at < len(self._buffer) else data
        self._at = 0

    def _next_line(self) -> bytes | None:
        """The next line without its CRLF; None where it is awaited, or where the session was ended for it."""
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at)
        # lines without end
        if (len(buffer) if end < 0 else end + 1) - at > self._limits.command_line:
            self._leave(self._words.long_line)
            return None
        if end < 0:
            self._buffer, self._at = buffer[at:], 0
            self._wait()
            return None
        # RFC 5321 §2.3.8, RFC 1939 §3: only CRLF ends a line. Behind a bare LF nobody knows where the next command begins.
        if end == at or buffer[end - 1] != 13:
            self._leave(self._words.bare_lf)
            return None
        self._at = end + 1
        return buffer[at : end - 1]

    # -- how things are said --------------------------------------------------------------------------------------------------

    def _take(self) -> list[Request]:
        requests, self._requests = self._requests, []
        return requests

    def _refuse(self, reply: R) -> None:
        """A refusal that counts: guessing, scanning, and clients of other protocols end soon."""
        self._bad += 1
        self._say(reply)
        if self._bad >= self._limits.bad_commands:
            if self._words.too_many_errors is not None:
                self._say(self._words.too_many_errors)
            self._close()

    def _ask(self, question: object, answered: Callable[[Any], None]) -> None:
        self._answered = answered
        self._requests.append(Ask(question))

    def _leave(self, reply: R) -> None:
        self._say(reply)
        self._close()

    def _close(self, abort: bool = False) -> None:
        self.state = self._closed
        self._buffer, self._at = b"", 0
        self._requests.append(Close(abort))

    def _handshake(self) -> None:
        self.state = self._awaits_tls
        self._requests += [Deadline(self._limits.handshake_timeout), StartTls()]
