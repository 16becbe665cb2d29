"""A message is octets with an index over them; nothing is parsed and printed again (promise 3).

Every position is an offset into `Message.octets`. `mime` makes these values; everybody else only reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mailsec.model.octets import Octets

__all__ = ["KINDS", "ContentType", "HeaderField", "Message", "Part"]

KINDS = ("report", "calendar")
"""Mail that programs read: "report" (a delivery status or a disposition notification, RFC 6522), "calendar" (an invitation, or an answer to
one, RFC 6047). Other mail is of no kind."""


class HeaderField(NamedTuple):
    """One header field: octets [start, end) of the message, line ends and folding included.

    `name` is in lower case; a line that is no field (no colon) has the name "" and value_start == start.
    """

    name: str
    start: int
    value_start: int
    """The first octet behind the colon."""
    end: int
    """Behind the last CRLF of the field."""


@dataclass(frozen=True, slots=True)
class Message:
    """Octets as received, with the spans of the outer header.

    `body_start` is the first octet of the body, behind the empty line; where there is no empty line it is the length.
    """

    octets: Octets
    fields: tuple[HeaderField, ...]
    header_end: int
    """Behind the CRLF of the last field; the empty line, if any, stands at [header_end, body_start)."""
    body_start: int

    def __len__(self) -> int:
        return len(self.octets)

    def all(self, name: str) -> list[HeaderField]:
        """The fields called `name` (lower case), in the order in which they stand."""
        return [field for field in self.fields if field.name == name]

    def raw(self, field: HeaderField) -> bytes:
        """The whole field as received, with its last CRLF."""
        return bytes(self.octets.view(field.start, field.end))

    def value(self, field: HeaderField) -> str:
        """The value with folding undone (RFC 5322 §2.2.3) and outer blanks removed; octets over 127 read as UTF-8, else latin-1."""
        raw = bytes(self.octets.view(field.value_start, field.end)).replace(b"\r\n", b"").strip(b" \t")
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def first(self, name: str) -> str | None:
        """The value of the first field called `name`, or None."""
        for candidate in self.fields:
            if candidate.name == name:
                return self.value(candidate)
        return None

    def values(self, name: str) -> list[str]:
        """The values of all fields called `name`."""
        return [self.value(candidate) for candidate in self.fields if candidate.name == name]


@dataclass(frozen=True, slots=True)
class ContentType:
    """A media type (RFC 2045 §5.1): type and subtype in lower case, parameters by lower-case name, decoded (RFC 2231)."""

    type: str
    subtype: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """ "type/subtype"."""
        return f"{self.type}/{self.subtype}"


class Part(NamedTuple):
    """One MIME entity: octets [start, end), of which the body begins at `body_start`.

    `end` leaves out the CRLF before the next boundary: that CRLF belongs to the delimiter (RFC 2046 §5.1.1), so octets
    [start, end) of the first child of a multipart/signed are exactly what was signed (RFC 1847 §2.1).
    """

    start: int
    header_end: int
    body_start: int
    end: int
    fields: tuple[HeaderField, ...]
    content_type: ContentType
    encoding: str
    """Content-Transfer-Encoding in lower case; "7bit" where absent (RFC 2045 §6.1)."""
    disposition: str
    """ "inline", "attachment", "" …"""
    filename: str
    children: tuple[Part, ...] = ()
    problems: tuple[str, ...] = ()
    """What is wrong with it: "no-close-delimiter", "bad-boundary", "duplicate-content-type" …"""
