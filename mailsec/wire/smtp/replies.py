"""Replies as octets, written and read (RFC 5321 §4.2, RFC 2034, RFC 3463).

The one invariant: what is written is one reply, whatever its text holds: a CR or LF in a text cannot begin another.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailsec.errors import RemoteProtocolError, Reply
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["ReplyReader", "encode_reply"]

# RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets with code and CRLF.
_TEXT_OCTETS = 480
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?\Z", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|\Z)")
_KEPT_TEXT = 1000


def encode_reply(reply: Reply) -> bytes:
    """Return `reply` as one reply line. Characters that cannot stand in a reply (RFC 5321 §4.2: textstring) become "?"."""
    text = _UNPRINTABLE.sub("?", reply.text)[:_TEXT_OCTETS]
    # RFC 2034 §4: the enhanced status code begins the text, and is of the same class as the reply code; 3yz has none.
    if reply.enhanced:
        text = f"{reply.enhanced} {text}"
    return f"{reply.code} {text}\r\n".encode("ascii")


@lru_cache(maxsize=512)
def _parse_line(line: bytes) -> tuple[int, bool, str]:
    """Return (code, is the last line, text) of one reply line without its CRLF."""
    match = _LINE.match(line)
    if match is None:
        raise RemoteProtocolError(f"not a reply line: {line[:80]!r}")
    text = (match[3] or b"").decode("utf-8", "replace")
    return int(match[1]), match[2] != b"-", "".join(c if c.isprintable() else "?" for c in text).strip()


class ReplyReader:
    """Collects octets, and gives replies. Raises RemoteProtocolError for what is no reply or is over a limit; then it is of no more use."""

    __slots__ = ("_buffer", "_code", "_lines", "_max_line", "_max_lines")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._buffer = b""
        self._code = 0
        self._lines: list[str] = []
        self._max_line = limits.reply_line
        self._max_lines = limits.reply_lines

    @property
    def pending(self) -> bool:
        """True where octets were read that belong to no complete reply: what stands behind the 220 to STARTTLS is an attack."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data

    def next(self) -> tuple[Reply, tuple[str, ...]] | None:
        """The next reply and all its lines, or None where more octets are needed."""
        start = 0
        buffer = self._buffer
        try:
            while True:
                end = buffer.find(b"\n", start)
                # a next hop that sends lines without end
                if (len(buffer) if end < 0 else end + 1) - start > self._max_line:
                    raise RemoteProtocolError(f"reply line longer than {self._max_line} octets")
                if end < 0:
                    return None
                # RFC 5321 §2.3.8: only CRLF ends a line.
                if end == start or buffer[end - 1] != 13:
                    raise RemoteProtocolError("reply line ends in a bare line feed")
                code, last, text = _parse_line(buffer[start : end - 1])
                start = end + 1
                # RFC 5321 §4.2.1: the code is the same on every line of a reply.
                if self._lines and code != self._code:
                    raise RemoteProtocolError(f"reply changes its code from {self._code} to {code}")
                self._code = code
                self._lines.append(text)
                if last:
                    lines = self._lines
                    self._lines = []
                    return _reply_of(code, lines), tuple(lines)
                if len(self._lines) >= self._max_lines:
                    raise RemoteProtocolError(f"reply of more than {self._max_lines} lines")
        finally:
            self._buffer = buffer[start:] if start else buffer


def _reply_of(code: int, lines: list[str]) -> Reply:
    match = _ENHANCED.match(lines[0])
    enhanced = match[1] if match else ""
    # RFC 2034 §4: every line repeats the enhanced status code; the text is joined without it.
    texts = [line[match.end() :] if match and line.startswith(enhanced) else line for line in lines]
    return Reply(code, enhanced, " ".join(texts)[:_KEPT_TEXT])
