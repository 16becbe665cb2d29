"""A stretch of octets, as octets of its own, without a copy: the entity that a signature covers, the content of a CMS object; and
octets with others before them: the reader's copy, whose body is what was decrypted."""

from __future__ import annotations

from collections.abc import Iterator

from mailsec.model.octets import BytesOctets, Octets

__all__ = ["HeadedOctets", "OctetsSpan", "span_of"]


class OctetsSpan:
    """`Octets` over [start, end) of other octets."""

    __slots__ = ("end", "octets", "start")

    def __init__(self, octets: Octets, start: int, end: int) -> None:
        self.octets = octets
        self.start = start
        self.end = max(start, end)

    def __len__(self) -> int:
        return self.end - self.start

    def __repr__(self) -> str:
        return f"<{len(self)} octets>"

    def view(self, start: int, end: int) -> bytes | memoryview:
        return self.octets.view(self.start + start, min(self.start + end, self.end))

    def find(self, pattern: bytes, start: int = 0, end: int | None = None) -> int:
        stop = self.end if end is None else min(self.start + end, self.end)
        found = self.octets.find(pattern, self.start + start, stop)
        return found if found < 0 else found - self.start

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes | memoryview]:
        stop = self.end if end is None else min(self.start + end, self.end)
        if self.start + start < stop:
            yield from self.octets.blocks(self.start + start, stop)


class HeadedOctets:
    """`Octets` that begin with `head`, which is in memory, and go on with [start, end) of other octets."""

    __slots__ = ("_body", "head")

    def __init__(self, head: bytes, octets: Octets, start: int, end: int) -> None:
        self.head = head
        self._body = OctetsSpan(octets, start, end)

    def __len__(self) -> int:
        return len(self.head) + len(self._body)

    def __repr__(self) -> str:
        return f"<{len(self)} octets>"

    def view(self, start: int, end: int) -> bytes | memoryview:
        start, size = max(start, 0), len(self.head)
        if end <= size:
            return self.head[start:end]
        if start >= size:
            return self._body.view(start - size, end - size)
        return self.head[start:] + bytes(self._body.view(0, end - size))

    def find(self, pattern: bytes, start: int = 0, end: int | None = None) -> int:
        start, size = max(start, 0), len(self.head)
        end = len(self) if end is None else min(end, len(self))
        if start < size:
            # Far enough into the body to see what stands over the joint.
            stop = min(end, size + max(len(pattern) - 1, 0))
            found = bytes(self.view(0, stop)).find(pattern, start)
            if found >= 0 or end <= stop:
                return found
            start = size
        found = self._body.find(pattern, start - size, end - size)
        return found if found < 0 else found + size

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes | memoryview]:
        start, size = max(start, 0), len(self.head)
        end = len(self) if end is None else min(end, len(self))
        if start < min(end, size):
            yield self.head[start:end]
        if end > size:
            yield from self._body.blocks(max(start - size, 0), end - size)


def span_of(octets: Octets, start: int, end: int, *, copied: int = 0) -> Octets:
    """[start, end) of `octets`: bytes where it is at most `copied` octets long, else a view of the same octets."""
    if end - start <= copied:
        return BytesOctets(bytes(octets.view(start, end)))
    return OctetsSpan(octets, start, end)
