"""What happened to a signature that is broken: which change on the way would explain it.

Only for the reason that people are shown. The one invariant: a repaired signature is never accepted, whatever fits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from mailsec.errors import MailsecError
from mailsec.mime.canonical import encoding_field
from mailsec.mime.transfer import IDENTITY, decode
from mailsec.model.message import Part
from mailsec.model.octets import Octets
from mailsec.model.verdict import Reason

__all__ = ["REPAIRED_OCTETS", "explain_damage", "without_last_lines"]

REPAIRED_OCTETS = 1024 * 1024
"""Parts up to this size are looked at: the explanation is a courtesy, and must not cost more than the check."""

_TRAILING = re.compile(rb"(?<![ \t])[ \t]+(?=\r\n|\Z)")
# Matched against the octets in reverse: searched for forwards, a megabyte of empty lines in the middle costs an hour (quadratic).
_LAST_LINES_REVERSED = re.compile(rb"(?:\n\r)*+")


def without_last_lines(data: bytes) -> bytes:
    """The octets without the line ends at their end, in linear time."""
    match = _LAST_LINES_REVERSED.match(data[::-1])
    return data[: len(data) - match.end()] if match is not None else data


def _candidates(octets: Octets, part: Part) -> Iterator[tuple[str, str, bytes]]:
    """(code, what was done to the message, the octets that were signed if that is so)."""
    data = bytes(octets.view(part.start, part.end))
    header = bytes(octets.view(part.start, part.body_start))
    body = data[len(header) :]
    yield "line-ends", "its line ends were LF when it was signed", data.replace(b"\r\n", b"\n")
    yield "trailing-blanks", "blanks were added at the ends of lines", _TRAILING.sub(b"", data)
    stripped = without_last_lines(data)
    yield "last-lines", "empty lines were added at its end", stripped
    yield "last-lines", "an empty line was removed at its end", data + b"\r\n"
    yield "last-lines", "empty lines were added at its end", stripped + b"\r\n"
    yield "from-escaped", 'a ">" was put before a line that begins with "From "', data.replace(b"\n>From ", b"\nFrom ")
    yield "dot-stuffed", "leading dots were doubled", data.replace(b"\n..", b"\n.")
    if part.encoding not in IDENTITY and not part.children:
        plain = b"".join(decode(part.encoding, (body,)))
        for encoding in ("8bit", "7bit", "binary"):
            fields = [field for field in part.fields if field.name == "content-transfer-encoding"]
            if not fields:
                continue
            before = bytes(octets.view(part.start, fields[0].start))
            after = bytes(octets.view(fields[0].end, part.body_start))
            for label in (encoding_field(encoding), b"Content-Transfer-Encoding: " + encoding.upper().encode() + b"\r\n", b""):
                yield (
                    "re-encoded",
                    f"a relay changed its transfer encoding from {encoding} to {part.encoding}",
                    before + label + after + plain,
                )


def explain_damage(octets: Octets, part: Part, is_intact: Callable[[bytes], bool]) -> Reason | None:
    """Try the changes that relays, filters and lists make; return the reason that names the one that fits, or None."""
    if part.end - part.start > REPAIRED_OCTETS:
        return None
    tried = {bytes(octets.view(part.start, part.end))}
    try:
        for code, what, data in _candidates(octets, part):
            if data in tried:
                continue
            tried.add(data)
            if is_intact(data):
                return Reason(
                    f"damaged-{code}",
                    "integrity",
                    f"the signature would be right if this had not been done on the way: {what}",
                    "find the relay, filter or list that changes messages; the signature stays broken",
                    "RFC 8551 §3.1.1",
                )
    except MailsecError:  # a part that cannot even be decoded explains nothing
        pass
    return None
