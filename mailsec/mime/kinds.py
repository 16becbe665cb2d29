"""Which mail is read by programs, not by people: reports (RFC 6522) and invitations (RFC 6047).

They are by default neither signed nor wrapped, because the programs that wait for them do not look inside. Nothing that decides about
secrecy rests on this: who writes a message chooses its kind.
"""

from __future__ import annotations

from typing import Final

from mailsec.errors import LimitExceeded
from mailsec.mime.fields import content_type
from mailsec.mime.parts import read_parts
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message, Part

__all__ = ["kind_of"]

_CALENDAR: Final = b"text/calendar"
_LOOKED_AT: Final = 1024 * 1024
"""Octets of the body in which an invitation is looked for: it stands in front of what is attached to it."""
_DEPTH: Final = 3


def kind_of(message: Message, limits: Limits = DEFAULT_LIMITS) -> str:
    """A word of `model.message.KINDS`, or ""."""
    value = message.first("content-type")
    if value is None:
        return ""
    kind = content_type(value)
    # RFC 6522 §3: the type of every report, whatever it is about.
    if kind.name == "multipart/report":
        return "report"
    if kind.name == "text/calendar":
        return "calendar"
    if kind.type != "multipart" or kind.subtype == "signed":
        return ""
    if message.octets.find(_CALENDAR, message.body_start, min(len(message), message.body_start + _LOOKED_AT)) < 0:
        return ""
    try:
        return "calendar" if _invites(read_parts(message, limits), _DEPTH) else ""
    except LimitExceeded:
        return ""


def _invites(part: Part, depth: int) -> bool:
    """RFC 6047 §2.4: text/calendar with a method, by itself or as one form of the text. An attached calendar is no invitation."""
    if part.content_type.name == "text/calendar":
        return part.disposition != "attachment" and "method" in part.content_type.parameters
    if part.content_type.type != "multipart" or not depth:
        return False
    # Of a mixture the first part is the text; the others are attached to it.
    among = part.children if part.content_type.subtype == "alternative" else part.children[:1]
    return any(_invites(child, depth - 1) for child in among)
