"""Text of octets in a named character set, and the text that a person would read of a message (RFC 2045 §5.2, RFC 2046 §4.1.2).

The one invariant: any octets with any label give text. Codecs that are no character sets, or that cost more than linear time, are not used.
"""

from __future__ import annotations

import codecs
from functools import lru_cache

from mailsec.errors import MimeError
from mailsec.mime.transfer import decode
from mailsec.model.message import Part
from mailsec.model.octets import Octets

__all__ = ["TEXT_OCTETS", "decode_text", "first_text", "text_of"]

TEXT_OCTETS = 1024 * 1024
"""Encoded octets of a text part that are shown; the rest of a longer one is left out of reports (promise 9)."""

# Python offers these by name among the character sets. Punycode and IDNA take quadratic time; the escapes are program text.
_NO_CHARSETS = frozenset({"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"})


@lru_cache(maxsize=256)
def _known(charset: str) -> bool:
    try:
        b"a".decode(charset, "replace")  # refuses codecs that are not from octets to text
        return codecs.lookup(charset).name.replace("-", "_") not in _NO_CHARSETS
    except (LookupError, ValueError):
        return False


def decode_text(data: bytes, charset: str) -> str:
    """Decode, with U+FFFD for what does not fit; an unknown label reads as UTF-8, else latin-1 (which fits everything)."""
    charset = charset.strip().lower()
    if len(charset) <= 40 and _known(charset):
        try:
            return data.decode(charset, "replace")
        except UnicodeError:  # a codec without a way to replace
            pass
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def first_text(part: Part) -> Part | None:
    """The first text/plain part that is not an attachment, in the order of the octets; a message within the message is not looked into."""
    if not part.children:
        shown = part.content_type.type == "text" and part.content_type.subtype == "plain" and part.disposition != "attachment"
        return part if shown else None
    if part.content_type.type != "multipart":
        return None
    for child in part.children:
        found = first_text(child)
        if found is not None:
            return found
    return None


def text_of(octets: Octets, part: Part) -> str | None:
    """The text of the first text/plain part: decoded, with LF as line end, without the last line end. None where there is none."""
    found = first_text(part)
    if found is None:
        return None
    stop = min(found.end, found.body_start + TEXT_OCTETS)
    raw = bytes(octets.view(found.body_start, stop))
    if stop < found.end:  # cut between lines, where no encoding is in the middle of something
        raw = raw[: raw.rfind(b"\n") + 1]
    try:
        raw = b"".join(decode(found.encoding, (raw,)))
    except MimeError:  # damaged: shown as it stands
        pass
    charset = found.content_type.parameters.get("charset", "")
    # RFC 2045 §5.2: us-ascii is the default; what is not is better read as UTF-8 than as question marks.
    text = "\n".join(decode_text(raw, "" if charset.lower() == "us-ascii" else charset).split("\r\n"))  # faster than `replace`
    return text[:-1] if text.endswith("\n") else text
