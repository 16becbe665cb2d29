"""Which worker takes the next connection: the one that has fewest, as long as it takes it soon.

Workers accept on one socket. Whoever the kernel wakes first would take a whole burst, and the other processors would have nothing to do
until those connections end. So each worker writes how many it has into a file that all can read, and one that has clearly more than another
gives way for some milliseconds. The one invariant: it gives way for a time and never for good. A worker that is stuck or dead costs the
others a few of these waits, each with twice as many connections behind it.
"""

from __future__ import annotations

import os
from struct import Struct

__all__ = ["AHEAD", "GIVE_WAY", "Turn", "Turns"]

GIVE_WAY = 0.004
"""Seconds in which another worker may take the connection: about a time slice of a busy machine."""
AHEAD = 3
"""How many more than another a worker may have before it gives way: short connections come and go faster than anybody could wait."""
_MOST = 64
_NUMBER = Struct("<I")
_CLOSED = 0xFFFFFFFF
"""What a worker writes that takes no more connections."""


class Turns:
    """How many connections each of `workers` has, in the file `path`: four octets each."""

    def __init__(self, path: str, index: int, workers: int) -> None:
        self._offset = index * _NUMBER.size
        self._size = workers * _NUMBER.size
        self._count = 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if workers > 1 else -1
        except OSError:  # the burden is then shared as chance has it
            self._file = -1
        self._write(0)

    def opened(self) -> None:
        """One connection more."""
        self._count += 1
        self._write(self._count)

    def ended(self) -> None:
        """One connection less."""
        self._count -= 1
        self._write(self._count)

    def close(self) -> None:
        """We take no more: nobody waits for us."""
        self._write(_CLOSED)
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)

    def others(self) -> tuple[int, ...]:
        """What the other workers have; empty where that cannot be known."""
        if self._file < 0:
            return ()
        try:
            octets = os.pread(self._file, self._size, 0)
        except OSError:
            return ()
        octets = octets[: self._offset] + octets[self._offset + _NUMBER.size :]
        return tuple(number for (number,) in _NUMBER.iter_unpack(octets[: len(octets) // _NUMBER.size * _NUMBER.size]))

    @property
    def count(self) -> int:
        """What we have."""
        return self._count

    def _write(self, number: int) -> None:
        if self._file < 0:
            return
        try:
            os.pwrite(self._file, _NUMBER.pack(number), self._offset)
        except OSError:  # a full disk stops no mail
            pass


class Turn:
    """Whose turn it is on one port."""

    __slots__ = ("_allowed", "_seen", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._allowed = 1
        self._seen: tuple[int, ...] | None = None

    def take(self) -> int:
        """How many connections may be accepted now; 0: give way, and ask again after `GIVE_WAY` seconds."""
        others = self._turns.others()
        if not others or self._turns.count < min(others) + AHEAD:
            self._seen = None
            self._allowed = 1
            return 1
        seen, self._seen = self._seen, None
        if seen is None:
            self._seen = others
            return 0
        # Where we waited in vain the others are busy with something else, or dead.
        self._allowed = min(2 * self._allowed, _MOST) if others == seen else 1
        return self._allowed
