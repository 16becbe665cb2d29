"""An SMTP and LMTP client without a socket (RFC 5321, RFC 1870, RFC 2033, RFC 2920, RFC 3030, RFC 3207, RFC 4954, RFC 6152).

A queue of awaited replies says what the next reply answers; `Phase` says where the session stands. The one invariant: nothing is believed that
was not asked for: a reply that nobody awaits, octets behind the 220 to STARTTLS, and what was offered before TLS count for nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mailsec.errors import LocalProtocolError, MailsecError, ProtocolError, Refused, RemoteProtocolError, Reply, Unavailable
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import Segments
from mailsec.model.requests import Ask, Close, Deadline, Request, Send, StartTls, Stream
from mailsec.model.session import TlsInfo
from mailsec.model.tls import TlsPeer
from mailsec.wire.smtp.commands import encode_plain
from mailsec.wire.smtp.data import stuffed, stuffed_whole, unstuffed, unstuffed_whole
from mailsec.wire.smtp.delivery import Delivery, check_capabilities
from mailsec.wire.smtp.questions import Ended, NextMessage, OutgoingMessage
from mailsec.wire.smtp.replies import ReplyReader

__all__ = ["ClientSettings", "SmtpClient"]

_VERIFY = {"opportunistic": "none", "required": "required", "verified": "verified"}
_SMALL = 64 * 1024
"""Octets of a message up to which it is written in one piece."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One next hop. Time-outs in seconds, as RFC 5321 §4.5.3.2 gives them."""

    hostname: str
    """How we call ourselves."""
    tls: str = "opportunistic"
    """ "none", "opportunistic", "required" (any certificate) or "verified"."""
    server_name: str = ""
    """The name that the certificate must hold (`verified`), and SNI."""
    peer: TlsPeer = field(default_factory=TlsPeer)
    implicit_tls: bool = False
    lmtp: bool = False
    username: str = ""
    password: bytes = field(default=b"", repr=False)
    chunking: bool = True
    """BDAT where it is offered (RFC 3030)."""
    pipelining: bool = True
    """Several commands in one write where that is offered (RFC 2920)."""
    greeting_timeout: float = 300.0
    command_timeout: float = 300.0
    body_timeout: float = 180.0
    """Without progress of a large message."""
    final_timeout: float = 600.0
    quit_timeout: float = 10.0
    limits: Limits = field(default=DEFAULT_LIMITS)


class Phase(Enum):
    """Where a session stands, in words for "timeout while …"."""

    CONNECT = "connecting"
    GREETING = "waiting for the greeting"
    HELLO = "saying EHLO"
    STARTTLS = "asking for STARTTLS"
    TLS = "shaking hands"
    AUTH = "logging in"
    READY = "idle"
    ENVELOPE = "sending the envelope"
    BODY = "sending the message"
    RESULT = "waiting for the reply to the message"
    QUIT = "saying QUIT"
    CLOSED = "closed"


class SmtpClient:
    """The client's side of one connection: a `ProtocolCore`."""

    def __init__(self, settings: ClientSettings) -> None:
        self.settings = settings
        self.phase = Phase.CONNECT
        self.capabilities: dict[str, str] = {}
        """What the next hop offers: keyword to parameters. Empty again after TLS has begun."""
        self.tls: TlsInfo | None = None
        self._reader = ReplyReader(settings.limits)
        self._awaited: deque[Callable[[Reply], None]] = deque()
        self._lines: tuple[str, ...] = ()
        self._requests: list[Request] = []
        self._delivery: Delivery | None = None
        self._wire: bytes | None = None
        self._dirty = False
        """True where a transaction is open at the next hop that must be given up first."""
        self._todo: deque[tuple[bytes, Callable[[Reply], None]]] = deque()
        self._ended: Ended | None = None

    # -- what the driver calls ------------------------------------------------------------------------------------------------

    def connection_made(self) -> list[Request]:
        if self.settings.implicit_tls:
            self._handshake()
        else:
            self._await_greeting()
        return self._take()

    def receive_data(self, data: bytes) -> list[Request]:
        if self.phase is Phase.CLOSED:
            return []
        if self.phase is Phase.TLS:
            # Octets in clear between the 220 and the handshake.
            self._fail(RemoteProtocolError("octets in clear after the reply to STARTTLS", stage="starttls"), abort=True)
            return self._take()
        self._reader.feed(data)
        before = len(self._awaited)
        try:
            while self.phase not in (Phase.CLOSED, Phase.TLS, Phase.READY):
                found = self._reader.next()
                if found is None:
                    break
                reply, self._lines = found
                if self._awaited:
                    self._awaited.popleft()(reply)
                else:
                    self._unasked(reply)
        except ProtocolError as error:
            self._fail(error, abort=True)
        if self._awaited and len(self._awaited) != before and self.phase is Phase.ENVELOPE:
            self._requests.append(Deadline(self.settings.command_timeout))
        return self._take()

    def answer(self, value: Any) -> list[Request]:
        if self.phase is Phase.READY:
            if isinstance(value, OutgoingMessage):
                self._send_message(value)
            else:
                self._quit()
        return self._take()

    def streamed(self) -> list[Request]:
        if self.phase is Phase.BODY:
            self._await_result()
        return self._take()

    def tls_started(self, info: TlsInfo) -> list[Request]:
        if self.phase is Phase.TLS:
            # RFC 3207 §4.2: what the next hop said before the handshake is discarded.
            self.capabilities = {}
            self._reader = ReplyReader(self.settings.limits)
            self.tls = info
            if self.settings.implicit_tls:
                self._await_greeting()
            else:
                self._hello()
        return self._take()

    def deadline_passed(self) -> list[Request]:
        if self.phase is Phase.QUIT:
            self._goodbye()
        elif self.phase not in (Phase.CLOSED, Phase.READY):
            unanswered = self.phase is Phase.ENVELOPE and self._pipelines
            self._fail(Unavailable(f"timeout while {self.phase.value}", stage="smtp"), abort=True, unanswered=unanswered)
        return self._take()

    def connection_lost(self, reason: str) -> list[Request]:
        if self.phase is not Phase.CLOSED:
            failed = self.phase is Phase.TLS
            error = None
            if self.phase is not Phase.QUIT:
                error = Unavailable(f"the connection ended while {self.phase.value}: {reason}", stage="tls" if failed else "smtp")
            self._end(error, tls_failed=failed)
        self.phase = Phase.CLOSED
        ended, self._ended = self._ended, None
        self._requests.clear()
        return [Ask(ended)] if ended is not None else []

    # -- small steps ----------------------------------------------------------------------------------------------------------

    def _take(self) -> list[Request]:
        requests, self._requests = self._requests, []
        return requests

    def _command(self, line: bytes, answered: Callable[[Reply], None], timeout: float) -> None:
        self._awaited.append(answered)
        self._requests.append(Send(line))
        self._requests.append(Deadline(timeout))

    def _handshake(self) -> None:
        self.phase = Phase.TLS
        settings = self.settings
        self._requests.append(Deadline(settings.limits.handshake_timeout))
        self._requests.append(StartTls(settings.server_name, _VERIFY.get(settings.tls, "none"), settings.peer))

    @property
    def _pipelines(self) -> bool:
        return self.settings.pipelining and "PIPELINING" in self.capabilities

    def _end(self, error: MailsecError | None, *, reply: Reply | None = None, tls_failed: bool = False, unanswered: bool = False) -> None:
        """Remember what is to be said when the connection is gone."""
        delivery, self._delivery = self._delivery, None
        self._wire = None
        result = delivery.interrupted(error) if delivery is not None else None
        self._ended = Ended(result, error, tls_failed, reply, unanswered)

    def _fail(self, error: MailsecError, *, abort: bool = False, reply: Reply | None = None, unanswered: bool = False) -> None:
        """Give up this session; `Ended` is asked when the connection is gone."""
        self._end(error, reply=reply, tls_failed=self.phase is Phase.TLS, unanswered=unanswered)
        self.phase = Phase.CLOSED
        self._awaited.clear()
        self._todo.clear()
        if not abort:
            self._requests.append(Send(b"QUIT\r\n"))
        self._requests.append(Close(abort))

    def _refused(self, what: str, reply: Reply) -> None:
        """The next hop refuses the session."""
        kind = Unavailable if reply.code < 500 else Refused
        self._fail(kind(f"next hop refuses {what}: {reply.code} {reply.enhanced} {reply.text}".rstrip(), stage="smtp"), reply=reply)

    def _unasked(self, reply: Reply) -> None:
        # RFC 5321 §3.8: 421 may come at any time. Anything else that was not asked for is a reply to something that somebody else said.
        if reply.code == 421:
            self._fail(Unavailable(f"next hop closes: 421 {reply.text}", stage="smtp"), abort=True, reply=reply)
        elif self.phase is Phase.BODY and not reply.positive:
            # The next hop has enough before the end of the message. It is not told an end that it would take for one.
            if self._delivery is not None:
                self._delivery.decide(reply)
            self._fail(Unavailable(f"next hop refuses in mid-message: {reply.code} {reply.text}", stage="data"), abort=True, reply=reply)
        else:
            raise RemoteProtocolError(f"next hop says {reply.code} unasked", stage="smtp")

    # -- to a session -----------------------------------------------------------------------------------------------------------

    def _await_greeting(self) -> None:
        self.phase = Phase.GREETING
        self._awaited.append(self._greeted)
        self._requests.append(Deadline(self.settings.greeting_timeout))

    def _greeted(self, reply: Reply) -> None:
        if reply.code == 220:
            self._hello()
        elif reply.positive:
            raise RemoteProtocolError(f"greeting with {reply.code}")
        else:
            self._refused("the connection", reply)

    def _hello(self) -> None:
        self.phase = Phase.HELLO
        # RFC 2033 §4.1: LMTP says LHLO.
        verb = "LHLO" if self.settings.lmtp else "EHLO"
        self._command(f"{verb} {self.settings.hostname}\r\n".encode("ascii"), self._hello_answered, self.settings.command_timeout)

    def _hello_answered(self, reply: Reply) -> None:
        if reply.code == 250:
            for line in self._lines[1:]:
                keyword, _, parameters = line.partition(" ")
                self.capabilities[keyword.upper()] = parameters.upper()
            self._secure()
        elif reply.positive:
            raise RemoteProtocolError(f"reply to EHLO with {reply.code}")
        elif reply.code >= 500 and not self.settings.lmtp and not self._needs_extensions():
            # RFC 5321 §3.2: a server that does not know EHLO is asked with HELO.
            self._command(f"HELO {self.settings.hostname}\r\n".encode("ascii"), self._helo_answered, self.settings.command_timeout)
        else:
            self._refused("EHLO", reply)

    def _needs_extensions(self) -> bool:
        return self.tls is not None or self.settings.tls in ("required", "verified") or bool(self.settings.username)

    def _helo_answered(self, reply: Reply) -> None:
        if reply.code == 250:
            self._ready()
        else:
            self._refused("HELO", reply)

    def _secure(self) -> None:
        wanted = self.settings.tls
        if wanted == "none" or self.tls is not None:
            self._log_in()
        elif "STARTTLS" in self.capabilities:
            self.phase = Phase.STARTTLS
            self._command(b"STARTTLS\r\n", self._starttls_answered, self.settings.command_timeout)
        elif wanted == "opportunistic":
            self._log_in()
        else:
            # Somebody on the way may have removed the offer: no TLS, no mail.
            self._fail(
                Unavailable("next hop offers no STARTTLS", hint="or set the tls of this next hop to opportunistic", stage="starttls")
            )

    def _starttls_answered(self, reply: Reply) -> None:
        if reply.code == 220:
            # RFC 3207 §4: the next octets belong to the handshake. Replies in clear that wait here were put there to be read under TLS.
            if self._reader.pending:
                raise RemoteProtocolError("octets in clear behind the reply to STARTTLS", stage="starttls")
            self._handshake()
        elif reply.positive:
            raise RemoteProtocolError(f"reply to STARTTLS with {reply.code}", stage="starttls")
        elif self.settings.tls == "opportunistic":
            self._log_in()
        else:
            self._fail(Unavailable(f"next hop refuses STARTTLS: {reply.code} {reply.text}", stage="starttls"), reply=reply)

    def _log_in(self) -> None:
        settings = self.settings
        if not settings.username:
            self._ready()
        elif self.tls is None:
            # RFC 4954 §4: a password never goes in clear.
            self._fail(Unavailable("no login without TLS", hint="set the tls of this next hop to verified", stage="auth"))
        elif "PLAIN" not in self.capabilities.get("AUTH", "").split():
            self._fail(Unavailable("next hop does not offer AUTH PLAIN", stage="auth"))
        else:
            self.phase = Phase.AUTH
            line = b"AUTH PLAIN " + encode_plain(settings.username, settings.password) + b"\r\n"
            self._command(line, self._logged_in, settings.command_timeout)

    def _logged_in(self, reply: Reply) -> None:
        if reply.code == 235:
            self._ready()
        else:
            # Wrong credentials are ours to put right: the mail waits for that.
            self._fail(Unavailable(f"next hop refuses our login: {reply.code} {reply.text}", stage="auth"), reply=reply)

    def _ready(self) -> None:
        """Ask for a message, with what became of the one before."""
        self.phase = Phase.READY
        delivery, self._delivery = self._delivery, None
        self._requests.append(Deadline(None))
        self._requests.append(Ask(NextMessage(delivery.result() if delivery is not None else None, self.tls)))

    # -- a message --------------------------------------------------------------------------------------------------------------

    def _send_message(self, message: OutgoingMessage) -> None:
        if self._reader.pending:
            self._delivery = Delivery(message, lmtp=self.settings.lmtp)
            self._fail(RemoteProtocolError("next hop spoke unasked", stage="smtp"), abort=True)
            return
        delivery = self._delivery = Delivery(message, lmtp=self.settings.lmtp)
        chunked = self.settings.chunking and "CHUNKING" in self.capabilities
        whole = unstuffed_whole if chunked else stuffed_whole
        try:
            refusal = check_capabilities(message, self.capabilities)
            # A small message is looked at before the envelope is sent: one that must not leave costs the next hop nothing.
            self._wire = whole(message.segments.join()) if refusal is None and len(message.segments) <= _SMALL else None
            commands = delivery.commands(self.capabilities) if refusal is None else []
        except LocalProtocolError as error:
            refusal = Reply(554, "5.6.0", error.message)
        if refusal is not None:
            delivery.refuse_here(refusal)
            self._ready()
            return
        self.phase = Phase.ENVELOPE
        if self._dirty:
            commands.insert(0, (b"RSET\r\n", self._reset_answered))
            self._dirty = False
        if message.only_asks:
            line, answered = commands.pop()
            commands.append((line, self._and_no_more(answered)))
        elif chunked:
            # RFC 3030 §4.2 lets a chunk follow at once; it waits for the last RCPT, so that nothing is sent for nobody.
            line, answered = commands.pop()
            commands.append((line, self._before_chunk(answered)))
        else:
            commands.append((b"DATA\r\n", self._data_answered))
        if self._pipelines:
            # RFC 2920 §3.1: RSET, MAIL, RCPT and DATA go in one write; DATA is the last.
            self._awaited.extend(answered for _, answered in commands)
            self._requests.append(Send(b"".join([line for line, _ in commands])))
            self._requests.append(Deadline(self.settings.command_timeout))
        else:
            self._todo.extend((line, self._one_by_one(answered)) for line, answered in commands)
            self._next_command()

    def _and_no_more(self, answered: Callable[[Reply], None]) -> Callable[[Reply], None]:
        def and_give_up(reply: Reply) -> None:
            answered(reply)
            self._give_up_transaction()

        return and_give_up

    def _before_chunk(self, answered: Callable[[Reply], None]) -> Callable[[Reply], None]:
        def and_send(reply: Reply) -> None:
            answered(reply)
            delivery = self._delivery
            assert delivery is not None
            if not delivery.accepted:
                self._give_up_transaction()
            elif self._reader.pending:
                raise RemoteProtocolError("next hop answers before it has the message", stage="data")
            else:
                # RFC 3030 §2: BDAT chunk-size LAST, and behind it the octets.
                self._requests.append(Send(b"BDAT %d LAST\r\n" % len(delivery.message.segments)))
                self._send_body(delivery, unstuffed)

        return and_send

    def _one_by_one(self, answered: Callable[[Reply], None]) -> Callable[[Reply], None]:
        def and_go_on(reply: Reply) -> None:
            answered(reply)
            if self.phase is Phase.ENVELOPE:
                self._next_command()

        return and_go_on

    def _next_command(self) -> None:
        delivery = self._delivery
        nobody = delivery is not None and not delivery.accepted and len(self._todo) == 1 and self._todo[0][0] == b"DATA\r\n"
        if delivery is not None and (delivery.mail_refused or nobody):
            self._todo.clear()
            self._give_up_transaction()
        elif self._todo:
            line, answered = self._todo.popleft()
            self._command(line, answered, self.settings.command_timeout)

    def _reset_answered(self, reply: Reply) -> None:
        if not reply.positive:
            self._refused("RSET", reply)

    def _give_up_transaction(self) -> None:
        self._dirty = True
        self._wire = None
        self._ready_or_closed()

    def _ready_or_closed(self) -> None:
        # RFC 5321 §3.8: after a 421 the next hop closes; so do we.
        delivery = self._delivery
        if delivery is not None and delivery.closing:
            self._fail(Unavailable("next hop closes: 421", stage="smtp"), abort=True)
        else:
            self._ready()

    def _data_answered(self, reply: Reply) -> None:
        delivery = self._delivery
        assert delivery is not None
        if reply.code == 354:
            if self._reader.pending:
                raise RemoteProtocolError("next hop answers before it has the message", stage="data")
            if delivery.accepted:
                self._send_body(delivery, stuffed)
            elif self.settings.lmtp:
                # RFC 2033 §4.2: DATA without recipients must fail; there would be no reply to wait for.
                raise RemoteProtocolError("next hop takes a message for nobody", stage="data")
            else:
                # RFC 2920 §3.1: all recipients were refused, and DATA was pipelined: an empty message, whose reply means nothing.
                self._awaited.append(lambda _: self._ready_or_closed())
                self._requests.append(Send(b".\r\n"))
                self._requests.append(Deadline(self.settings.final_timeout))
        elif reply.positive:
            raise RemoteProtocolError(f"reply to DATA with {reply.code}", stage="data")
        else:
            delivery.decide(reply)
            self._give_up_transaction()

    def _send_body(self, delivery: Delivery, pieces: Callable[[Segments], Iterator[bytes]]) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            self._requests.append(Send(wire))
            self._await_result()
        else:
            self.phase = Phase.BODY
            self._requests.append(Deadline(self.settings.body_timeout))
            self._requests.append(Stream(self._checked(delivery, pieces)))

    def _checked(self, delivery: Delivery, pieces: Callable[[Segments], Iterator[bytes]]) -> Iterator[bytes]:
        try:
            yield from pieces(delivery.message.segments)
        except LocalProtocolError as error:
            # The connection is reset by whoever writes this; the next hop never sees an end of data.
            delivery.refuse_here(Reply(554, "5.6.0", error.message))
            raise

    def _await_result(self) -> None:
        delivery = self._delivery
        assert delivery is not None
        self.phase = Phase.RESULT
        delivery.handed_over = True
        # RFC 2033 §4.2: LMTP answers for each recipient that it accepted, in their order.
        for _ in range(delivery.expected_results):
            self._awaited.append(self._result_answered)
        self._requests.append(Deadline(self.settings.final_timeout))

    def _result_answered(self, reply: Reply) -> None:
        delivery = self._delivery
        assert delivery is not None
        if 300 <= reply.code < 400:
            raise RemoteProtocolError(f"reply to a message with {reply.code}", stage="data")
        if delivery.result_answered(reply):
            self._ready_or_closed()

    def _quit(self) -> None:
        self.phase = Phase.QUIT
        self._command(b"QUIT\r\n", lambda _: self._goodbye(), self.settings.quit_timeout)

    def _goodbye(self) -> None:
        self._end(None)
        self.phase = Phase.CLOSED
        self._requests.append(Close())
