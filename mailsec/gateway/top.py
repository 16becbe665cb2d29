"""What TOP answers: the header with the verdict, and lines of the body only where these can be read (RFC 1939 §7).

The one invariant: no line of cipher text, nor of a message that is attached to a notice, is among them.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailsec.errors import LimitExceeded
from mailsec.gateway.mailbox import Copy
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_parts
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Part
from mailsec.model.octets import BytesOctets, Segments
from mailsec.smime.layers import is_pkcs7_mime

__all__ = ["top_of"]

_SMALL = 256 * 1024


def top_of(copy: Copy, lines: int, limits: Limits = DEFAULT_LIMITS) -> Segments:
    """The header of `copy`, the empty line, and up to `lines` lines of its body."""
    if lines and (copy.enclosed or _holds_cipher_text(copy.segments, limits)):
        lines = 0
    end = _end_of(copy.segments, lines)
    if end <= _SMALL:
        return Segments.of(b"".join(_first(copy.segments, end)))
    return Segments.produced(end, lambda: _first(copy.segments, end))


def _holds_cipher_text(segments: Segments, limits: Limits) -> bool:
    """True where a part is a CMS object; what cannot be taken apart, or is too large to look at for a few lines, is taken for one."""
    if len(segments) > limits.bulk_threshold:
        return True
    try:
        message = index_message(BytesOctets(segments.join()), limits)
        return _is_sealed(read_parts(message, limits))
    except LimitExceeded:
        return True


def _is_sealed(part: Part) -> bool:
    return is_pkcs7_mime(part) or any(map(_is_sealed, part.children))


def _end_of(segments: Segments, lines: int) -> int:
    """Where the answer ends: behind the empty line and so many line ends more."""
    at, end, held = 0, -1, b""
    for piece in segments:
        data = held + bytes(piece)
        start = at - len(held)
        if end < 0:
            # A message that begins with an empty line has no header.
            found = 0 if start == 0 and data.startswith(b"\r\n") else data.find(b"\r\n\r\n") + 2
            if found == 1:
                held = data[-3:]
                at += len(piece)
                continue
            end = start + found + 2
        position = end - start
        while lines and (found := data.find(b"\n", position)) >= 0:
            position = found + 1
            lines -= 1
        end = start + position
        if not lines:
            return end
        at += len(piece)
        held = b""
        end = at
    return len(segments)


def _first(segments: Segments, end: int) -> Iterator[bytes | memoryview]:
    at = 0
    for piece in segments:
        if at + len(piece) >= end:
            yield piece[: end - at]
            return
        yield piece
        at += len(piece)
