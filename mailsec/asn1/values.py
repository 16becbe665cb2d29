"""Values of universal types out of elements (X.690 §8.2 to §8.25): integers, identifiers, times, strings.

Strings may be constructed, in any nesting, as BER allows. Invariant: a value or an `Asn1Error`; time is linear in the element.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from mailsec.asn1.reader import (
    BIT_STRING,
    BOOLEAN,
    GENERALIZED_TIME,
    INTEGER,
    OBJECT_IDENTIFIER,
    OCTET_STRING,
    UTC_TIME,
    Element,
)
from mailsec.errors import Asn1Error
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "bit_string_bits",
    "oid_of",
    "read_bit_string",
    "read_boolean",
    "read_integer",
    "read_octet_string",
    "read_oid",
    "read_string",
    "read_time",
]


def read_boolean(element: Element) -> bool:
    """BOOLEAN (X.690 §8.2); any octet but zero is true, as in BER."""
    element.expect(BOOLEAN, "BOOLEAN")
    content = element.content
    if len(content) != 1:
        raise Asn1Error("a BOOLEAN that is not one octet")
    return content != b"\0"


def read_integer(element: Element, tag: int = INTEGER) -> int:
    """INTEGER, ENUMERATED with its tag, or an IMPLICIT one (X.690 §8.3)."""
    element.expect(tag, "INTEGER")
    content = element.content
    if not content:
        raise Asn1Error("an INTEGER without octets")
    # X.690 §8.3.2: the first nine bits are not all equal, in BER too: one value, one encoding, so serial numbers compare.
    if len(content) > 1 and ((content[0] == 0 and content[1] < 0x80) or (content[0] == 0xFF and content[1] >= 0x80)):
        raise Asn1Error("an INTEGER with needless octets in front")
    return int.from_bytes(content, "big", signed=True)


def read_oid(element: Element, tag: int = OBJECT_IDENTIFIER, *, limits: Limits = DEFAULT_LIMITS) -> str:
    """OBJECT IDENTIFIER in dotted form (X.690 §8.19)."""
    element.expect(tag, "OBJECT IDENTIFIER")
    # An arc of 400 kB costs half a minute to print: the limit stands before anything is computed.
    if element.content_end - element.content_start > limits.asn1_oid_octets:
        raise Asn1Error("an object identifier that is too long")
    return oid_of(element.content)


@lru_cache(maxsize=1024)
def oid_of(content: bytes) -> str:
    """The dotted form of an identifier's contents octets."""
    if not content or content[-1] >= 0x80:
        raise Asn1Error("an object identifier that is cut off")
    arcs: list[int] = []
    value = 0
    fresh = True
    for octet in content:
        # X.690 §8.19.2: the leading octet of a subidentifier is not 0x80.
        if fresh and octet == 0x80:
            raise Asn1Error("an object identifier with a padded arc")
        value = (value << 7) | (octet & 0x7F)
        fresh = octet < 0x80
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def read_octet_string(element: Element, tag: int = OCTET_STRING) -> bytes:
    """OCTET STRING, primitive or constructed (X.690 §8.7); `tag` is the primitive form of an IMPLICIT tag."""
    if element.tag == tag:
        return element.content
    element.expect(tag | 0x20, "OCTET STRING")
    return b"".join(_pieces(element, OCTET_STRING))


def _pieces(element: Element, tag: int) -> list[bytes]:
    """The primitive pieces of a constructed string, in order. Depth is bounded by `Element.children`."""
    pieces: list[bytes] = []
    stack = element.children()[::-1]
    while stack:
        piece = stack.pop()
        if piece.tag == tag:
            pieces.append(piece.content)
        elif piece.tag == tag | 0x20:
            stack.extend(piece.children()[::-1])
        else:
            raise Asn1Error("a piece of another type within a constructed string")
    return pieces


def read_bit_string(element: Element, tag: int = BIT_STRING) -> tuple[bytes, int]:
    """BIT STRING (X.690 §8.6): its octets, and how many bits of the last one are unused."""
    if element.tag == tag:
        pieces = [element.content]
    else:
        element.expect(tag | 0x20, "BIT STRING")
        pieces = _pieces(element, BIT_STRING) or [b"\0"]
    for piece in pieces:
        if not piece or piece[0] > 7 or (piece[0] and len(piece) == 1):
            raise Asn1Error("a BIT STRING with a bad count of unused bits")
    # X.690 §8.6.4.1: every piece but the last holds whole octets.
    if any(piece[0] for piece in pieces[:-1]):
        raise Asn1Error("a BIT STRING with unused bits in its middle")
    return b"".join([piece[1:] for piece in pieces]), pieces[-1][0]


def bit_string_bits(element: Element, tag: int = BIT_STRING) -> frozenset[int]:
    """The numbers of the bits that are set in a named bit list (X.680 §22.7), such as KeyUsage. Bits over 255 are not looked at."""
    octets, unused = read_bit_string(element, tag)
    count = min(len(octets) * 8 - unused, 256)
    return frozenset(bit for bit in range(count) if octets[bit >> 3] & (0x80 >> (bit & 7)))


_STRING_ENCODINGS = {
    0x0C: "utf-8",  # UTF8String
    0x12: "ascii",  # NumericString
    0x13: "ascii",  # PrintableString
    0x14: "latin-1",  # TeletexString: latin-1 is what the world writes into it, T.61 is not
    0x16: "ascii",  # IA5String
    0x1A: "ascii",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}


def read_string(element: Element, universal: int | None = None) -> str:
    """A character string by its tag, or the IMPLICIT one of type `universal` (X.690 §8.23); raise Asn1Error where it cannot be decoded."""
    tag = element.tag
    kind = tag & ~0x20 if universal is None else universal
    encoding = _STRING_ENCODINGS.get(kind)
    if encoding is None:
        raise Asn1Error(f"tag 0x{tag:02x} where a character string is expected")
    if element.constructed:
        content = b"".join(_constructed_string(element, kind))
    else:
        content = element.content
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        raise Asn1Error(f"a character string that is not {encoding}") from None


def _constructed_string(element: Element, kind: int) -> list[bytes]:
    # X.690 §8.23.6 example: pieces are OCTET STRINGs by the text, of the same type in what some encoders write.
    children = element.children()
    return _pieces(element, kind if children and children[0].tag & ~0x20 == kind else OCTET_STRING)


_UTC_TIME = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)?(Z|[+-]\d{4})\Z")
_GENERALIZED_TIME = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:(\d\d)(?:[.,](\d{1,9}))?)?)?(Z|[+-]\d{4})\Z")


def read_time(element: Element) -> datetime:
    """UTCTime or GeneralizedTime (X.680 §46, §47) as an instant in UTC. Local time without a zone says no instant: an error."""
    content = element.content if element.end - element.start < 64 else b""
    microsecond = 0
    if element.tag == UTC_TIME:
        match = _UTC_TIME.match(content)
        if match is None:
            raise Asn1Error("a bad UTCTime")
        # RFC 5280 §4.1.2.5.1: years from 50 are of 19xx, below of 20xx.
        year = int(match[1])
        year += 1900 if year >= 50 else 2000
        zone = match[7]
    elif element.tag == GENERALIZED_TIME:
        match = _GENERALIZED_TIME.match(content)
        if match is None:
            raise Asn1Error("a bad GeneralizedTime")
        year = int(match[1])
        microsecond = int((match[7] or b"0").ljust(6, b"0")[:6])
        zone = match[8]
    else:
        raise Asn1Error(f"tag 0x{element.tag:02x} where a time is expected")
    try:
        value = datetime(
            year,
            int(match[2]),
            int(match[3]),
            int(match[4]),
            int(match[5] or 0),
            int(match[6] or 0),
            microsecond,
            tzinfo=UTC,
        )
        if zone != b"Z":
            offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
            value = value - offset if zone[:1] == b"+" else value + offset
    except (ValueError, OverflowError):
        raise Asn1Error("a time that is none") from None
    return value
