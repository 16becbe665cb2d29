"""One mail transaction as a server receives it: reverse path, recipients, octets (RFC 5321 §3.3).

The one invariant: it is complete only if nothing of it was refused.
"""

from __future__ import annotations

from mailsec.errors import Reply
from mailsec.model.session import Envelope, Recipient
from mailsec.wire.smtp import words
from mailsec.wire.smtp.chunks import ChunkReceiver
from mailsec.wire.smtp.data import NUL, DataReceiver

__all__ = ["Incoming"]


class Incoming:
    """From MAIL to the end of data."""

    __slots__ = ("_receiver", "envelope", "recipient", "recipients", "refusal")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.recipients: list[Recipient] = []
        self.recipient: Recipient | None = None
        """The one that is being asked about."""
        self.refusal: Reply | None = None
        """What the client is told at the end of data, where the octets cannot be accepted."""
        self._receiver: DataReceiver | ChunkReceiver | None = None

    def begin_data(self, max_size: int, *, normalise: bool) -> None:
        self._receiver = DataReceiver(max_size, normalise=normalise)

    def receive(self, data: bytes, start: int) -> tuple[bytes, int]:
        """As `DataReceiver.receive`; `refusal` is set as soon as it is known."""
        receiver = self._receiver
        assert isinstance(receiver, DataReceiver)
        piece, behind = receiver.receive(data, start)
        self._judge(receiver)
        return piece, behind

    def begin_chunk(self, max_size: int, octets: int, *, normalise: bool) -> None:
        """A chunk of so many octets follows."""
        receiver = self._receiver
        if not isinstance(receiver, ChunkReceiver):
            receiver = self._receiver = ChunkReceiver(max_size, normalise=normalise)
        if receiver.size + octets > max_size:
            receiver.oversize = True
            self._judge(receiver)

    def receive_chunk(self, data: bytes) -> bytes:
        """Octets of the chunk; `refusal` is set as soon as it is known."""
        receiver = self._receiver
        assert isinstance(receiver, ChunkReceiver)
        piece = receiver.receive(data)
        self._judge(receiver)
        return piece

    def end_chunks(self) -> bytes:
        """The last chunk has come."""
        receiver = self._receiver
        assert isinstance(receiver, ChunkReceiver)
        piece = receiver.finish()
        self._judge(receiver)
        return piece

    @property
    def begun(self) -> bool:
        """True where octets of it may lie above."""
        return self._receiver is not None

    def _judge(self, receiver: DataReceiver | ChunkReceiver) -> None:
        if self.refusal is None and (receiver.fault or receiver.oversize):
            # RFC 1870 §6.3: 552 after the message; the rest is read and thrown away, so that the session stays in step.
            self.refusal = words.TOO_LARGE if receiver.oversize else words.NUL if receiver.fault == NUL else words.BARE

    @property
    def hopeless(self) -> bool:
        return self._receiver is not None and self._receiver.hopeless

    def complete(self) -> Envelope:
        """The envelope with its recipients."""
        envelope = self.envelope
        return Envelope(
            envelope.reverse_path, tuple(self.recipients), envelope.size, envelope.body, envelope.smtputf8,
            envelope.ret, envelope.envid, envelope.auth,
        )  # fmt: skip
