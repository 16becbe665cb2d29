"""Where a POP3 session stands, as its server sees it (RFC 1939 §3)."""

from __future__ import annotations

from enum import Enum

__all__ = ["State"]


class State(Enum):
    """Where a session stands. UPDATE is what the layer above does when it is asked for QUIT."""

    AUTHORIZATION = "authorization"
    SASL = "sasl"
    """The response to a challenge is awaited."""
    TRANSACTION = "transaction"
    TLS = "tls"
    """The handshake is awaited."""
    CLOSED = "closed"
