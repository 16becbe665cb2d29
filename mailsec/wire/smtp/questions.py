"""What the SMTP cores ask the layer above, and what it answers: frozen values.

A server asks `Connected`, `FindVerifier` and `Authenticate` once a session, `MailFrom`, one `RcptTo` for each recipient and `MessageComplete` for a
message (or `MessageAbandoned` where the core itself refuses it after octets were passed on). Its answers are `None` ("welcome", the
usual reply is sent) or a `Reply`, which is sent as it stands; `MessageComplete` wants a `Reply`; `Authenticate` wants an `Identity`,
`FindVerifier` a `Verifying`.

A client asks `NextMessage`, is answered with an `OutgoingMessage` or `Quit`, and asks again with what became of it. When the session has
ended, by whatever cause, it asks `Ended` once; the answer is ignored.

A `Reply` is a valid answer to every question, and means "no": the driver gives it where the layer above raised an error.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mailsec.errors import MailsecError, Reply
from mailsec.interfaces import Credentials, ScramVerifier
from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.model.session import Envelope, Identity, Recipient, TlsInfo

__all__ = [
    "Announced",
    "Authenticate",
    "ClientState",
    "Connected",
    "DeliveryResult",
    "Ended",
    "FindVerifier",
    "Forwarded",
    "MailFrom",
    "MessageAbandoned",
    "MessageComplete",
    "NextMessage",
    "OutgoingMessage",
    "Quit",
    "RcptTo",
    "Verifying",
]


# -- asked by the server --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientState:
    """What is known of the client at this moment. The same object until something changes, so `is` tells whether it did."""

    helo: str = ""
    protocol: str = "SMTP"
    """The `with` word of the Received field (RFC 3848): SMTP, ESMTP, ESMTPS, ESMTPA, ESMTPSA, and UTF8SMTP… (RFC 6531 §4.3) are the caller's."""
    tls: TlsInfo | None = None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    """A client has connected, and waits for the greeting. A Reply: sent instead of it, and the connection is closed."""

    tls: TlsInfo | None = None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """AUTH: who is this? Answer: an `Identity`; None (535, wrong login or secret); a Reply where it cannot be said (454 4.7.0)."""

    credentials: Credentials
    client: ClientState
    proven: Identity | None = None
    """SCRAM: who the client has proven to be; None where the proof was wrong. The credentials hold no secret then."""


@dataclass(frozen=True, slots=True)
class FindVerifier:
    """AUTH SCRAM-SHA-256: what is `login` checked against? Answer: `Verifying`, also where it is nobody's; a Reply where it cannot be said."""

    login: str
    client: ClientState


@dataclass(frozen=True, slots=True)
class Verifying:
    """The answer to `FindVerifier`."""

    verifier: ScramVerifier
    nonce: str = field(repr=False)
    """Random characters (RFC 5802 §5.1: printable, no comma)."""


@dataclass(frozen=True, slots=True)
class Announced:
    """XCLIENT, from who may say so: the client is somebody else. Answer: None (believed), an `Identity` (and logged in as that), or a Reply."""

    address: str
    """ "" where the server in front does not know it."""
    port: int
    helo: str
    login: str
    """ "" where nobody logged in there, or where LOGIN is not taken here."""
    certified: bool = False
    """The server in front has shown a certificate that was accepted: it speaks for itself, and not for its client."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """XFORWARD, from who may say so: who spoke to the server in front. For logs only; there is no answer."""

    address: str | None
    """None where this command says nothing of it: servers send several, each with some attributes."""


@dataclass(frozen=True, slots=True)
class MailFrom:
    """MAIL FROM: may a message with this reverse path begin? `envelope` has no recipients yet."""

    envelope: Envelope
    client: ClientState

    @property
    def reverse_path(self) -> Address | None:
        return self.envelope.reverse_path


@dataclass(frozen=True, slots=True)
class RcptTo:
    """RCPT TO: may the message go to this recipient?"""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class MessageComplete:
    """The message was received whole (all `Body` and `EndOfBody` came before this). The answer is the reply to it."""

    envelope: Envelope
    client: ClientState
    each: bool = False
    """True where a tuple is wanted, with a reply for each recipient (LMTP, RFC 2033 §4.2); one reply is then for all of them."""


@dataclass(frozen=True, slots=True)
class MessageAbandoned:
    """The core refuses the message that it was receiving; let go of what its `Body` pieces left. `reply` is what the client is told."""

    reply: Reply


# -- asked by the client --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """One message for one next hop."""

    reverse_path: Address | None
    recipients: tuple[Recipient, ...]
    segments: Segments
    """The message with CRLF line ends; transparency (RFC 5321 §4.5.2) is the client's."""
    eight_bit: bool = False
    """True where it holds octets over 127: BODY=8BITMIME is then needed. mailsec never converts."""
    smtputf8: bool = False
    """True where an address or the header needs SMTPUTF8 (RFC 6531)."""
    ret: str = ""
    """RET as the sender gave it (RFC 3461 §4.3): "FULL", "HDRS" or ""; with `envid` and the recipients' NOTIFY and ORCPT it is passed on."""
    envid: str = ""
    quiet: bool = False
    """True where its sender may learn nothing of what becomes of it: the next hop is asked for silence (RFC 3461 §4.1)."""
    only_asks: bool = False
    """Nothing is sent: each recipient gets the reply to its RCPT, and the transaction is given up."""
    tag: object = field(default=None, repr=False, compare=False)
    """Whatever the caller wants back with the result."""


@dataclass(frozen=True, slots=True)
class Quit:
    """No more messages: say goodbye."""


@dataclass(frozen=True, slots=True)
class DeliveryResult:
    """What became of one message. `replies` stands beside `message.recipients`."""

    message: OutgoingMessage
    replies: tuple[Reply, ...]
    """The reply that decided for each recipient: positive (delivered; where the message `only_asks`: welcome), temporary or permanent."""
    local: bool = False
    """True where a reply's words are ours, not the next hop's: it went away, or could not carry this message."""
    dsn: bool = False
    """True where the next hop offered DSN: what the sender asked to be told is its to tell from now on (RFC 3461 §5.2.1)."""
    handed_over: bool = False
    """True where the next hop may have taken it without our knowing (it went away after the end of data): sent again, it may arrive twice."""


@dataclass(frozen=True, slots=True)
class NextMessage:
    """The session is ready. `result` is what became of the message before, if there was one."""

    result: DeliveryResult | None
    tls: TlsInfo | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over. `result`: what became of the message in flight, if one was. `error` is None after a `Quit` of ours."""

    result: DeliveryResult | None
    error: MailsecError | None = None
    tls_failed: bool = False
    """True where STARTTLS was begun and no TLS session came of it: with `opportunistic` the caller may connect again without TLS."""
    reply: Reply | None = None
    """What the next hop said, where its words ended the session."""
    unanswered: bool = False
    """True where commands of one write (PIPELINING) were not answered in time: a next hop that drops all but the first looks like that."""
