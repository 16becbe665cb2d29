"""What the core asks the conversation, and what it is answered. Frozen values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mailsec.model.session import Envelope

__all__ = ["Abandoned", "Answer", "Broken", "Change", "GoOn", "Received", "Working"]


@dataclass(frozen=True, slots=True)
class Received:
    """A message has come wholly: its octets went to `Conversation.body`. Answered by `Answer`, `Working`, or a negative `Reply`."""

    peer: str
    """The SMTP client's address as the MTA says: "192.0.2.1", "2001:db8::1", "unix:PATH", or "" where it has none."""
    peer_port: int
    helo: str
    envelope: Envelope
    login: str
    """{auth_authen}: who has logged in at the MTA; "" for nobody."""
    mechanism: str
    daemon: str
    """{daemon_name}: which of the MTA's ports it came in by."""
    queue_id: str
    tls: Mapping[str, str] = field(default_factory=dict)
    """{tls_version}, {cipher} and {cipher_bits}, where the client has used TLS."""
    quarantines: bool = False
    """True where the MTA can put the message on hold."""
    host: str = ""
    """{j}: the MTA's own name."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """The MTA was told that we are at work; asked after each `Working`, and answered like `Received`."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """The MTA gives the message up: what was received is of no use."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The MTA speaks something else than the milter protocol; the connection is closed."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the header. `place`: for "insert" where it stands (0 on top), for "change" which of the fields of that name (from 1)."""

    kind: str
    """ "insert", "change" (an empty value takes the field away), "add" (at the end)."""
    name: bytes
    value: bytes
    """With the blank behind the colon; lines are ended by LF, as the protocol has it."""
    place: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a message that the MTA may accept."""

    changes: tuple[Change, ...] = ()
    body: Iterable[bytes | memoryview] | None = None
    """The new body; None where it stays."""
    quarantine: str = ""
    """Why it is put on hold in the MTA's queue; "" where it is not."""


@dataclass(frozen=True, slots=True)
class Working:
    """It takes longer: the MTA is told so, and the same is asked again."""
