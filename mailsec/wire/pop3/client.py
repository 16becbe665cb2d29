"""A POP3 client without a socket (RFC 1939, RFC 2449, RFC 2595, RFC 5034, RFC 6856).

A queue of awaited responses says what the next line answers; `Phase` says where the session stands. The one invariant: nothing is believed
that was not asked for: a line that nobody awaits, octets behind the +OK to STLS, and what was offered before TLS count for nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from mailsec.errors import LimitExceeded, MailsecError, ProtocolError, Refused, RemoteProtocolError, Unavailable
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.requests import Ask, Close, Deadline, Send, StartTls
from mailsec.model.requests import Request as Wanted
from mailsec.model.session import TlsInfo
from mailsec.model.tls import TlsPeer
from mailsec.wire.pop3.questions import Ended, NextRequests, Request, Response
from mailsec.wire.pop3.replies import LineReader, read_response
from mailsec.wire.smtp.commands import encode_plain
from mailsec.wire.smtp.data import DataReceiver

__all__ = ["PopClient", "PopClientSettings"]

_CAPABILITY_OCTETS = 16 * 1024
_TEMPORARY = frozenset({"SYS/TEMP", "IN-USE", "LOGIN-DELAY"})


@dataclass(frozen=True, slots=True)
class PopClientSettings:
    """One mailbox at one server. Time-outs in seconds."""

    login: str
    password: bytes = field(repr=False)
    tls: str = "verified"
    """ "none" (the password goes in clear), "required" (any certificate) or "verified"."""
    server_name: str = ""
    """The name that the certificate must hold (`verified`), and SNI."""
    implicit_tls: bool = False
    peer: TlsPeer = field(default_factory=TlsPeer)
    """Who the server must be, and what it is shown."""
    utf8: bool = False
    """Say UTF8 (RFC 6856) where the server offers it."""
    quit_timeout: float = 30.0
    limits: Limits = field(default=DEFAULT_LIMITS)


class Phase(Enum):
    """Where a session stands, in words for "timeout while …"."""

    CONNECT = "connecting"
    GREETING = "waiting for the greeting"
    CAPA = "asking what the server can do"
    STLS = "asking for STLS"
    TLS = "shaking hands"
    LOGIN = "logging in"
    READY = "idle"
    RESPONSE = "waiting for a response"
    QUIT = "saying QUIT"
    CLOSED = "closed"


class PopClient:
    """The client's side of one connection: a `ProtocolCore`."""

    def __init__(self, settings: PopClientSettings) -> None:
        self.settings = settings
        self.phase = Phase.CONNECT
        self.capabilities: dict[str, str] = {}
        """What the server offers: keyword to parameters. Empty again after TLS has begun."""
        self.tls: TlsInfo | None = None
        self._limits = settings.limits
        self._reader = LineReader(settings.limits)
        self._awaited: deque[Callable[[Response], None]] = deque()
        self._requests: list[Wanted] = []
        self._receiver: DataReceiver | None = None
        self._sink: Any = None
        self._whole: Callable[[], None] | None = None
        self._fault: MailsecError | None = None
        self._loose = False
        self._challenged = b""
        """What is said when the server has sent its empty challenge."""
        self._todo: deque[Request] = deque()
        self._responses: list[Response] = []
        self._expected = 0
        self._ended: Ended | None = None

    # -- what the driver calls ------------------------------------------------------------------------------------------------

    def connection_made(self) -> list[Wanted]:
        if self.settings.implicit_tls:
            self._handshake()
        else:
            self._await_greeting()
        return self._take()

    def receive_data(self, data: bytes) -> list[Wanted]:
        if self.phase is Phase.CLOSED:
            return []
        if self.phase is Phase.TLS:
            # Octets in clear between the +OK and the handshake.
            self._fail(RemoteProtocolError("octets in clear after the response to STLS", stage="starttls"))
            return self._take()
        try:
            if self._receiver is not None:
                self._receive_lines(data)
            else:
                self._reader.feed(data)
            while self._receiver is None and self.phase not in (Phase.CLOSED, Phase.TLS):
                line = self._reader.next() if self._reader.pending else None
                if line is None:
                    break
                if not self._awaited:
                    raise RemoteProtocolError("the server speaks unasked", stage="pop3")
                if self._challenged and line.rstrip() == b"+":
                    self._respond()
                    continue
                self._awaited.popleft()(read_response(line))
        except ProtocolError as error:
            self._fail(error)
        if self._awaited or self._receiver is not None:
            self._requests.append(Deadline(self._limits.upstream_timeout))
        return self._take()

    def answer(self, value: Any) -> list[Wanted]:
        if self.phase is Phase.READY:
            if isinstance(value, Sequence) and value and all(isinstance(one, Request) for one in value):
                self._begin(value)
            else:
                # a "no" of the layer above: it has nothing more to ask
                self._quit(told=False)
        return self._take()

    def streamed(self) -> list[Wanted]:
        return []

    def tls_started(self, info: TlsInfo) -> list[Wanted]:
        if self.phase is Phase.TLS:
            # RFC 2595 §4: what the server said before the handshake is discarded.
            self.capabilities = {}
            self._reader = LineReader(self._limits)
            self.tls = info
            if self.settings.implicit_tls:
                self._await_greeting()
            else:
                self._ask_capabilities()
        return self._take()

    def deadline_passed(self) -> list[Wanted]:
        if self.phase not in (Phase.CLOSED, Phase.READY):
            self._fail(Unavailable(f"timeout while {self.phase.value}", stage="pop3"))
        return self._take()

    def connection_lost(self, reason: str) -> list[Wanted]:
        if self.phase is not Phase.CLOSED:
            stage = "tls" if self.phase is Phase.TLS else "pop3"
            self._ended = Ended(Unavailable(f"the connection ended while {self.phase.value}: {reason}", stage=stage))
        self.phase = Phase.CLOSED
        ended, self._ended = self._ended, None
        self._requests.clear()
        self._sink = None
        return [Ask(ended)] if ended is not None else []

    # -- small steps ----------------------------------------------------------------------------------------------------------

    def _take(self) -> list[Wanted]:
        requests, self._requests = self._requests, []
        return requests

    def _command(self, line: bytes, answered: Callable[[Response], None]) -> None:
        self._awaited.append(answered)
        self._requests.append(Send(line))
        self._requests.append(Deadline(self._limits.upstream_timeout))

    def _handshake(self) -> None:
        self.phase = Phase.TLS
        settings = self.settings
        self._requests.append(Deadline(self._limits.handshake_timeout))
        self._requests.append(StartTls(settings.server_name, "verified" if settings.tls == "verified" else "required", settings.peer))

    def _fail(self, error: MailsecError, *, response: Response | None = None, login_refused: bool = False) -> None:
        """Give up this session at once, without QUIT: nothing is deleted. `Ended` is asked when the connection is gone."""
        self._ended = Ended(error, response, login_refused)
        self.phase = Phase.CLOSED
        self._awaited.clear()
        self._receiver = None
        self._requests.append(Close(abort=True))

    def _refused(self, what: str, response: Response, *, login: bool = False) -> None:
        kind = Unavailable if response.code in _TEMPORARY or not login else Refused
        said = f"[{response.code}] {response.text}" if response.code else response.text
        self._fail(kind(f"the mailbox's server refuses {what}: {said}"[:300], stage="pop3"), response=response, login_refused=login)

    # -- to a session -----------------------------------------------------------------------------------------------------------

    def _await_greeting(self) -> None:
        self.phase = Phase.GREETING
        self._awaited.append(self._greeted)
        self._requests.append(Deadline(self._limits.upstream_timeout))

    def _greeted(self, response: Response) -> None:
        if response.ok:
            self._ask_capabilities()
        else:
            self._refused("the connection", response)

    def _ask_capabilities(self) -> None:
        self.phase = Phase.CAPA
        self._command(b"CAPA\r\n", self._capa_answered)

    def _capa_answered(self, response: Response) -> None:
        if not response.ok:
            # RFC 2449 §3: an old server, which has what RFC 1939 has.
            self._secure()
            return
        listed = _Lines()

        def whole() -> None:
            for line in bytes(listed.octets).decode("utf-8", "replace").split("\r\n"):
                keyword, _, parameters = line.partition(" ")
                if keyword:
                    self.capabilities[keyword.upper()] = parameters.upper()
            if self._fault is not None:
                raise RemoteProtocolError("capabilities without end", stage="pop3")
            self._secure()

        self._begin_lines(listed, _CAPABILITY_OCTETS, whole)

    def _secure(self) -> None:
        if self.settings.tls == "none" or self.tls is not None:
            self._enable_utf8()
        elif "STLS" in self.capabilities:
            if self._reader.pending:
                raise RemoteProtocolError("the server speaks unasked", stage="starttls")
            self.phase = Phase.STLS
            self._command(b"STLS\r\n", self._stls_answered)
        else:
            # Somebody on the way may have removed the offer: no TLS, no password.
            hint = "use pop3s://, or a server that offers STLS"
            self._fail(Unavailable("the mailbox's server offers no STLS", hint=hint, stage="starttls"))

    def _stls_answered(self, response: Response) -> None:
        if not response.ok:
            self._fail(Unavailable(f"the mailbox's server refuses STLS: {response.text}"[:300], stage="starttls"), response=response)
        elif self._reader.pending:
            # RFC 2595 §4: the next octets belong to the handshake. Lines in clear that wait here were put there to be read under TLS.
            raise RemoteProtocolError("octets in clear behind the response to STLS", stage="starttls")
        else:
            self._handshake()

    def _enable_utf8(self) -> None:
        self.phase = Phase.LOGIN
        if self.settings.utf8 and "UTF8" in self.capabilities:
            self._command(b"UTF8\r\n", lambda _: self._log_in())
        else:
            self._log_in()

    def _log_in(self) -> None:
        login, password = self.settings.login, self.settings.password
        if "PLAIN" in self.capabilities.get("SASL", "").split():
            # RFC 5034 §4: the initial response stands in the command, where it fits into 255 octets.
            response = encode_plain(login, password)
            if len(response) <= 240:
                self._command(b"AUTH PLAIN " + response + b"\r\n", self._logged_in)
            else:
                self._challenged = response
                self._command(b"AUTH PLAIN\r\n", self._logged_in)
            return
        if any(octet in password or octet in login.encode() for octet in (b"\r", b"\n", b"\0")):
            self._refused("the login", Response(False, "login or password cannot be said in POP3", "AUTH"), login=True)
            return
        self._command(b"USER " + login.encode() + b"\r\n", self._user_answered)

    def _respond(self) -> None:
        response, self._challenged = self._challenged, b""
        self._requests.append(Send(response + b"\r\n"))

    def _user_answered(self, response: Response) -> None:
        if response.ok:
            self._command(b"PASS " + self.settings.password + b"\r\n", self._logged_in)
        else:
            self._refused("the login", response, login=True)

    def _logged_in(self, response: Response) -> None:
        if response.ok:
            self._ready()
        else:
            self._refused("the login", response, login=True)

    # -- requests ---------------------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        """Ask what is wanted next, with what came of the requests before."""
        if self._reader.pending:
            raise RemoteProtocolError("the server speaks unasked", stage="pop3")
        self.phase = Phase.READY
        responses, self._responses = tuple(self._responses), []
        self._requests.append(Deadline(None))
        self._requests.append(Ask(NextRequests(responses, self.tls)))

    def _begin(self, wanted: Sequence[Request]) -> None:
        if wanted[0].verb == "QUIT":
            self._quit(told=True)
            return
        self.phase = Phase.RESPONSE
        self._expected = len(wanted)
        if "PIPELINING" in self.capabilities:
            # RFC 2449 §6.6: a server that says so answers in order.
            for request in wanted:
                self._awaited.append(self._answer_to(request))
            self._requests.append(Send(b"".join(map(_line_of, wanted))))
            self._requests.append(Deadline(self._limits.upstream_timeout))
        else:
            self._todo.extend(wanted)
            self._next_request()

    def _next_request(self) -> None:
        request = self._todo.popleft()
        self._command(_line_of(request), self._answer_to(request))

    def _answer_to(self, request: Request) -> Callable[[Response], None]:
        def answered(response: Response) -> None:
            if not (response.ok and request.is_multiline):
                self._done(response)
                return

            def whole() -> None:
                fault = self._fault
                said = replace(response, loose=True) if self._loose else response
                self._done(said if fault is None else Response(False, fault.message, error=fault))

            self._begin_lines(request.into if request.into is not None else _Lines(), request.limit or self._limits.listing_octets, whole)

        return answered

    def _done(self, response: Response) -> None:
        self._responses.append(response)
        if len(self._responses) == self._expected:
            self._ready()
        elif self._todo:
            self._next_request()

    def _quit(self, *, told: bool) -> None:
        self.phase = Phase.QUIT
        self._command(b"QUIT\r\n", self._goodbye)
        self._requests[-1] = Deadline(self.settings.quit_timeout)

    def _goodbye(self, response: Response) -> None:
        self._ended = Ended(None, response)
        self.phase = Phase.CLOSED
        self._requests.append(Close())

    # -- lines behind a response --------------------------------------------------------------------------------------------------

    def _begin_lines(self, sink: Any, limit: int, whole: Callable[[], None]) -> None:
        self._receiver = DataReceiver(limit, verbatim=True)
        self._sink, self._whole, self._fault = sink, whole, None
        self._loose = False
        rest = self._reader.rest()
        if rest:
            self._receive_lines(rest)

    def _receive_lines(self, data: bytes) -> None:
        receiver = self._receiver
        assert receiver is not None and self._whole is not None
        piece, behind = receiver.receive(data)
        if piece and self._fault is None:
            try:
                self._sink.append(piece)
            except MailsecError as error:
                self._fault = error
        if receiver.oversize and self._fault is None:
            self._fault = LimitExceeded("message_size", f"longer than {receiver.max_size} octets", stage="pop3")
        if behind < 0:
            if receiver.hopeless:
                raise RemoteProtocolError("lines without end behind a response", stage="pop3")
            return
        self._loose = bool(receiver.fault)
        self._receiver, self._sink = None, None
        if behind < len(data):
            self._reader.feed(data[behind:])
        whole, self._whole = self._whole, None
        whole()


class _Lines:
    """A sink in memory, for short lists."""

    def __init__(self) -> None:
        self.octets = bytearray()

    def append(self, chunk: bytes | memoryview) -> None:
        self.octets += chunk


def _line_of(request: Request) -> bytes:
    line = request.verb
    if request.number:
        line += f" {request.number}"
    if request.verb == "TOP":
        line += f" {request.lines}"
    return f"{line}\r\n".encode("ascii")
