"""Adding and removing header fields without touching another octet (promise 3).

The one invariant: what comes out is the new fields, folded and ended by CRLF, and then the octets of the message in their order, less
the spans of the fields that were removed.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import MimeError
from mailsec.mime.fields import encode_field
from mailsec.model.message import HeaderField, Message
from mailsec.model.octets import Segments, Slice

__all__ = ["header_spans", "with_fields"]


def header_spans(message: Message, remove: Sequence[HeaderField]) -> list[tuple[int, int]]:
    """Return what is left of [0, header_end) without the fields `remove`, as few spans as possible, in order."""
    spans: list[tuple[int, int]] = []
    at = 0
    for field in sorted(set(remove), key=lambda one: one.start):
        if field.start < at or field.end > message.header_end:
            raise MimeError("a field to be removed is not a field of this message", stage="edit")
        if field.start > at:
            spans.append((at, field.start))
        at = field.end
    if at < message.header_end:
        spans.append((at, message.header_end))
    return spans


def with_fields(message: Message, *, add: Sequence[tuple[str, str]] = (), remove: Sequence[HeaderField] = ()) -> Segments:
    """Return the message with the fields `add` (name, value) on top, in that order, and without the fields `remove`.

    Raise MimeError where a name or value cannot be a field: it holds CR, LF or NUL, or a word that cannot be folded.
    """
    new = b"".join([encode_field(name, value) for name, value in add])
    octets = message.octets
    size = len(octets)
    if not remove:
        if not new:
            return Segments((Slice(octets, 0, size),))
        spans = [(0, size)]
    else:
        spans = header_spans(message, remove)
        if spans and spans[-1][1] == message.header_end:
            spans[-1] = (spans[-1][0], size)
        elif message.header_end < size:
            spans.append((message.header_end, size))
    pieces: list[bytes | Slice] = [Slice(octets, start, end) for start, end in spans]
    if new:
        # A first line that begins with a blank would be read as folding of our last field, and could lend it a `smime=pass`.
        # Our fields then go behind that line, which is a "field" without a name of its own.
        first = bytes(octets.view(spans[0][0], spans[0][0] + 1)) if spans else b""
        if first not in (b" ", b"\t"):
            pieces.insert(0, new)
        else:
            line = message.fields[0]
            if bytes(octets.view(line.end - 2, line.end)) != b"\r\n":  # nothing but that line: it becomes the body
                pieces.insert(0, new + b"\r\n")
            else:
                start, end = spans[0]
                pieces[:1] = [Slice(octets, start, line.end), new, Slice(octets, line.end, end)]
    return Segments(pieces)
