"""Strict DER for certificates, CRLs and OCSP responses: an encoding is split into spans in one pass, without an object for each element.

RFC 5280 §4.1 wants DER, and a signature over an encoding is only as good as our reading of it: indefinite lengths, lengths with leading
zeros and cut elements end in an `Asn1Error`, so that no two readers see two certificates. Invariant: every span lies within its parent;
the cost is linear in the octets that are split.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from mailsec.errors import Asn1Error

__all__ = [
    "BIT_STRING",
    "BOOLEAN",
    "ENUMERATED",
    "GENERALIZED_TIME",
    "INTEGER",
    "OCTET_STRING",
    "OID",
    "SEQUENCE",
    "SET",
    "UTC_TIME",
    "UTF8_STRING",
    "Span",
    "boolean",
    "integer",
    "named_bits",
    "oid",
    "single",
    "split",
    "time",
    "unsigned",
]

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OID: Final = 0x06
ENUMERATED: Final = 0x0A
UTF8_STRING: Final = 0x0C
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

Span = tuple[int, int, int, int]
"""(tag, start of the element, start of its contents, end): positions in the octets that were split."""

_INTEGER_OCTETS = 4096
"""Octets of an INTEGER that is made a number: printing one of a megabyte takes seconds."""
_OID_OCTETS = 128
"""Octets of an OBJECT IDENTIFIER (`limits.asn1_oid_octets`): arcs of 400 kB cost half a minute."""


def split(data: bytes, start: int, end: int, most: int = 100_000) -> list[Span]:
    """Return the spans of the elements that fill [start, end); raise Asn1Error for anything but DER, or for more than `most`."""
    spans: list[Span] = []
    add = spans.append
    try:
        while start < end:
            tag = data[start]
            length = data[start + 1]
            content = start + 2
            if length >= 0x80:
                # X.690 §10.1: the definite form, in the fewest octets.
                count = length & 0x7F
                if not count or count > 4:
                    raise Asn1Error("a length that is not DER")
                content += count
                length = int.from_bytes(data[start + 2 : content], "big")
                if length < 0x80 or (count > 1 and not data[start + 2]):
                    raise Asn1Error("a length that is not DER")
            stop = content + length
            if stop > end:
                raise Asn1Error("an element runs past the one that holds it")
            if tag & 0x1F == 0x1F:
                raise Asn1Error("a tag number over 30")
            add((tag, start, content, stop))
            start = stop
            if len(spans) > most:
                raise Asn1Error(f"more than {most} elements in one structure")
    except IndexError:
        raise Asn1Error("the octets end within an element") from None
    return spans


def single(data: bytes, start: int, end: int, tag: int, what: str) -> Span:
    """Return the span of the one element that fills [start, end) and has this tag."""
    spans = split(data, start, end, 1)
    if len(spans) != 1 or spans[0][0] != tag:
        raise Asn1Error(f"{what}: not one element of tag 0x{tag:02x}")
    return spans[0]


@lru_cache(maxsize=4096)
def oid(content: bytes) -> str:
    """Return the dotted form of the contents of an OBJECT IDENTIFIER (X.690 §8.19)."""
    if not content or content[-1] & 0x80 or len(content) > _OID_OCTETS:
        raise Asn1Error("an object identifier that is empty, cut off or too long")
    arcs: list[int] = []
    value = 0
    fresh = True
    for octet in content:
        # X.690 §8.19.2: the fewest octets, so no arc begins with 0x80.
        if fresh and octet == 0x80:
            raise Asn1Error("an object identifier with leading zeros")
        value = value << 7 | octet & 0x7F
        fresh = not octet & 0x80
        if fresh:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def integer(data: bytes, content: int, end: int) -> int:
    """Return the number of an INTEGER's contents (X.690 §8.3)."""
    size = end - content
    if not size or size > _INTEGER_OCTETS:
        raise Asn1Error("an integer without octets, or with too many")
    if size > 1 and ((not data[content] and data[content + 1] < 0x80) or (data[content] == 0xFF and data[content + 1] >= 0x80)):
        raise Asn1Error("an integer with octets too many")
    return int.from_bytes(data[content:end], "big", signed=True)


def unsigned(data: bytes, content: int, end: int) -> int:
    """Return the number of an INTEGER's contents; raise Asn1Error for a negative one."""
    number = integer(data, content, end)
    if number < 0:
        raise Asn1Error("a negative number where none may stand")
    return number


def boolean(data: bytes, content: int, end: int) -> bool:
    """Return the value of a BOOLEAN's contents; DER writes TRUE as 0xFF (X.690 §11.1)."""
    if end - content != 1 or data[content] not in (0, 0xFF):
        raise Asn1Error("a boolean that is not DER")
    return data[content] != 0


def named_bits(data: bytes, content: int, end: int) -> int:
    """Return the bits of a BIT STRING with named bits as a number, bit 0 the lowest."""
    size = end - content
    if not size or size > 9 or data[content] > 7 or (size == 1 and data[content]):
        raise Asn1Error("a bit string that cannot be")
    bits = 0
    for index in range(content + 1, end):
        octet = data[index]
        for bit in range(8):
            if octet & 0x80 >> bit:
                bits |= 1 << (index - content - 1) * 8 + bit
    return bits


def time(data: bytes, span: Span) -> datetime:
    """Return the instant of a UTCTime or GeneralizedTime in the one form of RFC 5280 §4.1.2.5."""
    tag, _, content, end = span
    return _time(tag, data[content:end])


@lru_cache(maxsize=1024)
def _time(tag: int, text: bytes) -> datetime:
    digits = text[:-1]
    if text[-1:] != b"Z" or not digits.isdigit():
        raise Asn1Error("a time that is not in UTC to the second")
    # RFC 5280 §4.1.2.5.1: YYMMDDHHMMSSZ; a year from 50 is of the last century.
    if tag == UTC_TIME and len(digits) == 12:
        year = int(digits[:2])
        digits = (b"19" if year >= 50 else b"20") + digits
    # RFC 5280 §4.1.2.5.2: YYYYMMDDHHMMSSZ without fractions.
    elif tag != GENERALIZED_TIME or len(digits) != 14:
        raise Asn1Error("a time that is neither UTCTime nor GeneralizedTime to the second")
    try:
        return datetime(
            int(digits[:4]), int(digits[4:6]), int(digits[6:8]), int(digits[8:10]), int(digits[10:12]), int(digits[12:14]), tzinfo=UTC
        )
    except ValueError:
        raise Asn1Error("a time that does not exist") from None
