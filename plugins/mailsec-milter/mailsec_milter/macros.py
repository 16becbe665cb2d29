"""Macros (SMFIC_MACRO): what the MTA tells of itself and of the client, each for the command that follows.

The one invariant: a macro counts for the command that it came with, and once. `{auth_authen}` decides for whom a message is signed: one of
an earlier message, of another client on the same connection, or beside the MAIL command never does.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailsec.errors import RemoteProtocolError
from mailsec_milter.packets import strings

__all__ = ["Macros"]

_MOST = 200
_NOTHING: Mapping[str, str] = {}


class Macros:
    """Those that wait for their command."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[bytes, Mapping[str, str]] = {}

    def define(self, data: bytes) -> None:
        """Take the macros of one packet. Raise RemoteProtocolError for one that cannot be read in one way only."""
        texts = strings(data[1:])
        if not data or len(texts) % 2 or len(texts) > 2 * _MOST:
            raise RemoteProtocolError("macros that are no pairs of name and value")
        found: dict[str, str] = {}
        for name, value in zip(texts[::2], texts[1::2], strict=True):
            text = value.decode("utf-8", "replace")
            plain = name.decode("utf-8", "replace").removeprefix("{").removesuffix("}")
            if found.setdefault(plain, text) != text:
                # Attack: whoever can write one value into the MTA's answer must not choose between two.
                raise RemoteProtocolError(f"macro {plain[:40]!r} with two values")
        self._waiting[data[:1]] = found

    def take(self, command: bytes) -> Mapping[str, str]:
        """What came with `command`; from now on it is gone."""
        return self._waiting.pop(command, _NOTHING)

    def forget(self, *commands: bytes) -> None:
        """What came with these commands, or with any where none is named."""
        for command in commands or tuple(self._waiting):
            self._waiting.pop(command, None)
