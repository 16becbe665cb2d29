"""A client of Dovecot's auth socket without a socket: one login by PLAIN (Dovecot's authentication protocol, version 1).

The one invariant: only an OK for the question that we asked, after the server's greeting was complete, is a yes; whatever cannot be read
is no answer.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable
from dataclasses import dataclass, field

from mailsec.errors import MailsecError, RemoteProtocolError, Unavailable
from mailsec.model.requests import Ask, Close, Deadline, Request, Send
from mailsec.model.session import TlsInfo

__all__ = ["Answered", "AuthClient", "Question"]

_LINE = 8192
_LINES = 200
_ID = "1"


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a login and a password fit."""

    login: str
    password: bytes = field(repr=False)
    remote: str = ""
    """The address of the client: Dovecot slows down who guesses."""
    service: str = "smtp"


@dataclass(frozen=True, slots=True)
class Answered:
    """What the core asks at the end; there is no answer to it. `user` is the name as Dovecot writes it, None where they do not fit."""

    user: str | None
    error: MailsecError | None = None
    """Where Dovecot could not say."""


class AuthClient:
    """A `ProtocolCore`: asks `Answered` once."""

    def __init__(self, question: Question, number: int, *, timeout: float = 30.0) -> None:
        """`number`: random; Dovecot refuses two clients with one number."""
        self._question = question
        self._number = number
        self._timeout = timeout
        self._buffer = b""
        self._lines = 0
        self._greeted = False
        self._plain = False
        self._done = False

    def connection_made(self) -> list[Request]:
        return [Deadline(self._timeout), Send(f"VERSION\t1\t1\nCPID\t{self._number}\n".encode("ascii"))]

    def receive_data(self, data: bytes) -> list[Request]:
        requests: list[Request] = []
        self._buffer += data
        while not self._done and (end := self._buffer.find(b"\n")) >= 0:
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            self._lines += 1
            requests += self._line(line.decode("utf-8", "replace").split("\t"))
        if not self._done and (len(self._buffer) > _LINE or self._lines > _LINES):
            requests += self._end(None, RemoteProtocolError("the auth socket says more than it should", stage="login"))
        return requests

    def answer(self, value: object) -> list[Request]:
        return [Close()]

    def streamed(self) -> list[Request]:
        return []

    def tls_started(self, info: TlsInfo) -> list[Request]:
        return []

    def deadline_passed(self) -> list[Request]:
        return self._end(None, Unavailable("the auth socket does not answer", stage="login"))

    def connection_lost(self, reason: str) -> list[Request]:
        return self._end(None, Unavailable(f"the auth socket was closed: {reason}", hint="is Dovecot running?", stage="login"))

    def _line(self, words: list[str]) -> list[Request]:
        handle: Callable[[list[str]], list[Request]] | None = {
            "VERSION": self._version, "MECH": self._mechanism, "DONE": self._ready, "OK": self._ok, "FAIL": self._failed,
        }.get(words[0])  # fmt: skip
        # SPID, CUID, COOKIE and what newer servers say besides is of no use here.
        return handle(words) if handle is not None else []

    def _version(self, words: list[str]) -> list[Request]:
        if words[1:2] != ["1"]:
            return self._end(None, RemoteProtocolError("the auth socket speaks another version", stage="login"))
        return []

    def _mechanism(self, words: list[str]) -> list[Request]:
        self._plain = self._plain or words[1:2] == ["PLAIN"]
        return []

    def _ready(self, words: list[str]) -> list[Request]:
        if self._greeted:
            return self._end(None, RemoteProtocolError("the auth socket greets twice", stage="login"))
        self._greeted = True
        if not self._plain:
            why = Unavailable("the auth socket offers no PLAIN", hint="add it to auth_mechanisms of Dovecot", stage="login")
            return self._end(None, why)
        question = self._question
        response = binascii.b2a_base64(b"\0" + question.login.encode() + b"\0" + question.password, newline=False).decode("ascii")
        remote = f"rip={question.remote}\t" if question.remote else ""
        # The response is the last parameter. All else is ours, or an address: no tab or line end stands in it.
        return [Send(f"AUTH\t{_ID}\tPLAIN\tservice={question.service}\tsecured\t{remote}resp={response}\n".encode("ascii"))]

    def _ok(self, words: list[str]) -> list[Request]:
        user = next((word[5:] for word in words[2:] if word.startswith("user=")), "")
        if not self._greeted or words[1:2] != [_ID] or not user:
            return self._end(None, RemoteProtocolError("the auth socket says OK to something else", stage="login"))
        return self._end(user)

    def _failed(self, words: list[str]) -> list[Request]:
        if not self._greeted or words[1:2] != [_ID]:
            return self._end(None, RemoteProtocolError("the auth socket answers something else", stage="login"))
        if "temp" in words[2:] or "code=temp_fail" in words[2:]:
            return self._end(None, Unavailable("Dovecot cannot check logins now", hint="its own log says why", stage="login"))
        return self._end(None)

    def _end(self, user: str | None, error: MailsecError | None = None) -> list[Request]:
        if self._done:
            return []
        self._done = True
        return [Ask(Answered(user, error))]
