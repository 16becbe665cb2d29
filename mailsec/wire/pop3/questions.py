"""What the POP3 cores ask the layer above, and what it answers: frozen values.

A server asks `Connected` and `Login` once a session, and a `Request` for each command on the maildrop. `Connected` is answered with `None`
("welcome") or a `Reply`; the others with a `Response`.

A client asks `NextRequests` when it has logged in, is answered with the requests to make, and asks again with their responses. When the
session has ended, by whatever cause, it asks `Ended` once; the answer is ignored.

A `Reply` (`mailsec.errors`) is a valid answer to every question, and means "no": the driver gives it where the layer above raised an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from mailsec.errors import MailsecError
from mailsec.interfaces import Credentials
from mailsec.model.octets import Segments
from mailsec.model.session import TlsInfo

__all__ = ["Connected", "Ended", "Login", "NextRequests", "Request", "Response", "Sink"]


class Sink(Protocol):
    """What takes the lines behind a response: an `interfaces.Scratch`, or anything that can do as much."""

    def append(self, chunk: bytes | memoryview) -> None:
        """Take a piece; raise MailsecError where it cannot be kept. The rest is then read and thrown away."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One command on the maildrop (RFC 1939 §5, §7)."""

    verb: str
    """STAT, LIST, UIDL, RETR, TOP, DELE, NOOP, RSET or QUIT."""
    number: int = 0
    """The message; 0 where LIST and UIDL ask for all."""
    lines: int = 0
    """TOP: lines of the body."""
    into: Sink | None = field(default=None, repr=False, compare=False)
    """Client only: where the lines behind the response go, transparency undone."""
    limit: int = 0
    """Client only: octets of them that are taken; more is an error of this request."""

    @property
    def is_multiline(self) -> bool:
        """True where lines follow a positive response (RFC 1939 §3)."""
        return self.verb in ("RETR", "TOP") or (self.verb in ("LIST", "UIDL") and not self.number)


@dataclass(frozen=True, slots=True)
class Response:
    """One status indicator, and what follows it."""

    ok: bool
    text: str = ""
    code: str = ""
    """The response code without brackets (RFC 2449 §8): "IN-USE", "SYS/TEMP" …"""
    body: Segments | None = None
    """Server only: the lines that follow, with CRLF; transparency is the core's."""
    closing: bool = False
    """Server only: the connection is closed behind this response."""
    loose: bool = False
    """Client only: the lines held a bare CR, a bare LF or a NUL, and were passed on as they came."""
    error: MailsecError | None = field(default=None, compare=False)
    """Client only: why we ourselves made a "no" of this (over the limit, a sink that is full)."""


# -- asked by the server --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """A client has connected, and waits for the greeting. A Reply: sent instead of it, and the connection is closed."""

    tls: TlsInfo | None = None


@dataclass(frozen=True, slots=True)
class Login:
    """USER and PASS, or AUTH: may this person read? A `Response`; None where login or password are wrong."""

    credentials: Credentials
    tls: TlsInfo | None
    utf8: bool = False
    """True where the client has said UTF8 (RFC 6856 §2)."""


# -- asked by the client --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NextRequests:
    """We are logged in. `responses` answer the requests before, in their order. The answer is the next requests: one or more."""

    responses: tuple[Response, ...]
    tls: TlsInfo | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over. `error` is None after a QUIT of ours; then `response` is what the server said to it."""

    error: MailsecError | None = None
    response: Response | None = None
    """What the server said, where its words ended the session: a refused login with its response code."""
    login_refused: bool = False
    """True where it was the login that the server refused."""
