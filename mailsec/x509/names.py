"""Distinguished names: as octets, as text for people (RFC 4514), and in the form in which they are compared (RFC 5280 §7.1).

Text is printed to terminals, logs and header fields: every control character, line separator, bidi control and unassigned character
is escaped, so that a name cannot look like another one or end a line. Names of up to 2 KiB are read once and kept.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

from mailsec.errors import Asn1Error
from mailsec.x509 import der

__all__ = ["EMAIL_ADDRESS", "Attribute", "Name", "Rdn", "printable"]

EMAIL_ADDRESS: Final = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"
"""Contents octets of the OID of emailAddress (PKCS #9, RFC 2985 §5.2.1)."""

Attribute = tuple[bytes, int, bytes]
"""(contents octets of the type's OID, tag of the value, contents octets of the value)."""
Rdn = tuple[Attribute, ...]

# RFC 4514 §3 names nine; the rest are the names that RFC 4519, RFC 2985 and OpenSSL print.
_SHORT: Final = {
    "2.5.4.3": "CN",
    "2.5.4.4": "SN",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.12": "title",
    "2.5.4.17": "postalCode",
    "2.5.4.42": "GN",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
    "1.2.840.113549.1.9.1": "emailAddress",
}

_CODECS: Final = {
    0x0C: "utf-8",
    0x12: "ascii",
    0x13: "ascii",
    0x14: "latin-1",
    0x16: "ascii",
    0x1A: "ascii",
    0x1C: "utf-32-be",
    0x1E: "utf-16-be",
}
"""How the string types are read: UTF8, Numeric, Printable, T61 (as everybody does: latin-1), IA5, Visible, Universal, BMP."""

_KEPT = 2048
_MOST_RDNS = 2000
_MOST_NORMALISED = 1024
_PLAIN = re.compile(r"[A-Za-z0-9 .,'()/:=?@_&*!+-]*\Z")
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 .'()/:?@_&*!-]*[A-Za-z0-9.'()/:?@_&*!-])?\Z")
_SPACES = re.compile(r"\s+")
_UNSEEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn"})


def printable(text: str) -> str:
    """Return `text` with every character that a reader cannot see, or that moves others, written as its UTF-8 octets: "\\0A"."""
    if _PLAIN.match(text):
        return text
    return "".join(character if _is_seen(character) else _escaped(character) for character in text)


def _is_seen(character: str) -> bool:
    if character == " " or "!" <= character <= "~":
        return True
    category = unicodedata.category(character)
    return category not in _UNSEEN and category != "Zs"


def _escaped(character: str) -> str:
    return "".join(f"\\{octet:02X}" for octet in character.encode("utf-8", "surrogatepass"))


class Name:
    """One distinguished name. Equality is of octets; `matches` compares as RFC 5280 §7.1 does."""

    __slots__ = ("der",)

    def __init__(self, encoding: bytes) -> None:
        self.der = encoding

    def __repr__(self) -> str:
        return f"<Name {self.text}>"

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Name) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    @property
    def rdns(self) -> tuple[Rdn, ...]:
        """The relative names, most general first; raise Asn1Error where the octets are no name."""
        return (_kept_rdns if len(self.der) <= _KEPT else _rdns)(self.der)

    @property
    def text(self) -> str:
        """RFC 4514: most specific first; octets that are no name stand as "#" and hexadecimal."""
        return (_kept_text if len(self.der) <= _KEPT else _text)(self.der)

    @property
    def key(self) -> bytes | tuple[frozenset[tuple[bytes, str | bytes]], ...]:
        """The form in which names are compared; the octets themselves where they are no name."""
        return (_kept_key if len(self.der) <= _KEPT else _key)(self.der)

    @property
    def is_empty(self) -> bool:
        """True for a name without a relative name."""
        return self.der == b"\x30\x00"

    def matches(self, other: Name) -> bool:
        """RFC 5280 §7.1: whether the two name the same."""
        return self.der == other.der or self.key == other.key

    def common_name(self) -> str:
        """The most specific commonName, printable; "" where there is none."""
        return next((printable(decode(tag, value)) for tag, value in reversed(self.values(b"\x55\x04\x03"))), "")

    def values(self, oid: bytes) -> list[tuple[int, bytes]]:
        """(tag, contents) of the attributes of this type, most general first; none where the octets are no name."""
        try:
            return [(tag, value) for rdn in self.rdns for kind, tag, value in rdn if kind == oid]
        except Asn1Error:
            return []


def decode(tag: int, value: bytes) -> str:
    """Return the text of a string type; octets that its type forbids become U+FFFD."""
    return value.decode(_CODECS.get(tag, "latin-1"), "replace")


def _rdns(encoding: bytes) -> tuple[Rdn, ...]:
    _, _, content, end = der.single(encoding, 0, len(encoding), der.SEQUENCE, "name")
    rdns: list[Rdn] = []
    for tag, _, start, stop in der.split(encoding, content, end, _MOST_RDNS):
        if tag != der.SET or start == stop:
            raise Asn1Error("a relative name that is not a set of attributes")
        rdn: list[Attribute] = []
        for attribute in der.split(encoding, start, stop, _MOST_RDNS):
            parts = der.split(encoding, attribute[2], attribute[3], 2)
            if attribute[0] != der.SEQUENCE or len(parts) != 2 or parts[0][0] != der.OID:
                raise Asn1Error("an attribute that is not a type and a value")
            rdn.append((encoding[parts[0][2] : parts[0][3]], parts[1][0], encoding[parts[1][2] : parts[1][3]]))
        rdns.append(tuple(rdn))
    return tuple(rdns)


def _text(encoding: bytes) -> str:
    try:
        return ",".join("+".join(map(_attribute_text, rdn)) for rdn in reversed(_rdns(encoding)))
    except Asn1Error:
        return "#" + encoding[:64].hex()


def _attribute_text(attribute: Attribute) -> str:
    kind, tag, value = attribute
    dotted = der.oid(kind)
    short = _SHORT.get(dotted)
    # RFC 4514 §2.4: a type without a short name, or a value that is no string, stands as "#" and the hexadecimal of its BER.
    if short is None or tag not in _CODECS:
        shown = value[:256]
        return f"{short or dotted}=#{tag:02x}{len(shown):02x}{shown.hex()}"
    text = decode(tag, value)
    if _PLAIN_VALUE.match(text):
        return f"{short}={text}"
    # RFC 4514 §2.4: these are escaped by a backslash, blanks and "#" where they lead or end.
    out: list[str] = []
    last = len(text) - 1
    for index, character in enumerate(text):
        if character in '",+;<>\\' or (character == " " and index in (0, last)) or (character == "#" and not index):
            out.append("\\" + character)
        else:
            out.append(character if _is_seen(character) else _escaped(character))
    return f"{short}={''.join(out)}"


def _key(encoding: bytes) -> bytes | tuple[frozenset[tuple[bytes, str | bytes]], ...]:
    try:
        return tuple(frozenset((kind, compared(tag, value)) for kind, tag, value in rdn) for rdn in _rdns(encoding))
    except Asn1Error:
        return encoding


def compared(tag: int, value: bytes) -> str | bytes:
    """Return an attribute's value in the form in which it is compared; of types that are no strings, tag and octets.

    RFC 5280 §7.1: strings are compared after the profile of RFC 4518: case folded, NFKC, blanks at the ends removed and in between
    made one, whatever string type they are written in. Text that its type forbids equals only the same octets.
    """
    codec = _CODECS.get(tag)
    if codec is not None:
        try:
            text = value.decode(codec)
        except UnicodeDecodeError:
            return bytes((tag,)) + value
        if not text.isascii():
            # Putting combining characters in order costs quadratic time: a name of 4 MiB of them, hours. Attributes of people
            # and authorities have at most 64 to 256 characters (RFC 5280 appendix A.1); much longer ones equal only the same octets.
            if len(text) > _MOST_NORMALISED:
                return bytes((tag,)) + value
            text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        else:
            text = text.lower()
        return _SPACES.sub(" ", text.strip())
    return bytes((tag,)) + value


_kept_rdns = lru_cache(maxsize=1024)(_rdns)
_kept_text = lru_cache(maxsize=1024)(_text)
_kept_key = lru_cache(maxsize=1024)(_key)
