"""The canonical form that survives transport, of what we sign (RFC 8551 §3.1.1 to §3.1.3).

The one invariant: decoding every leaf of what comes out gives the octets that decoding it gave before; an inner signed or encrypted part
comes out octet for octet. Where both cannot be had there is a MimeError, and the caller signs opaque.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from mailsec.errors import MimeError
from mailsec.mime.lines import BARE_CR, BARE_LF, regular_lines
from mailsec.mime.transfer import IDENTITY, base64_length, decode, encode_base64, encode_quoted_printable
from mailsec.model.message import HeaderField, Part
from mailsec.model.octets import Octets, Segments, Slice

__all__ = [
    "PROTECTED",
    "LineCheck",
    "encoding_field",
    "is_transport_proof",
    "labels_are_proof",
    "span_is_proof",
    "transport_proof",
    "transport_proof_body",
]

# RFC 8551 §3.1.3: no blanks at the end of a line, no line that begins "From "; RFC 5321 §2.3.8: no bare CR.
_BAD_AT_CR = re.compile(rb"\r(?!\n(?!From )(?<![ \t]\r\n))")
# RFC 5321 §4.5.3.1.6: a line has at most 998 octets and its CRLF.
_LONGEST = 998

_HIGH = bytes(range(128, 256))
# Text is written quoted-printable, so that people can read it, up to this much of one message; the rest is base64, which is streamed.
_READABLE_OCTETS = 1024 * 1024

PROTECTED = frozenset(
    {
        "multipart/signed",
        "multipart/encrypted",
        "application/pkcs7-mime",
        "application/x-pkcs7-mime",
        "application/pkcs7-signature",
        "application/x-pkcs7-signature",
        "application/pgp-encrypted",
        "application/pgp-signature",
    }
)
"""Media types of entities that were signed or encrypted before: not ours to change."""


def _are_proof(data: bytes) -> bool:
    """Whole lines, checked in four passes over memory and no Python for a line."""
    if not data.isascii() or b"\0" in data:
        return False
    # Without a blank, as in base64, no line ends in one and none begins "From ": the cheaper look is enough.
    blank = b" " in data or b"\t" in data
    if not blank and regular_lines(data):
        return True
    if BARE_LF.search(data) or (_BAD_AT_CR if blank else BARE_CR).search(data):
        return False
    return not data.startswith(b"From ") and _are_short(data)


def _are_short(data: bytes) -> bool:
    """True where no line is over 998 octets: one look backwards for every thousand octets."""
    size = len(data)
    at = 0
    while size - at > _LONGEST:
        at = data.rfind(b"\n", at, at + _LONGEST + 2) + 1
        if not at:
            return False
    return True


class LineCheck:
    """Checks octets as they go by, so that they need be read only once to be checked and hashed."""

    __slots__ = ("_held", "ok")

    def __init__(self) -> None:
        self.ok = True
        self._held = b""

    def update(self, block: bytes | memoryview) -> None:
        """Check the whole lines of `block`; its last one waits for its end."""
        if not self.ok:
            return
        data = self._held + bytes(block) if self._held else bytes(block)
        cut = data.rfind(b"\n") + 1
        self._held = data[cut:]
        if len(self._held) > _LONGEST + 1:
            self.ok = False
        elif cut:
            self.ok = _are_proof(data[:cut])

    def end(self) -> bool:
        """True where everything was transport-proof; the last line may lack its line end."""
        held = self._held
        return self.ok and (not held or (_are_proof(held) and held[-1:] not in (b" ", b"\t") and len(held) <= _LONGEST))


def span_is_proof(octets: Octets, start: int, end: int) -> bool:
    """True where [start, end), which begins a line, is 7-bit with short lines that no transport has a reason to touch."""
    check = LineCheck()
    for block in octets.blocks(start, end):
        check.update(block)
        if not check.ok:
            return False
    return check.end()


def labels_are_proof(part: Part) -> bool:
    """True where nothing is labelled 8bit or binary: a relay to a next hop without 8BITMIME would re-encode it for its label alone."""
    return part.encoding not in ("8bit", "binary") and all(map(labels_are_proof, part.children))


def is_transport_proof(octets: Octets, part: Part) -> bool:
    """True where the entity can be signed as it stands (RFC 8551 §3.1.3): one fast scan."""
    return labels_are_proof(part) and span_is_proof(octets, part.start, part.end)


def _header_is_proof(octets: Octets, part: Part) -> bool:
    """Headers cannot be re-encoded. A blank at the end of a folded line is left: relays do not touch it."""
    data = bytes(octets.view(part.start, part.header_end))
    if not data.isascii() or b"\0" in data or data.startswith(b"From ") or b"\nFrom " in data:
        return False
    return not BARE_CR.search(data) and not BARE_LF.search(data) and _are_short(data)


def encoding_field(encoding: str) -> bytes:
    """The Content-Transfer-Encoding field of a body that was written anew."""
    return b"Content-Transfer-Encoding: " + encoding.encode("ascii") + b"\r\n"


def transport_proof(octets: Octets, part: Part) -> Segments:
    """Return the entity in the form that survives transport. Raise MimeError where it has none: sign it opaque."""
    return Segments(_Writer(octets).entity(part))


def transport_proof_body(octets: Octets, part: Part) -> tuple[Segments, str | None]:
    """Return the body in the form that survives transport, and the encoding that it then has, None where its label stays true."""
    pieces, encoding = _Writer(octets).body(part)
    return Segments(pieces), encoding


Pieces = list[bytes | Slice | Segments]


class _Writer:
    """Goes through the tree; passes on what is proof, encodes what is not."""

    def __init__(self, octets: Octets) -> None:
        self.octets = octets
        self.readable = _READABLE_OCTETS

    def entity(self, part: Part) -> Pieces:
        if not _header_is_proof(self.octets, part):
            raise MimeError("a part's header is not transport-proof", stage="canonical", hint="sign opaque")
        body, encoding = self.body(part)
        if encoding is None:
            return [Slice(self.octets, part.start, part.body_start), *body]
        old: list[HeaderField] = [field for field in part.fields if field.name == "content-transfer-encoding"]
        if not old:
            return [Slice(self.octets, part.start, part.header_end), encoding_field(encoding), b"\r\n", *body]
        return [
            Slice(self.octets, part.start, old[0].start),
            encoding_field(encoding),
            Slice(self.octets, old[0].end, part.body_start),
            *body,
        ]

    def body(self, part: Part) -> tuple[Pieces, str | None]:
        octets = self.octets
        start, end = part.body_start, part.end
        proof = span_is_proof(octets, start, end)
        if proof and all(map(labels_are_proof, part.children)):
            return [Slice(octets, start, end)], "7bit" if part.encoding in ("8bit", "binary") else None
        if part.content_type.name in PROTECTED:
            # RFC 8551 §3.1: what was signed or encrypted before is content, not ours to change.
            raise MimeError("an inner signed or encrypted part is not transport-proof", stage="canonical", hint="sign opaque")
        if "duplicate-content-transfer-encoding" in part.problems or "duplicate-content-type" in part.problems:
            raise MimeError("a part's labels contradict each other", stage="canonical", hint="sign opaque")
        if not part.children:
            if part.content_type.type == "multipart":
                raise MimeError("a multipart without parts is not transport-proof", stage="canonical", hint="sign opaque")
            return self.leaf(part)
        if part.encoding not in IDENTITY:
            raise MimeError("a multipart with a transfer encoding is not transport-proof", stage="canonical", hint="sign opaque")
        pieces: Pieces = []
        at = start
        for child in part.children:
            self.gap(pieces, at, child.start)
            pieces += self.entity(child)
            at = child.end
        self.gap(pieces, at, end)
        return pieces, "7bit" if part.encoding in ("8bit", "binary") else None

    def gap(self, pieces: Pieces, start: int, end: int) -> None:
        """Preamble, delimiters, epilogue: passed on, or nothing can be done."""
        if start >= end:
            return
        data = bytes(self.octets.view(start, min(end, start + 2)))
        if not span_is_proof(self.octets, start + 2 if data == b"\r\n" else start, end):
            raise MimeError("what stands between the parts is not transport-proof", stage="canonical", hint="sign opaque")
        pieces.append(Slice(self.octets, start, end))

    def leaf(self, part: Part) -> tuple[Pieces, str]:
        octets = self.octets
        start, end = part.body_start, part.end
        size = end - start

        def blocks() -> Iterable[bytes | memoryview]:
            return decode(part.encoding, octets.blocks(start, end))

        if size <= self.readable and part.content_type.type == "text" and part.encoding != "base64":
            data = b"".join(blocks())
            if part.encoding == "quoted-printable" or len(data.translate(None, _HIGH)) * 6 >= len(data) * 5:
                self.readable -= size
                return [encode_quoted_printable(data)], "quoted-printable"
        # The length must be known before anything is written; an encoded part tells it only when it was decoded once.
        plain = size if part.encoding in IDENTITY else sum(map(len, blocks()))
        return [Segments.produced(base64_length(plain), lambda: encode_base64(blocks()))], "base64"
