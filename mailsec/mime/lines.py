"""Line ends of whole messages: octets are checked for CRLF, and brought to it (RFC 5322 §2.1, §2.3).

The one invariant: what `to_crlf` yields holds CR and LF only as CRLF, and octets that are so already come through untouched. For text
only: what has a binary part must not be changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailsec.model.octets import Octets, Segments

__all__ = ["BARE_CR", "BARE_LF", "is_crlf", "regular_lines", "to_crlf"]

# Each begins with one literal octet, which the regular expression engine looks for at memory speed.
BARE_CR = re.compile(rb"\r(?!\n)")
BARE_LF = re.compile(rb"\n(?<!\r\n)")
_LONGEST_REGULAR = 998


def regular_lines(data: bytes) -> int:
    """The width of `data`'s lines, where it is whole lines of one width (1 to 998), each ended by CRLF, with no other CR or LF; else 0.

    Base64 is like that, and it is most of the octets that mail has: this look at it costs a tenth of any that goes from line to line.
    """
    width = data.find(b"\r\n", 0, _LONGEST_REGULAR + 2)
    if width < 1:
        return 0
    count, rest = divmod(len(data), width + 2)
    if rest:
        return 0
    copy = bytearray(data)
    if copy[width :: width + 2] != b"\r" * count or copy[width + 1 :: width + 2] != b"\n" * count:
        return 0
    # With its line ends painted over, what is left must be free of them.
    copy[width :: width + 2] = copy[width + 1 :: width + 2] = b"." * count
    return 0 if b"\r" in copy or b"\n" in copy else width


def is_crlf(octets: Octets) -> bool:
    """True where CR and LF occur only as CRLF."""
    return _surplus(octets) == 0


def _surplus(octets: Octets) -> int:
    """How many CR and LF stand alone."""
    surplus = 0
    cr_before = False
    for block in octets.blocks():
        data = bytes(block)
        if not data:
            continue
        surplus += data.count(b"\r") + data.count(b"\n") - 2 * data.count(b"\r\n")
        if cr_before and data[0] == 0x0A:
            surplus -= 2  # a CRLF that two blocks share: counted as one of each
        cr_before = data[-1] == 0x0D
    return surplus


def to_crlf(octets: Octets) -> Segments:
    """The octets with every bare CR and bare LF made CRLF, produced block by block."""
    surplus = _surplus(octets)
    if surplus == 0:
        return Segments.of(octets)
    return Segments.produced(len(octets) + surplus, lambda: _converted(octets))


def _converted(octets: Octets) -> Iterator[bytes]:
    held = b""
    for block in octets.blocks():
        data = held + bytes(block)
        held = b""
        if data.endswith(b"\r"):  # its LF may be in the next block
            data, held = data[:-1], b"\r"
        yield data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    if held:
        yield b"\r\n"
