"""A message without some of its header fields: the body stays the very octets that were received, however large they are (promises 3 and 9).

The one invariant: only whole fields of the outer header go; every other octet stands in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mailsec.mime.edit import header_spans
from mailsec.mime.index import index_message
from mailsec.model.limits import Limits
from mailsec.model.message import HeaderField, Message
from mailsec.model.octets import BytesOctets, Octets

__all__ = ["HeaderOver", "with_header"]


class HeaderOver:
    """`Octets` whose beginning is ours and whose rest, from `start`, is another's."""

    __slots__ = ("header", "rest", "start")

    def __init__(self, header: bytes, rest: Octets, start: int) -> None:
        self.header = header
        self.rest = rest
        self.start = start

    def __len__(self) -> int:
        return len(self.header) + len(self.rest) - self.start

    def __repr__(self) -> str:
        return f"<{len(self)} octets>"

    def view(self, start: int, end: int) -> bytes | memoryview:
        size = len(self.header)
        start, end = max(start, 0), min(end, len(self))
        if end <= size:
            return self.header[start:end]
        if start >= size:
            return self.rest.view(start - size + self.start, end - size + self.start)
        return self.header[start:] + bytes(self.rest.view(self.start, end - size + self.start))

    def find(self, pattern: bytes, start: int = 0, end: int | None = None) -> int:
        size = len(self.header)
        end = len(self) if end is None else min(end, len(self))
        start = max(start, 0)
        if start < size:
            # what begins in the header may end in the rest
            seam = bytes(self.view(start, min(end, size + max(len(pattern) - 1, 0))))
            found = seam.find(pattern)
            if found >= 0:
                return start + found
            start = size
        if start > end:
            return -1
        found = self.rest.find(pattern, start - size + self.start, end - size + self.start)
        return found if found < 0 else found - self.start + size

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes | memoryview]:
        size = len(self.header)
        end = len(self) if end is None else min(end, len(self))
        start = max(start, 0)
        if start < min(size, end):
            yield self.header[start:end]
            start = size
        if start < end:
            yield from self.rest.blocks(start - size + self.start, end - size + self.start)


def with_header(message: Message, limits: Limits, *, remove: Sequence[HeaderField] = (), add: bytes = b"") -> Message:
    """The message without the fields `remove`, and with the finished fields `add` on top."""
    octets = message.octets
    kept = [add, *(bytes(octets.view(start, end)) for start, end in header_spans(message, remove))]
    if isinstance(octets, BytesOctets):
        kept.append(octets.data[message.header_end :])
        return index_message(BytesOctets(b"".join(kept)), limits)
    return index_message(HeaderOver(b"".join(kept), octets, message.header_end), limits)
