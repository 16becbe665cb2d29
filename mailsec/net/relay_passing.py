"""A message that is passed on while its client waits (proxy mode): it is in no spool, and its answer is the client's.

The one invariant: whoever asks is answered once with what the next hop said; before it was begun it can be taken back, afterwards not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from mailsec.errors import Reply
from mailsec.interfaces import Runtime
from mailsec.model.octets import BytesOctets, Segments, Slice
from mailsec.model.queue import NewEntry, SpooledEntry
from mailsec.net.relay_hop import Job
from mailsec.net.relay_outcome import Answer
from mailsec.store.scratch import FileOctets
from mailsec.wire.smtp.questions import OutgoingMessage

__all__ = ["PassingJob", "holds_eight_bits"]

_NOTHING = BytesOctets(b"")
_LATER = Reply(451, "4.4.1", "the next mail server does not take it now")
_STOPPING = Reply(421, "4.3.2", "the gateway is about to stop")
_INLINE = 1024 * 1024


async def holds_eight_bits(segments: Segments, runtime: Runtime) -> bool:
    """True where it needs 8BITMIME (RFC 6152)."""
    if len(segments) <= _INLINE:
        return not segments.join().isascii()
    if _known_ascii(segments):
        return False
    return await runtime.in_thread(_any_eight_bits, segments, lane="bulk")


def _known_ascii(segments: Segments) -> bool:
    """True where that was seen while it came in. Reading it once more in a thread, beside a busy reactor, takes as long as receiving it."""
    return all(map(_piece_known_ascii, segments.pieces))


def _piece_known_ascii(piece: object) -> bool:
    if isinstance(piece, bytes):
        return piece.isascii()
    if isinstance(piece, Segments):
        return _known_ascii(piece)
    return isinstance(piece, Slice) and isinstance(piece.octets, FileOctets) and piece.octets.ascii


def _any_eight_bits(segments: Segments) -> bool:
    return not all(bytes(piece).isascii() for piece in segments)


class PassingJob(Job):
    """Has no row: what leaves is in its message only."""

    __slots__ = ("_answered",)

    def __init__(self, entry: NewEntry, message: OutgoingMessage, runtime: Runtime) -> None:
        super().__init__(SpooledEntry(entry, _NOTHING, 0), tuple(range(len(message.recipients))), message)
        self._answered = runtime.signal()

    def answer(self, answers: Sequence[Answer]) -> None:
        """The next hop has said these, or we for it."""
        self._answered.fire(tuple(answer.reply for answer in answers))

    def stop(self) -> None:
        """Nothing is begun any more."""
        self._answered.fire((_STOPPING,) * len(self.recipients))

    def told(self) -> Awaitable[tuple[Reply, ...]]:
        """The reply for each recipient, however long it takes: what was begun cannot be taken back."""
        return self._answered.wait()

    async def wait(self, runtime: Runtime, seconds: float) -> tuple[Reply, ...]:
        """The same. Where it was not begun within `seconds` it never is: the client keeps it."""
        try:
            return await runtime.within(seconds, self.told())
        except TimeoutError:
            if not self.taken:
                self.dropped = True
                return (_LATER,) * len(self.recipients)
            return await self.told()
