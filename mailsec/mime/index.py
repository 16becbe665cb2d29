"""Where the header fields of a message or part stand (RFC 5322 §2.1, §2.2).

The one invariant: the spans of the fields touch each other, begin at the start, and end at `header_end`; so whatever the octets are,
putting the spans back together gives the octets again. Only CRLF ends a line. A line that is no field is kept under the name "".
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailsec.errors import LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import HeaderField, Message
from mailsec.model.octets import Octets

__all__ = ["disguised_name", "field_value", "index_header", "index_message"]

# RFC 5322 §2.2.3: a CRLF that no blank follows ends a field; one before a blank is folding.
_END_OF_FIELD = re.compile(rb"\r\n(?![ \t])")
# RFC 5322 §2.2: a field name is printable US-ASCII without the colon. RFC 5322 §4.5: readers allow blanks before the colon
# (a From field that is written "From :" is a From field, or it would hide from our checks and show in the reader).
_NAME = re.compile(rb"[!-9;-~]+(?=[ \t]*\Z)")
_NO_NAME = re.compile(rb"[^!-9;-~]")
_CACHED_NAME = 64
_WINDOW = 8192


def _read_name(raw: bytes) -> str:
    match = _NAME.match(raw)
    return match.group().decode("ascii").lower() if match else ""


# Names repeat from message to message. Only short ones are kept, so that a hostile header cannot fill memory.
_known_name = lru_cache(maxsize=2048)(_read_name)


def index_header(
    octets: Octets, start: int = 0, end: int | None = None, limits: Limits = DEFAULT_LIMITS
) -> tuple[tuple[HeaderField, ...], int, int]:
    """Return (fields, header_end, body_start) of the message or part at [start, end); raise LimitExceeded.

    Any octets give an answer: where there is no empty line everything is header.
    """
    if end is None:
        end = len(octets)
    if bytes(octets.view(start, min(start + 2, end))) == b"\r\n":
        return (), start, start + 2
    # Headers are short: a whole megabyte is looked at only where the first octets hold no end.
    for window in (_WINDOW, limits.header_octets + 4):
        raw = bytes(octets.view(start, min(end, start + window)))
        stop = raw.find(b"\r\n\r\n")
        if stop >= 0 or start + len(raw) >= end:
            break
    if stop >= 0:
        size = stop + 2
        body_start = start + stop + 4
    elif start + len(raw) < end:
        raise LimitExceeded("header_octets", f"the header is longer than {limits.header_octets} octets", stage="parse")
    else:
        size = len(raw)
        body_start = end
    if size > limits.header_octets:
        raise LimitExceeded("header_octets", f"the header is longer than {limits.header_octets} octets", stage="parse")
    fields: list[HeaderField] = []
    at = 0
    # RFC 5322 §2.2.3: the ends of all fields at once; where the last line has no CRLF, the end of the header ends it.
    ends = [match.end() for match in _END_OF_FIELD.finditer(raw, 0, size)]
    if size > (ends[-1] if ends else 0):
        ends.append(size)
    if len(ends) > limits.header_fields:
        raise LimitExceeded("header_fields", f"the header has more than {limits.header_fields} fields", stage="parse")
    longest = limits.header_field_octets
    for after in ends:
        colon = raw.find(b":", at, after)
        if after - at > longest:
            raise LimitExceeded("header_field_octets", f"a header field is longer than {longest} octets", stage="parse")
        if colon < 0:
            name = ""
        elif colon - at <= _CACHED_NAME:
            name = _known_name(raw[at:colon])
        else:
            name = _read_name(raw[at:colon])
        fields.append(HeaderField(name, start + at, start + colon + 1 if name else start + at, start + after))
        at = after
    return tuple(fields), start + size, body_start


def index_message(octets: Octets, limits: Limits = DEFAULT_LIMITS) -> Message:
    """Find the header of a message; the body is not looked at. Raise LimitExceeded for a header over the limits, nothing else."""
    fields, header_end, body_start = index_header(octets, 0, None, limits)
    return Message(octets, fields, header_end, body_start)


def field_value(octets: Octets, field: HeaderField) -> str:
    """The value with folding undone (RFC 5322 §2.2.3) and outer blanks removed; octets over 127 read as UTF-8, else latin-1."""
    raw = bytes(octets.view(field.value_start, field.end)).replace(b"\r\n", b"").strip(b" \t")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def disguised_name(octets: Octets, field: HeaderField) -> str:
    """For a line that is no field to us: the field name that a careless reader may see in it; "" for none.

    Blanks, NULs and octets over 127 are left out, as in " From: x" at the very top, or "Fr\\0om: x".
    """
    head, colon, _ = bytes(octets.view(field.start, min(field.end, field.start + 256))).partition(b":")
    return _NO_NAME.sub(b"", head).decode("ascii").lower() if colon else ""
