"""Where an SMTP session stands, as its server sees it (RFC 5321 §4.1.4)."""

from __future__ import annotations

from enum import Enum

__all__ = ["State"]


class State(Enum):
    """Where a session stands."""

    NEW = "new"
    """No EHLO or HELO yet (or forgotten by STARTTLS)."""
    READY = "ready"
    MAIL = "mail"
    """MAIL was accepted."""
    RCPT = "rcpt"
    """At least one recipient was accepted."""
    DATA = "data"
    CHUNK = "chunk"
    """Octets of a chunk are awaited (RFC 3030)."""
    BDAT = "bdat"
    """A chunk was taken, and it was not the last."""
    AUTH = "auth"
    """The response to a challenge is awaited."""
    TLS = "tls"
    """The handshake is awaited."""
    CLOSED = "closed"
