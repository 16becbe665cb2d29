"""The message as its reader should get it, when encrypted and compressed layers were taken off.

The one invariant: the outer header's own fields stay; from inside come `Content-*` fields, and those of `header.NAMES` where the sender
protected them, and nothing else ever; and CR and LF stand in it only as CRLF, and NUL nowhere, whatever was inside (SMTP smuggling).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mailsec.errors import MimeError
from mailsec.mime.canonical import encoding_field, transport_proof_body
from mailsec.mime.lines import BARE_CR, BARE_LF, regular_lines, to_crlf
from mailsec.mime.multipart import outer_header
from mailsec.mime.spans import OctetsSpan
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message, Part
from mailsec.model.octets import Octets, Segments, Slice
from mailsec.model.verdict import Reason
from mailsec.smime.header import CoveredHeader, line_of, same_author

__all__ = ["clear_message"]

_DOT_LINE: Final = re.compile(rb"[\r\n]\.[\r\n]")
_RFC: Final = "RFC 5321 §2.3.8"
_WORTHWHILE: Final = 4096


def clear_message(
    message: Message, octets: Octets, part: Part, header: CoveredHeader, limits: Limits = DEFAULT_LIMITS
) -> tuple[Segments, tuple[Reason, ...]]:
    """The message with the entity `part` of `octets` as its content, and what was changed for that. `header` is what the layers cover."""
    reasons: list[Reason] = []
    lines = dict(header.lines) if header.replaces else {}
    if ("from" in lines or "from" in header.repeated) and not same_author(message, header, limits):
        # RFC 9788 §4.4: an author whom nobody but the inside names is not shown as the author. Attack: somebody sends a recorded message in
        # their own name; its subject and its Reply-To would be taken for theirs.
        lines.clear()
    body, encoding = _body(octets, part, reasons)
    content: list[bytes] = list(lines.values())
    for field in part.fields:
        if field.name.startswith("content-") and (encoding is None or field.name != "content-transfer-encoding"):
            content.append(line_of(octets, field))
    if encoding is not None:
        content.append(encoding_field(encoding))
    content.append(b"\r\n")
    return Segments((*outer_header(message, frozenset(lines)), b"".join(content), *body.pieces)), tuple(reasons)


def _body(octets: Octets, part: Part, reasons: list[Reason]) -> tuple[Segments, str | None]:
    start, end = part.body_start, part.end
    span = OctetsSpan(octets, start, end)
    loose, nul, dot = _scan(span)
    if dot:
        # Our clients double every leading dot; whoever passes it on must too.
        reasons.append(Reason("dot-line", "delivery", "a line of a single dot stands in what was encrypted", rfc="RFC 5321 §4.5.2"))
    if not loose and not nul:
        return Segments((Slice(octets, start, end),)), None
    what = " and ".join([*(["bare CR or LF"] if loose else []), *(["NUL"] if nul else [])])
    text = f"{what} in what was encrypted; the delivered copy was encoded anew"
    reasons.append(Reason("normalised", "delivery", text, "it may be an attempt to smuggle a second message", _RFC))
    try:
        return transport_proof_body(octets, part)
    except MimeError:
        # Something signed is inside, or labels that contradict each other: what cannot travel cannot be kept as it is.
        whole = to_crlf(span)
        return (Segments.produced(len(whole), lambda: _without_nul(whole)) if nul else whole), None


def _without_nul(content: Segments) -> Iterator[bytes]:
    for block in content:
        yield bytes(block).replace(b"\0", b" ")


def _scan(octets: Octets) -> tuple[bool, bool, bool]:
    """In one pass: CR or LF that is no CRLF, NUL, a line of a single dot."""
    loose = nul = dot = False
    last = b"\r\n"
    for block in octets.blocks():
        for data in _irregular(bytes(block)):
            # A CRLF may be shared by two blocks.
            shared = last[-1:] == b"\r" and data[:1] == b"\n"
            held = data[-1:] == b"\r"
            loose = (
                loose
                or BARE_LF.search(data, shared) is not None
                or BARE_CR.search(data, 0, len(data) - held) is not None
                or (last[-1:] == b"\r" and not shared)
            )
            nul = nul or b"\0" in data
            # The shorter pattern is looked for where it alone could stand: it costs as much as all the rest.
            if not dot:
                dot = (
                    b"\r\n.\r\n" in data or _DOT_LINE.search(last + data[:3]) is not None or (loose and _DOT_LINE.search(data) is not None)
                )
            last = (last + data[-3:])[-3:]
    return loose or last[-1:] == b"\r", nul, dot or last.endswith((b"\n.", b"\r."))


def _irregular(data: bytes) -> Iterator[bytes]:
    """The block without its middle, where that is lines of one width, as in base64: they hold none of what is looked for."""
    start, end = data.find(b"\r\n", 0, 1000) + 2, data.rfind(b"\n") + 1
    middle = data[start:end]
    # A line of one octet might be the dot; and what stays of the middle must show what stands before the rest.
    if len(middle) < _WORTHWHILE or b"\0" in middle or regular_lines(middle) < 2:
        yield data
        return
    yield data[:start]
    yield data[end - 4 : end]
    if end < len(data):
        yield data[end:]
