"""What an SMTP server offers: one listener's settings, and the reply to EHLO that they make (RFC 5321 §4.1.1.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["ServerSettings", "ehlo_reply"]


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
    limits: Limits = field(default=DEFAULT_LIMITS)


def ehlo_reply(settings: ServerSettings, *, under_tls: bool) -> bytes:
    """The whole reply to EHLO."""
    # RFC 1870 §4: the largest message, in octets.
    lines = [settings.hostname, "PIPELINING", f"SIZE {settings.limits.message_size}"]
    # RFC 3207 §4.2: STARTTLS is not offered under TLS.
    if not under_tls and settings.tls in ("starttls", "starttls-required"):
        lines.append("STARTTLS")
    # RFC 4954 §4: PLAIN is not offered before TLS.
    if under_tls and settings.authenticate:
        lines.append("AUTH " + " ".join(settings.mechanisms))
    lines += ["8BITMIME", "ENHANCEDSTATUSCODES"]
    if settings.smtputf8:
        lines.append("SMTPUTF8")
    if settings.dsn:
        lines.append("DSN")
    text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
    return text.encode("ascii", "replace")
