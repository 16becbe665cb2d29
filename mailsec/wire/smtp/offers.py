"""What an SMTP server offers: one listener's settings, and the reply to EHLO that they make (RFC 5321 §4.1.1.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.session import TlsInfo
from mailsec.wire.scram import MECHANISM, PLUS

__all__ = ["XCLIENT", "XFORWARD", "ServerSettings", "ehlo_reply", "mechanisms_of"]

# Postfix's XCLIENT_README and XFORWARD_README
XCLIENT = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "DESTADDR", "DESTPORT")
"""And LOGIN, where a listener takes it."""
XFORWARD = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What one listener offers and demands."""

    hostname: str
    tls: str = "none"
    """ "none", "starttls" (offered), "starttls-required" or "implicit"."""
    authenticate: bool = False
    """AUTH is offered (under TLS), and no mail is taken without it."""
    mechanisms: tuple[str, ...] = ("PLAIN",)
    normalise: bool = False
    """Bare CR and LF in a message become CRLF instead of a refusal."""
    smtputf8: bool = False
    dsn: bool = False
    chunking: bool = False
    """BDAT (RFC 3030). BINARYMIME is never offered: the rules for lines are those of DATA."""
    xclient: bool = False
    """XCLIENT and XFORWARD, for who is trusted by `SmtpServer.trust_peer`, or by `xclient_certificates`."""
    xclient_certificates: bool = False
    """Who showed a certificate that was accepted may send them."""
    xclient_login: bool = False
    """The LOGIN of XCLIENT is believed."""
    lmtp: bool = False
    """LMTP (RFC 2033) instead of SMTP."""
    limits: Limits = field(default=DEFAULT_LIMITS)
    kept: dict[tuple[bool, bool, bool, bool], bytes] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Replies to EHLO that were made before."""

    @property
    def name(self) -> str:
        """What is spoken (RFC 3848): "ESMTP" or "LMTP"."""
        return "LMTP" if self.lmtp else "ESMTP"


def mechanisms_of(settings: ServerSettings, tls: TlsInfo | None) -> tuple[str, ...]:
    """The SASL mechanisms that this client may use: EXTERNAL (RFC 4422 §A) where its certificate says who it is, and
    SCRAM bound to the TLS session where that can be (RFC 9266)."""
    offered = settings.mechanisms
    if tls is not None and tls.exporter and MECHANISM in offered:
        offered = (PLUS, *offered)
    if tls is None or tls.peer_identity is None or "EXTERNAL" in offered:
        return offered
    return (*offered, "EXTERNAL")


def ehlo_reply(settings: ServerSettings, tls: TlsInfo | None, *, in_front: bool = False) -> bytes:
    """The whole reply to EHLO. `in_front`: it is a server that may speak for its clients."""
    under_tls = tls is not None
    key = (under_tls, tls is not None and tls.peer_identity is not None, in_front, tls is not None and bool(tls.exporter))
    known = settings.kept.get(key)
    if known is not None:
        return known
    # RFC 1870 §4: the largest message, in octets.
    lines = [settings.hostname, "PIPELINING", f"SIZE {settings.limits.message_size}"]
    # RFC 3207 §4.2: STARTTLS is not offered under TLS.
    if not under_tls and settings.tls in ("starttls", "starttls-required"):
        lines.append("STARTTLS")
    # RFC 4954 §4: PLAIN is not offered before TLS.
    if under_tls and settings.authenticate and (mechanisms := mechanisms_of(settings, tls)):
        lines.append("AUTH " + " ".join(mechanisms))
    lines += ["8BITMIME", "ENHANCEDSTATUSCODES"]
    if in_front:
        lines.append("XCLIENT " + " ".join((*XCLIENT, "LOGIN") if settings.xclient_login else XCLIENT))
        lines.append("XFORWARD " + " ".join(XFORWARD))
    if settings.smtputf8:
        lines.append("SMTPUTF8")
    if settings.chunking:
        lines.append("CHUNKING")
    if settings.dsn:
        lines.append("DSN")
    text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
    reply = settings.kept[key] = text.encode("ascii", "replace")
    return reply
