"""The data of a message in chunks of declared size (RFC 3030 §2): no end of data to look for, and the same rules for lines as under DATA.

The one invariant: what is passed on holds whole CRLFs only, wherever chunks were cut; a dot that begins a line is a dot of the message.
"""

from __future__ import annotations

import re

from mailsec.errors import Reply
from mailsec.wire.smtp.commands import CommandError
from mailsec.wire.smtp.data import BARE_LINE_END, LINE_END, NUL, is_bare

__all__ = ["ChunkReceiver", "parse_bdat"]

_CRLF = b"\r\n"
# RFC 3030 §2: chunk-size ::= 1*DIGIT. More digits than SIZE may have are no size of anything.
_BDAT = re.compile(rb"([0-9]{1,20})(?: +(LAST))?\Z", re.IGNORECASE)
_SYNTAX = Reply(501, "5.5.4", "syntax: BDAT octets [LAST]")


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """(octets that follow, is the last chunk) of what stands behind `BDAT `. Raise CommandError: then nobody knows where the next command begins."""
    match = _BDAT.match(argument.strip(b" "))
    if match is None:
        raise CommandError(_SYNTAX)
    return int(match[1]), match[2] is not None


class ChunkReceiver:
    """Takes the chunks of one message, and gives back what of them may be passed on."""

    __slots__ = ("_held", "_normalise", "_seen", "_tail", "fault", "max_size", "oversize", "size")

    def __init__(self, max_size: int, *, normalise: bool = False) -> None:
        self._held = b""
        self._tail = b""
        self.max_size = max_size
        self._normalise = normalise
        self._seen = 0
        self.size = 0
        """Octets passed on so far."""
        self.fault = ""
        """Why the message is refused: BARE_LINE_END or NUL."""
        self.oversize = False

    @property
    def hopeless(self) -> bool:
        """True where the peer goes on sending far beyond a message that is refused already."""
        return self._seen > 2 * self.max_size + 1024 * 1024

    def receive(self, data: bytes) -> bytes:
        """Take octets of a chunk; return those to pass on: none once the message is refused."""
        self._seen += len(data)
        if self.fault or self.oversize:
            return b""
        if self._held:
            data, self._held = self._held + data, b""
        if data.endswith(b"\r"):
            # Its line feed may be the first octet of the next chunk.
            data, self._held = data[:-1], b"\r"
        return self._accept(data)

    def finish(self) -> bytes:
        """The last chunk has ended; what is left to pass on."""
        rest, self._held = self._held, b""
        piece = self._accept(rest) if rest else b""
        if self.fault or self.oversize or self.size == 0 or self._tail.endswith(_CRLF):
            return piece
        # RFC 5321 §2.3.8, §4.1.1.4: a message is lines, and DATA could not have carried another.
        self.size += 2
        return piece + _CRLF

    def _accept(self, data: bytes) -> bytes:
        bare = is_bare(data)
        if bare and not self._normalise:
            self.fault = BARE_LINE_END
        elif b"\0" in data:
            self.fault = NUL
        if self.fault:
            return b""
        if bare:
            data = LINE_END.sub(_CRLF, data)
        self.size += len(data)
        if self.size > self.max_size:
            self.oversize = True
            return b""
        if data:
            self._tail = (self._tail + data)[-2:] if len(data) < 2 else data[-2:]
        return data
