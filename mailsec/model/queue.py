"""Rows of the spool, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from mailsec.errors import Reply
from mailsec.model.octets import Octets, Segments
from mailsec.model.session import Envelope, Origin

__all__ = ["Delivery", "NewEntry", "QueueEntry", "RecipientState", "SpooledEntry", "State"]


class State(str, Enum):
    """The three states of a row. The relay reads READY only."""

    RAW = "raw"
    """Octets as received: not yet processed, or waiting for a token, directory or responder. Tried again by itself."""
    READY = "ready"
    """Octets as they leave."""
    HELD = "held"
    """Octets as received: waits for a person."""


class RecipientState(str, Enum):
    """What became of one recipient of a READY row."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A row that is about to be committed. Nothing is acknowledged before `Spool.commit` has returned (promise 1)."""

    id: str
    """Unique; several rows of one transaction are "<transaction id>.<n>"."""
    state: State
    envelope: Envelope
    segments: Segments
    received_at: datetime
    origin: Origin
    listener: str
    secret: bool = False
    """True for raw, held and decrypted rows: encrypted at rest."""
    identity: str = ""
    need: str = ""
    """What a raw row waits for: "" (nothing: process it), "token:NAME", "directory", "evidence"."""
    reason: str = ""
    """Why it is held, or what was decided."""
    header: bytes = b""
    """The outer header as received: all that a DSN may carry of the message."""
    message_id: str = ""
    rule: str = ""
    verdict: str = ""
    sensitive: bool = False
    """True where something inside was encrypted on arrival from `internet`: no DSN says more than fixed words (promise 6)."""
    session: bytes = b""
    """The session as JSON, for raw rows that are processed again."""


@dataclass(frozen=True, slots=True)
class SpooledEntry:
    """A row that was read back, or that has just been committed: for the relay (READY) and for `Pipeline.resume` (RAW)."""

    entry: NewEntry
    """As it was committed; its `segments` are the whole of `octets`."""
    octets: Octets
    row: int
    """The number of the row in its spool."""
    attempts: int = 0
    """Attempts that were begun before, this one not counted."""
    progress: tuple[tuple[RecipientState, str], ...] = ()
    """State and last reply of each recipient of the envelope, in order; empty where all are waiting and nothing was tried."""
    delayed: bool = False
    """True where the sender was told already that it takes long."""


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """A row as `mailsec queue` and the owner see it."""

    id: str
    state: State
    paused: bool
    reverse_path: str
    recipients: tuple[tuple[str, RecipientState, str], ...]
    """Address, state, and the last reply or error."""
    size: int
    received_at: datetime
    next_attempt: datetime | None
    attempts: int
    origin: Origin
    listener: str
    need: str
    reason: str
    message_id: str
    rule: str
    worker: str = ""
    """The spool that owns the row."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt for one recipient: who answered what. `reply` is None where nobody answered."""

    recipient: str
    state: RecipientState
    next_hop: str
    reply: Reply | None
    error: str = ""
