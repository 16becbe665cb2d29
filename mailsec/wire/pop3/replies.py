"""Responses as octets, written and read (RFC 1939 §3, RFC 2449 §8).

The one invariant: what is written is one line, whatever its text holds: a CR or LF in a text cannot begin another response.
"""

from __future__ import annotations

import re

from mailsec.errors import RemoteProtocolError
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.wire.pop3.questions import Response

__all__ = ["LineReader", "encode_response", "read_response"]

# RFC 2449 §4: a response has at most 512 octets with CRLF.
_TEXT_OCTETS = 400
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
# RFC 2449 §8: resp-code = "[" resp-level *("/" resp-level) "]"
_CODE = re.compile(r"\[([A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,40}(?:/[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,40}){0,4})\][ ]*")
_PLUS_OK = re.compile(rb"\+OK(?: |\Z)", re.IGNORECASE)
_MINUS_ERR = re.compile(rb"-ERR(?: |\Z)", re.IGNORECASE)


def encode_response(response: Response) -> bytes:
    """The line of `response`. Characters that cannot stand in one become "?"."""
    text = _UNPRINTABLE.sub("?", response.text)[:_TEXT_OCTETS]
    if response.code:
        text = f"[{response.code}] {text}"
    elif text.startswith("["):
        # A text that only looks as if it began with a response code (RFC 2449 §8).
        text = " " + text
    return (("+OK " if response.ok else "-ERR ") + text).rstrip().encode("ascii") + b"\r\n"


def read_response(line: bytes) -> Response:
    """Read one line without its CRLF; raise RemoteProtocolError where it is no response."""
    match = _PLUS_OK.match(line) or _MINUS_ERR.match(line)
    if match is None:
        raise RemoteProtocolError(f"not a response: {line[:80]!r}", stage="pop3")
    text = line[match.end() :].decode("utf-8", "replace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "?" for c in text)
    text = text.strip()
    code = _CODE.match(text)
    if code is not None:
        text = text[code.end() :]
    return Response(line[:1] == b"+", text, code[1].upper() if code is not None else "")


class LineReader:
    """Collects octets, and gives lines. Raises RemoteProtocolError for what is over the limit or ends in a bare LF."""

    __slots__ = ("_at", "_buffer", "_max_line")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._buffer = b""
        self._at = 0
        self._max_line = limits.reply_line

    @property
    def pending(self) -> bool:
        """True where octets wait: what stands behind the response to STLS is an attack."""
        return self._at < len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer[self._at :] + data if self.pending else data
        self._at = 0

    def rest(self) -> bytes:
        """What waits, which is taken away: the beginning of a message."""
        rest = self._buffer[self._at :] if self._at else self._buffer
        self._buffer, self._at = b"", 0
        return rest

    def next(self) -> bytes | None:
        """The next line without its CRLF, or None where more octets are needed."""
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\n", at)
        # a server that sends lines without end
        if (len(buffer) if end < 0 else end + 1) - at > self._max_line:
            raise RemoteProtocolError(f"response longer than {self._max_line} octets", stage="pop3")
        if end < 0:
            return None
        # RFC 1939 §3: all responses are terminated by CRLF.
        if end == at or buffer[end - 1] != 13:
            raise RemoteProtocolError("response ends in a bare line feed", stage="pop3")
        self._at = end + 1
        return buffer[at : end - 1]
