"""What the supervisor and a worker tell each other: one JSON object a line over two pipes, and the start message over a third.

From the supervisor, "do": "ping" (with a number), "drain" (finish and end), "retire" (accept nothing more; finish and end when the sessions
have), "pause" (accept nothing more), "adopt" (spools that are nobody's), "flush", "wake". From the worker, "is": "ready", "alive" (the
number again, and what it has measured), "adopted", "unable" (to start, and why: the last thing that it says). The start message is one JSON
object up to the end of its pipe; it holds the data key, which exists nowhere else outside the two processes' memory.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mailsec.errors import MailsecError, PluginError

__all__ = ["FIRST_SOCKET", "FROM_WORKER", "START", "TO_WORKER", "LineReader", "StartMessage", "line", "read_start", "tell_unable"]

START = 3
"""The worker reads its start message here."""
TO_WORKER = 4
FROM_WORKER = 5
FIRST_SOCKET = 6
"""Listening sockets begin here, in the order of the configuration's listeners."""

_LINE_OCTETS = 1024 * 1024
"""A line with all that a worker has measured has some ten thousand octets."""


@dataclass(frozen=True, slots=True)
class StartMessage:
    """What a worker is started with. Its `repr` shows neither key nor configuration."""

    index: int
    """Its number in its generation."""
    workers: int
    """How many of them there are."""
    generation: int
    spool: int
    """The number of its spool."""
    spools: tuple[int, ...]
    """The numbers of all spools that belong to somebody; others are orphans."""
    listening: bool
    """Whether it accepts connections."""
    path: str
    configuration: str = field(repr=False)
    """The text of the configuration: workers read no file that may have changed meanwhile."""
    data_key: bytes = field(repr=False)

    def encode(self) -> bytes:
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps(value | {"data_key": base64.b64encode(self.data_key).decode("ascii")}).encode("ascii")


def read_start(descriptor: int = START) -> StartMessage:
    """Read the start message up to the end of the pipe, and close it."""
    pieces = []
    while piece := os.read(descriptor, 65536):
        pieces.append(piece)
    os.close(descriptor)
    value = json.loads(b"".join(pieces))
    value["data_key"] = base64.b64decode(value["data_key"])
    value["spools"] = tuple(value["spools"])
    return StartMessage(**value)


def line(**message: Any) -> bytes:
    """One message as a line."""
    return json.dumps(message).encode("ascii") + b"\n"


def tell_unable(error: MailsecError) -> None:
    """Say in the worker why it cannot start. Written at once: the process ends next.

    What is temporary may be different for the worker after this one; a plugin that fails would fail again.
    """
    again = error.temporary and not isinstance(error, PluginError)
    text = "; ".join(one.message for one in getattr(error, "problems", ())) or error.message
    os.write(FROM_WORKER, line(**{"is": "unable", "error": text[:1000], "hint": error.hint[:500], "again": again}))


class LineReader:
    """Collects octets of a pipe into messages; what is no message is dropped (both ends are ours, but one may be killed half-way)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Mapping[str, Any]]:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[-_LINE_OCTETS:]
        for text in lines:
            try:
                message = json.loads(text)
            except ValueError:
                continue
            if isinstance(message, dict):
                yield message
