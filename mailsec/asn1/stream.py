"""Walking BER down and forwards over `Octets` that need not be in memory: small elements are copied, large strings become spans.

Definite and indefinite lengths, strings constructed of any pieces (X.690 §8.7.3). Invariant: memory is constant, time is linear in the
octets, and what is copied is bounded by `limits.cms_metadata_octets` over the whole walk.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

from mailsec.asn1.reader import OCTET_STRING, Element, definite_element, read_element, read_header
from mailsec.errors import Asn1Error, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import BytesOctets, Octets

__all__ = ["StringSpan", "Walker"]

_WINDOW = 64 * 1024
_MAX_HEADER = 140
"""Identifier and length octets of one element, at most: see `reader.read_header`."""
_MEAN_PIECE = 256
"""Pieces of a constructed string may be this small on average, beyond the first `limits.asn1_elements`; smaller ones are an attack on time."""


class _Window:
    """Part of the octets in memory: all of them where they are bytes, else a stretch around the reading position."""

    __slots__ = ("base", "buffer", "octets", "size")

    def __init__(self, octets: Octets) -> None:
        self.octets = octets
        self.size = len(octets)
        self.base = 0
        self.buffer = octets.data if isinstance(octets, BytesOctets) else b""

    def header(self, offset: int, end: int) -> tuple[int, int, int]:
        """`reader.read_header` at an offset of the whole octets."""
        base = self.base
        if not base and end <= len(self.buffer):
            return read_header(self.buffer, offset, end)
        if offset < base or min(offset + _MAX_HEADER, end) > base + len(self.buffer):
            self.buffer = bytes(self.octets.view(offset, min(offset + _WINDOW, end)))
            self.base = base = offset
            if len(self.buffer) < min(_MAX_HEADER, end - offset):
                raise Asn1Error("the octets end within an element")
        tag, content, stop = read_header(self.buffer, offset - base, end - base)
        return tag, content + base, stop if stop < 0 else stop + base

    def slices(self, start: int, end: int) -> Iterator[bytes | memoryview]:
        """The octets [start, end): from the window where they stand in it."""
        base = self.base
        if start >= base and end <= base + len(self.buffer):
            yield memoryview(self.buffer)[start - base : end - base]
        else:
            yield from self.octets.blocks(start, end)


class StringSpan:
    """The value of an OCTET STRING that stays where it is: `len()` octets, given by `blocks()` as often as wanted."""

    __slots__ = ("_bound", "_depth", "_length", "_tag", "content_start", "end", "octets", "primitive", "start")

    def __init__(self, window: _Window, start: int, bound: int, tag: int, limits: Limits) -> None:
        self.octets = window.octets
        self.start = start
        """Where the identifier octet stands."""
        self._bound = bound
        self._tag = tag
        self._depth = limits.asn1_depth
        found, self.content_start, stop = window.header(start, bound)
        self.primitive = found == tag
        """True where the string stands in one piece at [content_start, end)."""
        if self.primitive:
            self._length = stop - self.content_start
            self.end = stop
            return
        # Without a limit on the mean size, 150 MB of one-octet pieces cost a minute of computing.
        most = limits.asn1_elements + (bound - start) // _MEAN_PIECE
        length = count = 0
        pieces = _string_pieces(window, start, bound, tag, limits.asn1_depth)
        while True:
            try:
                first, last = next(pieces)
            except StopIteration as ended:
                self.end = ended.value
                break
            length += last - first
            count += 1
            if count > most:
                raise LimitExceeded("asn1_elements", "a string in too many small pieces")
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<string of {self._length} octets>"

    def blocks(self) -> Iterator[bytes | memoryview]:
        """The string in order, in pieces of at most about `BLOCK` octets."""
        if self.primitive:
            yield from self.octets.blocks(self.content_start, self.end)
            return
        window = _Window(self.octets)
        waiting: list[bytes | memoryview] = []
        size = 0
        for start, stop in _string_pieces(window, self.start, self._bound, self._tag, self._depth):
            for piece in window.slices(start, stop):
                waiting.append(piece)
                size += len(piece)
                # A hash over a thousand small pieces costs more than one over their copy.
                if size >= _WINDOW:
                    yield waiting[0] if len(waiting) == 1 else b"".join(waiting)
                    waiting.clear()
                    size = 0
        if waiting:
            yield b"".join(waiting)


def _string_pieces(window: _Window, start: int, bound: int, tag: int, depth: int) -> Generator[tuple[int, int], None, int]:
    """The spans of the primitive pieces of the string at `start`, in order; returns where the string ends."""
    found, position, stop = window.header(start, bound)
    if found == tag:
        yield position, stop
        return stop
    if found != tag | 0x20:
        raise Asn1Error(f"tag 0x{found:02x} where an OCTET STRING is expected")
    # What is open: where it ends at the latest, and whether end-of-contents octets end it before.
    opened = [(stop, False) if stop >= 0 else (bound, True)]
    while opened:
        latest, indefinite = opened[-1]
        if position == latest:
            if indefinite:
                raise Asn1Error("the octets end within a string")
            opened.pop()
            continue
        found, content, stop = window.header(position, latest)
        if found == OCTET_STRING:
            yield content, stop
            position = stop
        elif found == OCTET_STRING | 0x20:
            if len(opened) >= depth:
                raise LimitExceeded("asn1_depth", f"more than {depth} strings within each other")
            opened.append((stop, False) if stop >= 0 else (latest, True))
            position = content
        elif indefinite and not found and content == stop:
            opened.pop()
            position = stop
        else:
            raise Asn1Error("a piece of another type within a constructed string")
    return position


class Walker:
    """A position in nested elements, moved forwards: `enter` and `leave` constructed ones, `take` small ones, `string` spans."""

    __slots__ = ("_limits", "_opened", "_remaining", "_window", "position")

    def __init__(self, octets: Octets, start: int = 0, end: int | None = None, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._window = _Window(octets)
        self._limits = limits
        self._remaining = limits.cms_metadata_octets
        size = len(octets)
        self._opened: list[tuple[int, bool]] = [(size if end is None else min(end, size), False)]
        self.position = start

    @property
    def tag(self) -> int:
        """The tag of the next element; 0 at the end of the one that was entered."""
        latest, indefinite = self._opened[-1]
        if self.position == latest and not indefinite:
            return 0
        return self._window.header(self.position, latest)[0]

    def enter(self, tag: int, what: str = "") -> None:
        """Step into the next element, which must be of `tag`."""
        latest, _ = self._opened[-1]
        found, content, stop = self._window.header(self.position, latest)
        if found != tag:
            raise Asn1Error(f"{what or 'element'}: tag 0x{found:02x} where 0x{tag:02x} is expected")
        if len(self._opened) > self._limits.asn1_depth:
            raise LimitExceeded("asn1_depth", f"more than {self._limits.asn1_depth} elements within each other")
        self._opened.append((stop, False) if stop >= 0 else (latest, True))
        self.position = content

    def leave(self, what: str = "") -> None:
        """Step out of the element that was entered last, at its end; raise Asn1Error where there is more in it."""
        latest, indefinite = self._opened.pop()
        if not indefinite:
            if self.position != latest:
                raise Asn1Error(f"{what or 'element'}: more elements than belong there")
            return
        found, content, stop = self._window.header(self.position, latest)
        if found or content != stop:
            raise Asn1Error(f"{what or 'element'}: more elements than belong there")
        self.position = stop

    def take(self, what: str = "") -> Element:
        """Copy the next element and step behind it."""
        latest, indefinite = self._opened[-1]
        if self.position == latest and not indefinite:
            raise Asn1Error(f"{what or 'element'} is missing")
        start = self.position
        tag, content, stop = self._window.header(start, latest)
        if not tag:
            raise Asn1Error(f"{what or 'element'} is missing")
        if stop < 0:
            return self._take_indefinite(start, latest)
        size = stop - start
        if size > self._remaining:
            raise self._over()
        self._remaining -= size
        self.position = stop
        return definite_element(bytes(self._window.octets.view(start, stop)), tag, content - start, limits=self._limits)

    def _take_indefinite(self, start: int, latest: int) -> Element:
        """Only reading the whole element tells where it ends."""
        size = min(latest - start, self._remaining)
        copy = bytes(self._window.octets.view(start, start + size))
        try:
            element = read_element(copy, limits=self._limits)
        except Asn1Error:
            if size == self._remaining < latest - start:
                raise self._over() from None
            raise
        self._remaining -= element.end
        self.position = start + element.end
        return element

    def string(self, tag: int = OCTET_STRING) -> StringSpan:
        """The next element as a string that is not copied; step behind it."""
        latest, indefinite = self._opened[-1]
        if self.position == latest and not indefinite:
            raise Asn1Error("an OCTET STRING is missing")
        span = StringSpan(self._window, self.position, latest, tag, self._limits)
        self.position = span.end
        return span

    def _over(self) -> LimitExceeded:
        return LimitExceeded("cms_metadata_octets", f"more than {self._limits.cms_metadata_octets} octets of structure")
