"""Octets that are read, and segments that are written, without ever being whole in memory.

`Octets` is what a message *is*: random access over something that does not change. `Segments` is what leaves: pieces of known
total length, in order, that can be produced again. Neither copies unless asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["BLOCK", "BytesOctets", "Octets", "Segments", "Slice", "octets_of"]

BLOCK = 96 * 1024
"""Octets that are handled at a time: far below promise 9, and with their base64 below the 128 KiB from which glibc's allocator asks the
kernel for fresh pages each time (signing 100 MiB in blocks of 256 KiB took twice the time)."""


@runtime_checkable
class Octets(Protocol):
    """Immutable octets: bytes for small mail, a file that mailsec itself wrote and holds for large mail."""

    def __len__(self) -> int: ...

    def view(self, start: int, end: int) -> bytes | memoryview:
        """Return octets `start` to `end` (both clipped to the length). Ask for small ranges; large ones through `blocks`."""
        ...

    def find(self, pattern: bytes, start: int = 0, end: int | None = None) -> int:
        """Return the lowest index in [start, end) at which `pattern` stands wholly within the range, or -1."""
        ...

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes | memoryview]:
        """Yield the range in order, in pieces of at most `BLOCK` octets (bytes-backed octets may yield one piece)."""
        ...


class BytesOctets:
    """`Octets` over bytes."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        return f"<{len(self.data)} octets>"

    def view(self, start: int, end: int) -> bytes:
        return self.data[start:end]

    def find(self, pattern: bytes, start: int = 0, end: int | None = None) -> int:
        return self.data.find(pattern, start, len(self.data) if end is None else end)

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes | memoryview]:
        if end is None:
            end = len(self.data)
        if start == 0 and end >= len(self.data):
            if self.data:
                yield self.data
        elif end > start:
            yield memoryview(self.data)[start:end]


def octets_of(data: bytes | Octets) -> Octets:
    """Return `data` as `Octets`."""
    return BytesOctets(data) if isinstance(data, bytes) else data


class Slice:
    """A range of an `Octets` that a `Segments` passes on as it is."""

    __slots__ = ("end", "octets", "start")

    def __init__(self, octets: Octets, start: int, end: int) -> None:
        self.octets = octets
        self.start = start
        self.end = end

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return self.octets.blocks(self.start, self.end)


class Produced:
    """Pieces that are computed each time they are asked for; their total length is known in advance."""

    __slots__ = ("length", "produce")

    def __init__(self, length: int, produce: Callable[[], Iterator[bytes | memoryview]]) -> None:
        self.length = length
        self.produce = produce

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[bytes | memoryview]:
        return self.produce()


class Segments:
    """A whole message (or part) as it leaves: of known length, re-iterable, in pieces of at most about 1 MiB.

    It is produced synchronously by whoever writes it (pass 2 of "awaits first, octets later"); iterating twice gives the same
    octets. Pieces are `bytes`, `Slice`s of the original, `Produced` ones, or other `Segments`.
    """

    __slots__ = ("_length", "pieces")

    def __init__(self, pieces: Sequence[bytes | Slice | Produced | Segments]) -> None:
        self.pieces = tuple(pieces)
        self._length = sum(map(len, self.pieces))

    @classmethod
    def of(cls, octets: Octets | bytes) -> Segments:
        """The whole of `octets`."""
        if isinstance(octets, bytes):
            return cls((octets,))
        return cls((Slice(octets, 0, len(octets)),))

    @classmethod
    def produced(cls, length: int, produce: Callable[[], Iterator[bytes | memoryview]]) -> Segments:
        """Segments that `produce` yields afresh at each iteration; it must yield `length` octets each time."""
        return cls((Produced(length, produce),))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for piece in self.pieces:
            if isinstance(piece, bytes):
                if piece:
                    yield piece
            else:
                yield from piece

    def __add__(self, other: Segments) -> Segments:
        return Segments((*self.pieces, *other.pieces))

    def __repr__(self) -> str:
        return f"<segments of {self._length} octets>"

    def join(self) -> bytes:
        """Return all octets as one bytes object: for small messages and tests."""
        return b"".join(self)
