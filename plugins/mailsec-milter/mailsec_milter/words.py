"""The words of the milter protocol: commands, replies, actions and steps, by the names that Sendmail's mfdef.h gives them.

There is no standard: Sendmail's libmilter and Postfix's README_FILES/MILTER_README are what everybody reads.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ACTIONS", "LARGEST_CHUNK", "NEEDED", "Action", "Command", "Step", "Word"]

VERSIONS: Final = (2, 6)
"""The oldest and the newest version that are spoken: Sendmail 8.12 and 8.14."""
LARGEST_CHUNK: Final = 65535
"""MILTER_CHUNK_SIZE: octets of a body in one packet."""


class Command:
    """What the MTA says."""

    ABORT: Final = b"A"
    BODY: Final = b"B"
    CONNECT: Final = b"C"
    MACRO: Final = b"D"
    END_OF_MESSAGE: Final = b"E"
    HELO: Final = b"H"
    QUIT_NEW_CONNECTION: Final = b"K"
    HEADER: Final = b"L"
    MAIL: Final = b"M"
    END_OF_HEADER: Final = b"N"
    NEGOTIATE: Final = b"O"
    QUIT: Final = b"Q"
    RCPT: Final = b"R"
    DATA: Final = b"T"
    UNKNOWN: Final = b"U"


class Word:
    """What a milter answers."""

    ADD_HEADER: Final = b"h"
    CHANGE_HEADER: Final = b"m"
    CONTINUE: Final = b"c"
    INSERT_HEADER: Final = b"i"
    PROGRESS: Final = b"p"
    QUARANTINE: Final = b"q"
    REPLACE_BODY: Final = b"b"
    REPLY_CODE: Final = b"y"
    SKIP: Final = b"s"


class Action:
    """SMFIF_*: what a milter may do to a message, as the MTA offers it and the milter asks for it."""

    ADD_HEADERS: Final = 0x01
    CHANGE_BODY: Final = 0x02
    CHANGE_HEADERS: Final = 0x10
    QUARANTINE: Final = 0x20
    SET_SYMBOLS: Final = 0x100


NEEDED: Final = Action.ADD_HEADERS | Action.CHANGE_BODY | Action.CHANGE_HEADERS
"""Without these nothing can be signed, and no forged result taken away."""
ACTIONS: Final = NEEDED | Action.QUARANTINE | Action.SET_SYMBOLS


class Step:
    """SMFIP_*: what the MTA leaves out, answers that it does not wait for, and how it writes header fields."""

    SKIP: Final = 0x400
    """It understands that no more of the body is wanted."""
    NO_UNKNOWN: Final = 0x100
    NO_DATA: Final = 0x200
    LEADING_SPACE: Final = 0x100000
    """Values of header fields come and go with the blanks behind the colon, octet for octet."""
    UNANSWERED: Final = {
        Command.HEADER: 0x80,
        Command.CONNECT: 0x1000,
        Command.HELO: 0x2000,
        Command.MAIL: 0x4000,
        Command.RCPT: 0x8000,
        Command.DATA: 0x10000,
        Command.UNKNOWN: 0x20000,
        Command.END_OF_HEADER: 0x40000,
        Command.BODY: 0x80000,
    }
    """Commands that need no answer: SMFIP_NR_*."""
