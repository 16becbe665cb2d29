"""What a POP3 server offers: one listener's settings, and the capabilities that they make (RFC 2449 §5, §6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["PopSettings", "capabilities"]


@dataclass(frozen=True, slots=True)
class PopSettings:
    """What one listener offers. Whoever logs in does so under TLS, whatever is set."""

    hostname: str
    tls: str = "starttls-required"
    """ "implicit", or any other word for STLS."""
    limits: Limits = field(default=DEFAULT_LIMITS)


def capabilities(settings: PopSettings, *, under_tls: bool, logged_in: bool = False) -> bytes:
    """The lines behind the response to CAPA."""
    lines = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING"]
    if not under_tls and settings.tls != "implicit":
        # RFC 2595 §4: only in the AUTHORIZATION state, and not under TLS.
        lines.append("STLS")
    if under_tls and not logged_in:
        # RFC 2595 §2.1, RFC 5034 §6: a password is not asked for in clear. RFC 6856 §3: UTF8 belongs before the login.
        lines += ["USER", "SASL PLAIN", "UTF8 USER"]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")
