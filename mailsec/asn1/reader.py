"""Elements of BER and DER in memory (X.690 §8): identifier, length, contents, and the elements within.

Used for everything that is small or was bounded before (certificates, SignerInfos, attributes); content that may be large is walked by
`asn1.stream`. Lazy: a child is read when it is asked for. Invariant: an element lies wholly within its parent and within `octets`;
every header is looked at a constant number of times, so that reading is linear however lengths are nested.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mailsec.errors import Asn1Error, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "BIT_STRING",
    "BOOLEAN",
    "ENUMERATED",
    "GENERALIZED_TIME",
    "IA5_STRING",
    "INTEGER",
    "NULL",
    "OBJECT_IDENTIFIER",
    "OCTET_STRING",
    "PRINTABLE_STRING",
    "SEQUENCE",
    "SET",
    "UTC_TIME",
    "UTF8_STRING",
    "Element",
    "definite_element",
    "read_element",
    "read_header",
    "read_single",
]

# Identifier octets (X.690 §8.1.2) of the universal types that are met, as they stand in DER.
BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
NULL: Final = 0x05
OBJECT_IDENTIFIER: Final = 0x06
ENUMERATED: Final = 0x0A
UTF8_STRING: Final = 0x0C
PRINTABLE_STRING: Final = 0x13
IA5_STRING: Final = 0x16
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

_MAX_TAG_OCTETS = 5
"""Identifier octets of the high-tag-number form that are read (X.690 §8.1.2.4)."""


def read_header(octets: bytes, offset: int, end: int) -> tuple[int, int, int]:
    """Read one identifier and length; return (tag, start of contents, end of contents), the last -1 for the indefinite form.

    `tag` is the value of the identifier octets: 0x30 for SEQUENCE, 0xA0 for a constructed [0], 0x80 for a primitive one.
    """
    content = offset + 2
    if content > end:
        raise Asn1Error("the octets end within an element")
    tag = octets[offset]
    length = octets[offset + 1]
    if tag & 0x1F == 0x1F:
        # X.690 §8.1.2.4: tag numbers over 30 follow in groups of seven bits.
        constructed = tag & 0x20
        position = offset
        while True:
            position += 1
            if position + 1 >= end or position - offset >= _MAX_TAG_OCTETS:
                raise Asn1Error("a tag number is too long or cut off")
            if octets[position] < 0x80:
                break
        tag = int.from_bytes(octets[offset : position + 1], "big")
        length = octets[position + 1]
        content = position + 2
    else:
        constructed = tag & 0x20
    if length >= 0x80:
        if length == 0x80:
            # X.690 §8.1.3.2: the indefinite form is for constructed encodings only.
            if not constructed:
                raise Asn1Error("a primitive element of indefinite length")
            return tag, content, -1
        # X.690 §8.1.3.5 c): 0xFF is not used. Leading zeros are BER, and some tokens write them.
        count = length & 0x7F
        if count == 0x7F or content + count > end:
            raise Asn1Error("a length is cut off")
        length = int.from_bytes(octets[content : content + count], "big")
        content += count
    length += content
    if length > end:
        raise Asn1Error("an element runs past the one that holds it")
    return tag, content, length


class _Walk:
    """What all elements of one structure share: limits, how many may still be read, and the ends of indefinite ones."""

    __slots__ = ("depth", "ends", "remaining")

    def __init__(self, limits: Limits) -> None:
        self.remaining = limits.asn1_elements
        self.depth = limits.asn1_depth
        self.ends: dict[int, int] = {}


class Element:
    """One element. Octets [start, end) are its encoding, [content_start, content_end) its contents.

    Of an element of indefinite length, [content_end, end) are the two end-of-contents octets.
    """

    __slots__ = ("_walk", "content_end", "content_start", "depth", "end", "octets", "start", "tag")

    def __init__(
        self, octets: bytes, tag: int, start: int, content_start: int, content_end: int, end: int, depth: int, walk: _Walk
    ) -> None:
        self.octets = octets
        self.tag = tag
        self.start = start
        self.content_start = content_start
        self.content_end = content_end
        self.end = end
        self.depth = depth
        self._walk = walk

    def __repr__(self) -> str:
        return f"<element 0x{self.tag:02x} of {self.end - self.start} octets at {self.start}>"

    @property
    def constructed(self) -> bool:
        """True where the contents are elements (X.690 §8.1.2.5)."""
        return bool(self.octets[self.start] & 0x20)

    @property
    def definite(self) -> bool:
        """False for the indefinite form of length (X.690 §8.1.3.6), which DER forbids."""
        return self.content_end == self.end

    @property
    def content(self) -> bytes:
        """A copy of the contents octets."""
        return self.octets[self.content_start : self.content_end]

    @property
    def encoding(self) -> bytes:
        """A copy of the whole encoding, as received."""
        return self.octets[self.start : self.end]

    def __len__(self) -> int:
        return self.end - self.start

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Element]:
        return iter(self.children())

    def children(self) -> list[Element]:
        """The elements within; raise Asn1Error where the contents are not elements, LimitExceeded for too many or too deep."""
        octets = self.octets
        if not octets[self.start] & 0x20:
            raise Asn1Error(f"a primitive element (0x{self.tag:02x}) where elements are expected within")
        walk = self._walk
        depth = self.depth + 1
        if depth > walk.depth:
            raise LimitExceeded("asn1_depth", f"more than {walk.depth} elements within each other")
        offset = self.content_start
        stop = self.content_end
        result: list[Element] = []
        while offset < stop:
            tag, content_start, content_end = read_header(octets, offset, stop)
            if content_end < 0:
                content_end = _end_of_contents(octets, offset, content_start, stop, walk)
                end = content_end + 2
            else:
                end = content_end
            if not tag:
                raise Asn1Error("end-of-contents octets where none belong")
            result.append(Element(octets, tag, offset, content_start, content_end, end, depth, walk))
            offset = end
            walk.remaining -= 1
            if walk.remaining < 0:
                raise _too_many()
        return result

    def expect(self, tag: int, what: str = "") -> Element:
        """Return self where `tag` is its tag, else raise Asn1Error."""
        if self.tag != tag:
            raise Asn1Error(f"{what or 'element'}: tag 0x{self.tag:02x} where 0x{tag:02x} is expected")
        return self

    def only(self, what: str = "") -> Element:
        """The one element within (of an EXPLICIT tag); raise Asn1Error for none or several."""
        children = self.children()
        if len(children) != 1:
            raise Asn1Error(f"{what or 'element'}: {len(children)} elements where one is expected")
        return children[0]


def read_element(octets: bytes, offset: int = 0, end: int | None = None, *, limits: Limits = DEFAULT_LIMITS) -> Element:
    """Read the element at `offset`, which must lie within [offset, end). Octets behind it are not looked at."""
    if end is None or end > len(octets):
        end = len(octets)
    tag, content_start, content_end = read_header(octets, offset, end)
    if not tag:
        raise Asn1Error("end-of-contents octets where an element is expected")
    walk = _Walk(limits)
    if content_end < 0:
        content_end = _end_of_contents(octets, offset, content_start, end, walk)
        return Element(octets, tag, offset, content_start, content_end, content_end + 2, 0, walk)
    return Element(octets, tag, offset, content_start, content_end, content_end, 0, walk)


def definite_element(octets: bytes, tag: int, content_start: int, *, limits: Limits = DEFAULT_LIMITS) -> Element:
    """The element of definite length that `octets` are, whose header (`tag`, `content_start`) was read by `read_header` before."""
    size = len(octets)
    return Element(octets, tag, 0, content_start, size, size, 0, _Walk(limits))


def read_single(octets: bytes, tag: int, what: str = "", *, limits: Limits = DEFAULT_LIMITS) -> Element:
    """Read the one element that `octets` are, of tag `tag`; raise Asn1Error for octets behind it."""
    element = read_element(octets, limits=limits).expect(tag, what)
    if element.end != len(octets):
        raise Asn1Error(f"{what or 'element'}: {len(octets) - element.end} octets behind the end")
    return element


def _end_of_contents(octets: bytes, offset: int, content: int, stop: int, walk: _Walk) -> int:
    """Return where the end-of-contents octets (X.690 §8.1.5) of the element at `offset` stand.

    The ends of all indefinite elements that are passed are kept: scanning them again at every level would be quadratic.
    """
    ends = walk.ends
    known = ends.get(offset)
    if known is not None:
        if known + 2 > stop:
            raise Asn1Error("an element runs past the one that holds it")
        return known
    opened = [offset]
    position = content
    while True:
        if octets[position : position + 2] == b"\0\0" and position + 2 <= stop:
            start = opened.pop()
            ends[start] = position
            if not opened:
                return position
            position += 2
            continue
        tag, inner, end = read_header(octets, position, stop)
        if not tag:
            raise Asn1Error("end-of-contents octets with contents")
        if end < 0:
            opened.append(position)
            if len(opened) > walk.depth:
                raise LimitExceeded("asn1_depth", f"more than {walk.depth} elements within each other")
            position = inner
        else:
            position = end
        walk.remaining -= 1
        if walk.remaining < 0:
            raise _too_many()


def _too_many() -> LimitExceeded:
    return LimitExceeded("asn1_elements", "too many elements in one structure")
