"""The socketmap protocol (Postfix's socketmap_table(5)): a netstring "NAME KEY" is answered by a netstring "OK VALUE" or the like, in order.

The one invariant: a client that does not speak netstrings, or says more than the limit, is cut off; nothing that it said is guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mailsec.errors import Reply
from mailsec.model.requests import Ask, Close, Deadline, Request, Send

__all__ = ["LookUp", "SocketmapServer"]

MOST: Final = 10_000
"""Octets of a request: a name and an address are far below. Attack: a length without end, for which memory would be kept."""
_LENGTH = re.compile(rb"(0|[1-9][0-9]{0,8}):")
_UNFINISHED = re.compile(rb"(0|[1-9][0-9]{0,8})?\Z")


@dataclass(frozen=True, slots=True)
class LookUp:
    """The question: what does the map called `name` say of `key`? The answer is a `str` ("OK …", "NOTFOUND ", "TEMP …", "PERM …")."""

    name: str
    key: str


class SocketmapServer:
    """A `ProtocolCore`. `idle` are the seconds after which a client that says nothing is sent away."""

    def __init__(self, idle: float = 600.0) -> None:
        self._idle = idle
        self._input = bytearray()

    def connection_made(self) -> Iterable[Request]:
        return (Deadline(self._idle),)

    def receive_data(self, data: bytes) -> Iterable[Request]:
        self._input += data
        return self._next()

    def answer(self, value: object) -> Iterable[Request]:
        """What the map says; a `Reply` is what an error became."""
        text = value if isinstance(value, str) else f"PERM {value.text}" if isinstance(value, Reply) and not value.temporary else _AGAIN
        octets = text.encode()
        return (Send(b"%d:%b," % (len(octets), octets)), Deadline(self._idle), *self._next())

    def _next(self) -> tuple[Request, ...]:
        """The next request that is complete."""
        found = _LENGTH.match(self._input)
        if found is None:
            return () if _UNFINISHED.match(self._input) else (Close(),)
        length = int(found[1])
        end = found.end() + length
        if length > MOST:
            return (Close(),)
        if len(self._input) <= end:
            return ()
        if self._input[end] != ord(","):
            return (Close(),)
        text = bytes(self._input[found.end() : end]).decode("utf-8", "surrogateescape")
        del self._input[: end + 1]
        name, _, key = text.partition(" ")
        return (Ask(LookUp(name, key)),)

    def streamed(self) -> Iterable[Request]:
        return ()

    def tls_started(self, info: object) -> Iterable[Request]:
        return ()

    def deadline_passed(self) -> Iterable[Request]:
        return (Close(),)

    def connection_lost(self, reason: str) -> Iterable[Request]:
        return ()


_AGAIN = "TEMP try again later"
