"""The arguments of POP3 commands (RFC 1939 §5, §7; RFC 5034 §4).

The one invariant: what cannot be read wholly is refused; nothing is guessed from half an argument.
"""

from __future__ import annotations

import re

from mailsec.errors import ProtocolError
from mailsec.wire.pop3 import words
from mailsec.wire.pop3.questions import Request, Response

__all__ = ["CommandError", "parse_request"]

# RFC 1939 §3: message-numbers in base 10, from 1; ten digits are more than any maildrop has.
_NUMBER = re.compile(rb"[0-9]{1,10}\Z")
_NUMBERS = {b"STAT": (0, 0), b"NOOP": (0, 0), b"RSET": (0, 0), b"QUIT": (0, 0), b"LIST": (0, 1), b"UIDL": (0, 1), b"RETR": (1, 1),
            b"DELE": (1, 1), b"TOP": (2, 2)}  # fmt: skip


class CommandError(ProtocolError):
    """A command that is refused; `response` says how."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.text)
        self.response = response


def parse_request(verb: bytes, argument: bytes) -> Request:
    """The command on the maildrop with its numbers; raise CommandError."""
    least, most = _NUMBERS[verb]
    given = argument.split()
    if not least <= len(given) <= most or not all(map(_NUMBER.match, given)):
        raise CommandError(words.BAD_ARGUMENT if most else words.NO_ARGUMENT)
    numbers = [*map(int, given), 0, 0]
    if given and numbers[0] < 1:
        raise CommandError(words.BAD_ARGUMENT)
    return Request(verb.decode("ascii"), numbers[0], numbers[1])
