"""Header fields that a layer covers: RFC 9788 (`hp=`), and its forerunners: the wrapped message (RFC 8551 §3.1) and `protected-headers="v1"`.

The one invariant: no other field than `NAMES` ever passes from inside a layer to the header of a message, each at most once, and From only
where it names the address that the outer From names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from mailsec.errors import LimitExceeded
from mailsec.mime.addresses import mailboxes
from mailsec.mime.charsets import first_text, text_of
from mailsec.mime.fields import decode_words
from mailsec.mime.index import field_value
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import HeaderField, Message, Part
from mailsec.model.octets import Octets
from mailsec.model.verdict import Reason

__all__ = ["NAMES", "CoveredHeader", "covered_header", "covered_text", "header_differences", "line_of", "same_author"]

NAMES: Final = ("subject", "date", "from", "to", "cc", "reply-to", "message-id", "in-reply-to", "references")
"""Fields that may take the place of those outside (RFC 9788 §4 leaves the choice to the reader)."""

_RFC: Final = "RFC 9788 §4"
# RFC 9788 §5.2.2: "Subject: the plan", one line for each field, folded lines behind it.
_COPIED: Final = re.compile(r"(?:[!-9;-~]+:[^\n]*(?:\n[ \t][^\n]*)*(?:\n|\Z))+")
# What ends a line for some reader and no field for us: CR and LF that are no folding, NUL.
_LOOSE: Final = re.compile(rb"\r(?!\n[ \t])|(?<!\r)\n|\n(?![ \t])|\0")


@dataclass(frozen=True, slots=True)
class CoveredHeader:
    """The header that the innermost layer covers."""

    kind: str = ""
    """ "hp" (RFC 9788), "wrapped" (message/rfc822), "v1"; "" where the entity has none."""
    values: dict[str, str] = field(default_factory=dict)
    """All its fields but Content-*, by lower-case name; one that stands twice is left out."""
    lines: dict[str, bytes] = field(default_factory=dict)
    """Those of `NAMES`, as they may be written in an outer header, with CRLF."""
    outer: dict[str, str] | None = None
    """RFC 9788 §2.2: HP-Outer, what the sender left outside; None where the message does not say."""
    replaces: bool = False
    """True where the sender meant these fields for the header of the message."""
    repeated: tuple[str, ...] = ()


def line_of(octets: Octets, one: HeaderField) -> bytes:
    """A field as one line of a header (folded, CRLF). CR, LF and NUL within it become blanks: they would begin a field of their own."""
    raw = bytes(octets.view(one.start, one.end))
    return _LOOSE.sub(b" ", raw.removesuffix(b"\r\n")) + b"\r\n"


def covered_header(octets: Octets, part: Part) -> tuple[CoveredHeader, Part]:
    """The header that the entity covers, and the part whose body is shown: that of a wrapped message, else the entity's own."""
    parameters = part.content_type.parameters
    shown = part
    # RFC 8551 §3.1: a whole message may be wrapped, so that its header is protected too.
    while shown.content_type.name in ("message/rfc822", "message/global") and shown.children:
        shown = shown.children[0]
    if shown is not part:
        # forwarded=no tells a wrap from a message that somebody forwards.
        kind, replaces = "wrapped", parameters.get("forwarded", "").lower() == "no"
    elif parameters.get("hp") in ("clear", "cipher"):
        kind, replaces = "hp", True
    elif parameters.get("protected-headers") == "v1":
        kind, replaces = "v1", True
    else:
        return CoveredHeader(), part
    found: dict[str, list[HeaderField]] = {}
    outer: dict[str, str] = {}
    for one in shown.fields:
        if one.name == "hp-outer":
            # RFC 9788 §2.2: "HP-Outer: Subject: [...]".
            name, _, value = field_value(octets, one).partition(":")
            outer.setdefault(name.strip().lower(), value.strip())
        elif one.name and not one.name.startswith("content-") and one.name != "mime-version":
            found.setdefault(one.name, []).append(one)
    single = {name: fields[0] for name, fields in found.items() if len(fields) == 1}
    header = CoveredHeader(
        kind,
        {name: field_value(octets, one) for name, one in single.items()},
        {name: line_of(octets, single[name]) for name in NAMES if name in single},
        outer if parameters.get("hp") == "cipher" else None,
        replaces,
        tuple(name for name in found if name in NAMES and name not in single),
    )
    return header, shown


def covered_text(octets: Octets, shown: Part, header: CoveredHeader) -> str | None:
    """What people are shown of the entity whose header is `header`: its text, without what a writer put there for older readers only."""
    text = text_of(octets, shown)
    part = first_text(shown)
    if text is None or part is None or header.kind != "hp" or part.content_type.parameters.get("hp-legacy-display") != "1":
        return text
    # RFC 9788 §4.5.3.1: the copy of the hidden fields at the top ends at the first empty line.
    copied, empty, rest = text.partition("\n\n")
    return rest if empty and _COPIED.fullmatch(copied) else text


def same_author(message: Message, header: CoveredHeader, limits: Limits = DEFAULT_LIMITS) -> bool:
    """True where the From inside names one address, and the one From outside names the same (RFC 9788 §4.4)."""
    inside, outside = header.values.get("from"), message.values("from")
    if inside is None or len(outside) != 1:
        return False
    try:
        covered, visible = mailboxes(inside, limits), mailboxes(outside[0], limits)
    except LimitExceeded:
        return False
    if covered.problems or visible.problems or len(covered.addresses) != 1:
        return False
    return tuple(covered.addresses) == tuple(visible.addresses)


def _text(value: str) -> str:
    return " ".join(decode_words(value).split())


def header_differences(message: Message, header: CoveredHeader, limits: Limits = DEFAULT_LIMITS) -> tuple[Reason, ...]:
    """What is to be said of the header outside. Names only: the values may have been encrypted."""
    if not header.kind:
        return ()
    reasons: list[Reason] = []
    if header.repeated:
        text = f"fields that stand once stand twice in the covered header: {', '.join(header.repeated)}"
        reasons.append(Reason("protected-header-repeated", "identity", text, "readers show different ones", "RFC 5322 §3.6"))
    differing = []
    for name in NAMES:
        inside = header.values.get(name)
        outside = message.values(name)
        if inside is None or not outside or name == "from":
            continue
        # RFC 9788 §2.2: what the sender left outside on purpose is no sign of anybody else.
        expected = {_text(inside)} | ({_text(header.outer[name])} if header.outer and name in header.outer else set())
        if len(outside) > 1 or _text(outside[0]) not in expected:
            differing.append(name)
    if differing:
        text = f"outside of the layer other values stand than inside: {', '.join(differing)}"
        reasons.append(Reason("header-differs", "identity", text, "believe those inside, if the signature is the author's", _RFC))
    if "from" in header.values and not same_author(message, header, limits):
        text = "the From that the layer covers is not the From of the message"
        reasons.append(
            Reason("protected-from-differs", "identity", text, "the header inside is not shown: it may be somebody else's message", _RFC)
        )
    return tuple(reasons)
