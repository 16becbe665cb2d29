"""What a sans-IO protocol core asks of whoever drives it: one vocabulary for SMTP, POP3 and every plugin's protocol.

A core is fed octets and answers, and returns requests to be carried out in order. While an `Ask` is open the driver feeds it
nothing, so pipelining and back-pressure need no code in the core: octets that arrive meanwhile wait in the driver.
`Ask`, `Stream`, `StartTls` and `Close` end what a core returns: nothing stands behind them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from mailsec.model.tls import TlsPeer

__all__ = ["Ask", "Body", "Close", "Deadline", "EndOfBody", "Request", "Send", "StartTls", "Stream"]

DEFAULT_PEER = TlsPeer()


@dataclass(frozen=True, slots=True)
class Send:
    """Write these octets."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Stream:
    """Write these pieces as the transport takes them; the driver calls `core.streamed()` when the last piece was taken.

    Where producing a piece raises, the connection is reset: nothing further is sent.
    """

    segments: Iterable[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class StartTls:
    """Begin a TLS handshake now; the driver calls `core.tls_started(info)` when it is done. Everything learnt before is forgotten."""

    server_name: str = ""
    verify: str = "none"
    """For clients: "none" (opportunistic), "required" (encrypted, any certificate), "verified" (chain and name)."""
    peer: TlsPeer = DEFAULT_PEER
    """For clients: what more is known of the peer, and what it is shown."""


@dataclass(frozen=True, slots=True)
class Body:
    """A piece of the message that is being received, transparency undone."""

    chunk: bytes | memoryview


@dataclass(frozen=True, slots=True)
class EndOfBody:
    """The message that is being received is complete. An `Ask` follows."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A question for the layer above; the driver calls `core.answer(value)`. The core ignores input until then."""

    question: object


@dataclass(frozen=True, slots=True)
class Deadline:
    """Call `core.deadline_passed()` in this many seconds, unless another Deadline comes first; None: no deadline."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection when everything was written; `abort`: at once."""

    abort: bool = False


Request: TypeAlias = Send | Stream | StartTls | Body | EndOfBody | Ask | Deadline | Close
