"""A stretch of octets, as octets of its own, without a copy: the entity that a signature covers, the content of a CMS object."""

from __future__ import annotations

from collections.abc import Iterator

from mailsec.model.octets import BytesOctets, Octets

__all__ = ["OctetsSpan", "span_of"]


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


def span_of(octets: Octets, start: int, end: int, *, copied: int = 0) -> Octets:
    """[start, end) of `octets`: bytes where it is at most `copied` octets long, else a view of the same octets."""
    if end - start <= copied:
        return BytesOctets(bytes(octets.view(start, end)))
    return OctetsSpan(octets, start, end)
