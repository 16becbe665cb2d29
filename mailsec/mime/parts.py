"""The tree of a message's parts, as spans (RFC 2046 §5.1, §5.2.1; RFC 1847 §2.1).

The one invariant: the span of a child lies within the body of its parent, behind the one before; so the first child of a multipart/signed
is exactly what was signed, octet for octet. What is wrong stands in `Part.problems`; only limits raise.
"""

from __future__ import annotations

import re

from mailsec.errors import LimitExceeded
from mailsec.mime.fields import DEFAULT_CONTENT_TYPE, decode_words, read_content_type, read_parameterised, without_comments
from mailsec.mime.index import field_value, index_header
from mailsec.mime.transfer import IDENTITY
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import ContentType, HeaderField, Message, Part
from mailsec.model.octets import Octets

__all__ = ["read_entity", "read_parts", "walk"]

# RFC 2046 §5.1.1: delimiter and close-delimiter end in transport padding and a line end; without that it is another line, such as
# the delimiter of an inner multipart whose boundary begins with ours.
_REST_OF_DELIMITER = re.compile(rb"(--)?[ \t]*(\r\n)?")
_PADDING = 1000
_BAD_BOUNDARY = re.compile(r"[\x00-\x1f\x7f]")
_MESSAGE = ContentType("message", "rfc822", DEFAULT_CONTENT_TYPE.parameters)
# Lines that begin like a delimiter and are none, for each part that is allowed.
_FALSE_DELIMITERS = 100


def read_parts(message: Message, limits: Limits = DEFAULT_LIMITS) -> Part:
    """The tree of a whole message. Raise LimitExceeded ("mime_depth", "mime_parts", and those of headers), nothing else."""
    reader = _Reader(message.octets, limits)
    return reader.entity(0, len(message.octets), 0, DEFAULT_CONTENT_TYPE, (message.fields, message.header_end, message.body_start))


def read_entity(octets: Octets, start: int, end: int, limits: Limits = DEFAULT_LIMITS) -> Part:
    """The tree of the entity (header and body) at [start, end)."""
    return _Reader(octets, limits).entity(start, end, 0, DEFAULT_CONTENT_TYPE, None)


def walk(part: Part) -> list[Part]:
    """The part and all parts below it, in the order of their octets."""
    found = [part]
    for child in part.children:
        found += walk(child)
    return found


class _Reader:
    """Counts over all parts of one tree."""

    def __init__(self, octets: Octets, limits: Limits) -> None:
        self.octets = octets
        self.limits = limits
        self.parts = 0
        self.false_delimiters = limits.mime_parts * _FALSE_DELIMITERS

    def entity(
        self, start: int, end: int, depth: int, default: ContentType, header: tuple[tuple[HeaderField, ...], int, int] | None
    ) -> Part:
        self.parts += 1
        if self.parts > self.limits.mime_parts:
            raise LimitExceeded("mime_parts", f"the message has more than {self.limits.mime_parts} parts", stage="parse")
        if depth > self.limits.mime_depth:
            raise LimitExceeded("mime_depth", f"parts are nested deeper than {self.limits.mime_depth}", stage="parse")
        fields, header_end, body_start = header or index_header(self.octets, start, end, self.limits)
        problems: list[str] = []
        content_type, encoding, disposition, filename = self._labels(fields, default, problems)
        children: tuple[Part, ...] = ()
        if content_type.type == "multipart":
            if encoding not in IDENTITY:
                # RFC 2045 §6.4: no other encoding is allowed for a multipart; readers ignore the label.
                problems.append("encoded-multipart")
            child_default = _MESSAGE if content_type.subtype == "digest" else DEFAULT_CONTENT_TYPE
            spans = self._children(content_type, start, body_start, end, problems)
            children = tuple([self.entity(first, last, depth + 1, child_default, None) for first, last in spans])
        elif content_type.type == "message" and content_type.subtype in ("rfc822", "global") and encoding in IDENTITY:
            # RFC 2046 §5.2.1: the body is a message.
            children = (self.entity(body_start, end, depth + 1, DEFAULT_CONTENT_TYPE, None),)
        return Part(start, header_end, body_start, end, fields, content_type, encoding, disposition, filename, children, tuple(problems))

    def _labels(self, fields: tuple[HeaderField, ...], default: ContentType, problems: list[str]) -> tuple[ContentType, str, str, str]:
        """Content-Type, -Transfer-Encoding, and the value and file name of -Disposition. The first of several fields counts."""
        content_type: ContentType | None = None
        encoding = disposition = filename = ""
        for field in fields:
            name = field.name
            if not name.startswith("content-"):
                continue
            if name == "content-type":
                if content_type is not None:
                    # One reader takes the first, another one the last: they see different messages.
                    problems.append("duplicate-content-type")
                    continue
                content_type, wrong = read_content_type(field_value(self.octets, field))
                problems += wrong
            elif name == "content-transfer-encoding":
                if encoding:
                    problems.append("duplicate-content-transfer-encoding")
                    continue
                encoding = without_comments(field_value(self.octets, field)).strip(' \t\r\n";').lower()
            elif name == "content-disposition" and not disposition:
                read = read_parameterised(field_value(self.octets, field))
                disposition = read.value
                filename = decode_words(read.parameters.get("filename", ""))
        if content_type is None:
            content_type = default
        elif not filename:
            filename = decode_words(content_type.parameters.get("name", ""))
        # RFC 2045 §6.1: 7bit is the default.
        return content_type, encoding or "7bit", disposition, filename

    def _children(self, content_type: ContentType, start: int, body_start: int, end: int, problems: list[str]) -> list[tuple[int, int]]:
        """The spans of the body parts of a multipart (RFC 2046 §5.1.1)."""
        # RFC 2046 §5.1.1: a boundary does not end in a blank.
        boundary = content_type.parameters.get("boundary", "").rstrip(" \t")
        if not boundary:
            problems.append("no-boundary")
            return []
        delimiter = b"\r\n--" + boundary.encode("utf-8", "replace")
        if len(delimiter) - 4 > self.limits.boundary_octets or _BAD_BOUNDARY.search(boundary):
            problems.append("bad-boundary")
            return []
        octets = self.octets
        spans: list[tuple[int, int]] = []
        opened = -1  # where the part begins that is not yet ended
        # The CRLF before the first delimiter may be that of the empty line.
        at = max(start, body_start - 2)
        while True:
            found = octets.find(delimiter, at, end)
            if found < 0:
                break
            behind = found + len(delimiter)
            rest = bytes(octets.view(behind, min(end, behind + _PADDING)))
            match = _REST_OF_DELIMITER.match(rest)
            assert match is not None
            if match.group(2) is None and behind + match.end() != end:
                self.false_delimiters -= 1
                if self.false_delimiters < 0:
                    raise LimitExceeded("mime_parts", "too many lines begin like a boundary", stage="parse")
                at = found + 2
                continue
            if opened >= 0:
                # RFC 2046 §5.1.1: the CRLF before the delimiter belongs to the delimiter, not to the part.
                spans.append((opened, max(opened, found)))
            if match.group(1):
                return spans
            opened = behind + match.end()
            if len(spans) > self.limits.mime_parts:
                raise LimitExceeded("mime_parts", f"the message has more than {self.limits.mime_parts} parts", stage="parse")
            # The line end of a delimiter may be the CRLF that begins the next one.
            at = opened - 2 if match.group(2) else opened
        if opened >= 0:
            spans.append((opened, end))
            problems.append("no-close-delimiter")
        else:
            problems.append("no-parts")
        return spans
