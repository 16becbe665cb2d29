"""DER (X.690 §10, §11): definite lengths in the fewest octets, SET OF in order. Every function returns a whole encoding.

`to_der` writes a BER element that was read anew in DER. Invariant: what is written here reads back as the same value, and is DER.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from mailsec.asn1.reader import BIT_STRING, BOOLEAN, OCTET_STRING, SET, Element
from mailsec.asn1.values import read_bit_string, read_boolean, read_octet_string
from mailsec.errors import Asn1Error

__all__ = [
    "FALSE",
    "NULL",
    "TRUE",
    "bit_string",
    "boolean",
    "enumerated",
    "explicit",
    "generalized_time",
    "header",
    "ia5_string",
    "implicit",
    "integer",
    "named_bits",
    "octet_string",
    "oid",
    "printable_string",
    "sequence",
    "set_of",
    "time",
    "to_der",
    "utc_time",
    "utf8_string",
]

NULL = b"\x05\x00"
TRUE = b"\x01\x01\xff"
FALSE = b"\x01\x01\x00"


def header(tag: int, length: int) -> bytes:
    """Identifier and length octets of an element with `length` octets of contents. `tag` as in `Element.tag`."""
    if tag < 0x100:
        if length < 0x80:
            return bytes((tag, length))
        identifier = bytes((tag,))
    else:
        identifier = tag.to_bytes((tag.bit_length() + 7) // 8, "big")
        if length < 0x80:
            return identifier + bytes((length,))
    count = (length.bit_length() + 7) // 8
    return identifier + bytes((0x80 | count,)) + length.to_bytes(count, "big")


def _element(tag: int, content: bytes) -> bytes:
    return header(tag, len(content)) + content


def sequence(*der: bytes) -> bytes:
    """SEQUENCE (or SEQUENCE OF) of encodings, in the order given."""
    return _element(0x30, b"".join(der))


def set_of(*der: bytes) -> bytes:
    """SET OF encodings."""
    # X.690 §11.6: ascending, compared as octet strings, the shorter padded with zeros; no encoding is a prefix of another.
    return _element(0x31, b"".join(sorted(der)))


def integer(value: int) -> bytes:
    """INTEGER (X.690 §8.3)."""
    return _element(0x02, value.to_bytes((value.bit_length() if value >= 0 else (~value).bit_length()) // 8 + 1, "big", signed=True))


def enumerated(value: int) -> bytes:
    """ENUMERATED (X.690 §8.4)."""
    return b"\x0a" + integer(value)[1:]


def boolean(value: bool) -> bytes:
    """BOOLEAN (X.690 §11.1)."""
    return TRUE if value else FALSE


@lru_cache(maxsize=1024)
def oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER of a dotted form; raise Asn1Error for what is none."""
    try:
        arcs = [int(arc) for arc in dotted.split(".")]
    except ValueError:
        raise Asn1Error(f"not an object identifier: {dotted[:80]!r}") from None
    if len(arcs) < 2 or min(arcs) < 0 or arcs[0] > 2 or (arcs[0] < 2 and arcs[1] > 39):
        raise Asn1Error(f"not an object identifier: {dotted[:80]!r}")
    content = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | (arc & 0x7F))
        content += bytes(reversed(groups))
    return _element(0x06, bytes(content))


def octet_string(content: bytes) -> bytes:
    """OCTET STRING."""
    return _element(0x04, content)


def bit_string(content: bytes, unused: int = 0) -> bytes:
    """BIT STRING of whole octets, the last `unused` bits of which are no part of it (and must be zero)."""
    return _element(0x03, bytes((unused,)) + content)


def named_bits(bits: Iterable[int]) -> bytes:
    """BIT STRING of a named bit list, trailing zero bits removed (X.690 §11.2.2)."""
    value = 0
    highest = -1
    for bit in bits:
        value |= 1 << bit
        highest = max(highest, bit)
    if highest < 0:
        return b"\x03\x01\x00"
    octets = bytearray(highest // 8 + 1)
    for bit in range(highest + 1):
        if value >> bit & 1:
            octets[bit >> 3] |= 0x80 >> (bit & 7)
    return bit_string(bytes(octets), 7 - highest % 8)


def explicit(number: int, der: bytes) -> bytes:
    """`der` under a context-specific EXPLICIT tag (X.690 §8.14)."""
    return _element(0xA0 | number, der)


def implicit(number: int, der: bytes) -> bytes:
    """`der` with its tag replaced by a context-specific IMPLICIT one; it stays primitive or constructed as it is."""
    return bytes((0x80 | (der[0] & 0x20) | number,)) + der[1:]


def utf8_string(text: str) -> bytes:
    """UTF8String."""
    return _element(0x0C, text.encode())


def printable_string(text: str) -> bytes:
    """PrintableString; the caller knows that its characters are of that type."""
    return _element(0x13, text.encode("ascii"))


def ia5_string(text: str) -> bytes:
    """IA5String."""
    return _element(0x16, text.encode("ascii"))


def utc_time(at: datetime) -> bytes:
    """UTCTime in seconds (X.690 §11.8)."""
    return b"\x17\x0d" + at.astimezone(UTC).strftime("%y%m%d%H%M%SZ").encode("ascii")


def generalized_time(at: datetime) -> bytes:
    """GeneralizedTime in seconds (X.690 §11.7)."""
    at = at.astimezone(UTC)
    return b"\x18\x0f" + f"{at.year:04}{at:%m%d%H%M%SZ}".encode("ascii")


def time(at: datetime) -> bytes:
    """The Time of X.509 and CMS."""
    # RFC 5280 §4.1.2.5, RFC 5652 §11.3: UTCTime from 1950 to 2049, GeneralizedTime otherwise.
    return utc_time(at) if 1950 <= at.astimezone(UTC).year < 2050 else generalized_time(at)


def to_der(element: Element) -> bytes:
    """The same value in DER: for encodings that peers sent in BER and signed in DER.

    Types under IMPLICIT tags cannot be known here: they keep their contents. Recursion is bounded by `limits.asn1_depth`.
    """
    tag = element.tag
    if tag in (OCTET_STRING, OCTET_STRING | 0x20):
        return octet_string(read_octet_string(element))
    if tag in (BIT_STRING, BIT_STRING | 0x20):
        content, unused = read_bit_string(element)
        if unused:
            # X.690 §11.2.1: unused bits are zero.
            content = content[:-1] + bytes((content[-1] >> unused << unused,))
        return bit_string(content, unused)
    if tag == BOOLEAN:
        return boolean(read_boolean(element))
    if not element.constructed:
        return _element(tag, element.content)
    children = [to_der(child) for child in element.children()]
    return _element(tag, b"".join(sorted(children) if tag == SET else children))
