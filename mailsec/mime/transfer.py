"""Content-Transfer-Encodings, in blocks (RFC 2045 §6): base64 and quoted-printable, both ways, in constant memory.

The one invariant: what is decoded is either exactly what was encoded or a MimeError; nothing is guessed. Ignored are only the line ends
and blanks that RFC 2045 lets a reader ignore.
"""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import pybase64

from mailsec.errors import MimeError
from mailsec.model.octets import Segments

__all__ = [
    "IDENTITY",
    "base64_length",
    "base64_segments",
    "decode",
    "decode_word",
    "encode_base64",
    "encode_quoted_printable",
]

IDENTITY = frozenset({"7bit", "8bit", "binary"})
"""RFC 2045 §6.2: encodings that change nothing."""

# RFC 2045 §6.8: lines of at most 76 characters; 57 octets fill one.
_LINE_IN = 57
_LINE_OUT = 76
# 57 * 1536 octets in, 119,808 out: see `model.octets.BLOCK`.
_CHUNK = _LINE_IN * 1536
# Smaller pieces are gathered into whole lines before they are encoded.
_GATHERED = _LINE_IN * 64
_LONGEST = 1000
_BLANKS = b" \t\r\n"

_ESCAPES = [b"=%02X" % octet for octet in range(256)]
_UNSAFE = re.compile(rb"[^\t -<>-~]")
# RFC 2045 §6.7 (5): lines of at most 76 characters with the "=" of a soft line break, cut between escapes; two are left for "=46".
_PIECE_OCTETS = 73
_PIECE = re.compile(rb".{1,%d}(?<!=)(?<!=.)" % _PIECE_OCTETS)


def base64_length(size: int) -> int:
    """Octets of `size` octets in base64 with CRLF behind every line of 76 characters, the last one included."""
    characters = (size + 2) // 3 * 4
    return characters + 2 * ((characters + _LINE_OUT - 1) // _LINE_OUT)


class _Cut(NamedTuple):
    """How a number of characters is cut into lines of 76."""

    lines: struct.Struct
    """To take the characters of the lines apart."""
    places: struct.Struct
    """To put them where they belong, with room for CRLF behind each."""
    cr: bytes
    lf: bytes


@lru_cache(maxsize=32)
def _cut(count: int) -> _Cut:
    return _Cut(struct.Struct("76s" * count), struct.Struct("76s2x" * count), b"\r" * count, b"\n" * count)


def _wrap(data: bytes | memoryview) -> bytes:
    """One call for all octets, one to cut them into lines, one to put those in their places: 20 times as fast as line by line."""
    encoded = pybase64.b64encode(data)
    whole, rest = divmod(len(encoded), _LINE_OUT)
    if not whole:
        return encoded + b"\r\n" if encoded else b""
    cut = _cut(whole)
    lines = bytearray(cut.places.size)
    cut.places.pack_into(lines, 0, *cut.lines.unpack_from(encoded))
    lines[_LINE_OUT :: _LINE_OUT + 2] = cut.cr
    lines[_LINE_OUT + 1 :: _LINE_OUT + 2] = cut.lf
    if rest:
        lines += encoded[-rest:]
        lines += b"\r\n"
    return bytes(lines)


def encode_base64(blocks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Encode in lines of 76 characters that end in CRLF (RFC 2045 §6.8)."""
    held = b""
    for block in blocks:
        view = memoryview(block)
        at = 0
        if held or len(view) < _GATHERED:
            if len(held) + len(view) < _GATHERED:
                held += view
                continue
            # Just the octets that fill the line that was begun: to copy the block costs as much as to encode it.
            at = -len(held) % _LINE_IN
            yield _wrap(held + view[:at])
        end = len(view) - (len(view) - at) % _LINE_IN
        for start in range(at, end, _CHUNK):
            yield _wrap(view[start : min(start + _CHUNK, end)])
        held = bytes(view[end:])
    if held:
        yield _wrap(held)


def base64_segments(content: Segments) -> Segments:
    """The base64 of `content`, produced as it is written."""
    if len(content) <= _CHUNK:
        return Segments((_wrap(content.join()),))
    return Segments.produced(base64_length(len(content)), lambda: encode_base64(content))


class _Strict:
    """base64 in any lines: only its alphabet, blanks and line ends, padding at the very end."""

    __slots__ = ("ended", "held")

    def __init__(self) -> None:
        self.held = b""
        self.ended = False

    def decode(self, data: bytes) -> bytes:
        # RFC 2045 §6.8: line ends are ignored. Other characters outside the alphabet may be ignored too, but are a sign of damage,
        # and two readers that ignore different ones see different content: they are refused.
        data = data.translate(None, _BLANKS)
        if not data:
            return b""
        if self.ended:
            raise MimeError("base64 goes on behind its end", stage="parse")
        data = self.held + data
        cut = len(data) - len(data) % 4
        self.held = data[cut:]
        if not cut:
            return b""
        self.ended = data[cut - 1] == 0x3D
        return _decode_quanta(data[:cut])

    def end(self) -> bytes:
        held = self.held
        if not held:
            return b""
        if self.ended:
            raise MimeError("base64 goes on behind its end", stage="parse")
        if len(held) == 1 or b"=" in held:
            raise MimeError("base64 is cut off", stage="parse")
        # Padding that is missing at the very end loses nothing.
        return _decode_quanta(held + b"=" * (4 - len(held)))


def _decode_base64(blocks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    strict = _Strict()
    begun = b""  # a line
    for block in blocks:
        data = begun + bytes(block) if begun else bytes(block)
        at = 0
        if not strict.held and not strict.ended:
            plain, at = _decode_regular(data)
            if plain:
                yield plain
        # What is left is the last line of a body, or lines of another width.
        cut = max(data.rfind(b"\n", at) + 1, at)
        if len(data) - cut > _LONGEST:
            cut = len(data)
        begun = data[cut:]
        plain = strict.decode(data[at:cut])
        if plain:
            yield plain
    for plain in (strict.decode(begun), strict.end()):
        if plain:
            yield plain


def _decode_regular(data: bytes) -> tuple[bytes, int]:
    """What stands first, in lines of one width, of whole quanta, without padding, and where that ends; (b"", 0) where anything else stands
    among as many lines. Twice as fast as `_Strict`."""
    width = data.find(b"\r\n", 0, _LONGEST)
    if width < 4 or width % 4:
        return b"", 0
    count = len(data) // (width + 2)
    end = count * (width + 2)
    if data[width : end : width + 2] != b"\r" * count or data[width + 1 : end : width + 2] != b"\n" * count:
        return b"", 0
    try:
        plain = pybase64.b64decode(data[:end])
    except (binascii.Error, ValueError):
        return b"", 0
    # What is no character of the alphabet was passed over: where nothing was besides the line ends, the length is right.
    return (plain, end) if len(plain) == width // 4 * 3 * count else (b"", 0)


def _decode_quanta(data: bytes) -> bytes:
    try:
        return pybase64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MimeError("not base64", stage="parse") from error


def _decode_quoted_printable(blocks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    held = b""
    for block in blocks:
        data = held + bytes(block)
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > _CHUNK:
            raise MimeError("a quoted-printable line is too long", stage="parse")
        held = data[cut:]
        if cut:
            yield _decode_lines(data[:cut])
    if held:
        yield _decode_lines(held)


def _decode_lines(data: bytes) -> bytes:
    # RFC 2045 §6.7 (3): blanks at the end of an encoded line were added on the way and are deleted.
    if b" \r\n" in data or b"\t\r\n" in data or data[-1:] in b" \t":
        data = b"\r\n".join([line.rstrip(b" \t") for line in data.split(b"\r\n")])
    return binascii.a2b_qp(data)


def decode(encoding: str, blocks: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Undo a Content-Transfer-Encoding (in lower case); raise MimeError for an unknown one and for what is not in it."""
    if encoding in IDENTITY:
        return iter(blocks)
    if encoding == "base64":
        return _decode_base64(blocks)
    if encoding == "quoted-printable":
        return _decode_quoted_printable(blocks)
    # RFC 2045 §6.4: an entity in an unknown encoding is application/octet-stream, whatever it says.
    raise MimeError(f"unknown Content-Transfer-Encoding {encoding[:40]!r}", stage="parse")


def encode_quoted_printable(data: bytes) -> bytes:
    """Encode text (RFC 2045 §6.7): CRLF stays a line end; bare CR and LF, NUL, octets over 127, and blanks at line ends are encoded.

    Lines that begin `From ` are encoded too (RFC 8551 §3.1.3), since transports write ">" before them.
    """
    lines: list[bytes] = []
    for line in data.split(b"\r\n"):
        line = _UNSAFE.sub(_escape, line)
        if line[-1:] in (b" ", b"\t"):
            line = line[:-1] + _ESCAPES[line[-1]]
        pieces = _PIECE.findall(line) if len(line) > _PIECE_OCTETS else [line]
        lines.append(b"=\r\n".join([b"=46" + piece[1:] if piece.startswith(b"From ") else piece for piece in pieces]))
    return b"\r\n".join(lines)


def _escape(match: re.Match[bytes]) -> bytes:
    return _ESCAPES[match.group()[0]]


def decode_word(encoding: str, text: str) -> bytes | None:
    """The octets of an encoded word's text (RFC 2047 §4), or None where it is not in its encoding."""
    try:
        raw = text.encode("ascii")
        if encoding in "bB":
            return pybase64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return None
    # RFC 2047 §4.2: an underscore is a blank.
    return binascii.a2b_qp(raw, header=True)
