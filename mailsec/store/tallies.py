"""Counts that the workers of one machine share without asking each other: what happened to whom of late, and who has how much now.

Each worker writes into a part of its own of a mapped file (its number is that of its spool: two generations never share one), and reads those
of all. Names have a place by a keyed digest. In `Gauges` two may share one: a count can be too high, by chance and not by choice. In a `Tally`
nobody pays for another: of too many names the one that counts least is forgotten. The one invariant: no worker waits for another, and a file
that cannot be had costs the sharing, not the mail.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from struct import Struct

__all__ = ["Gauges", "Tally"]

_PLACES = 4096
_TOGETHER = 8
"""Cells of a `Tally` in which one name may stand."""


class _Shared:
    """A part for each worker, `workers` of them and more as they come; `key` is secret, and the same for all of them."""

    def __init__(self, path: str | None, index: int, workers: int, key: bytes, part: int) -> None:
        self._key = hashlib.sha256(b"places" + key).digest()
        self._part = part
        self._index = index
        self._file = -1
        try:
            if path is None:
                raise OSError
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            # Written out now: a full disk later would end the process that writes into a hole of the file.
            os.posix_fallocate(self._file, 0, part * max(workers, index + 1))
            self._map = mmap.mmap(self._file, os.fstat(self._file).st_size)
        except OSError:
            self.close()
            self._map, self._index = mmap.mmap(-1, part), 0

    @property
    def shared(self) -> bool:
        """False where the file could not be had: then these are our own counts only."""
        return self._file >= 0

    def _digest(self, name: str, size: int) -> bytes:
        return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=size, key=self._key).digest()

    def _parts(self) -> range:
        """Where the parts of all begin."""
        if self._file >= 0 and self._map.size() > len(self._map):
            # Workers of another generation: the file has grown.
            self._map.close()
            self._map = mmap.mmap(self._file, os.fstat(self._file).st_size)
        return range(0, len(self._map) // self._part * self._part, self._part)

    def close(self) -> None:
        """Give memory and file back."""
        if hasattr(self, "_map"):
            self._map.close()
        descriptor, self._file = self._file, -1
        if descriptor >= 0:
            os.close(descriptor)


_GAUGE = Struct("<i")
_GAUGES = (_PLACES + 1) * _GAUGE.size
"""Octets of a part: one cell more, for all names together."""
_ALL = _PLACES * _GAUGE.size


class Gauges(_Shared):
    """How much of something each name has now, in all workers. Without the file each of the `workers` is taken to have as much as we."""

    def __init__(self, path: str | None, index: int, workers: int, key: bytes) -> None:
        super().__init__(path, index, workers, key, _GAUGES)
        self._times = 1 if self.shared or path is None else workers
        own = self._index * _GAUGES
        # What a worker had that had this part before is over. (What happened of late has happened: a Tally keeps it.)
        self._map[own : own + _GAUGES] = bytes(_GAUGES)

    def change(self, name: str, by: int) -> None:
        """Our own part of it; "" is nobody, and counts in `everything` only."""
        own = self._index * _GAUGES
        self._add(own + _ALL, by)
        if name:
            self._add(own + self._place(name), by)

    def _add(self, at: int, by: int) -> None:
        (count,) = _GAUGE.unpack_from(self._map, at)
        _GAUGE.pack_into(self._map, at, max(0, count + by))

    def total(self, name: str) -> int:
        """What all have under this name."""
        return self._sum(self._place(name))

    def everything(self) -> int:
        """What all have under all names."""
        return self._sum(_ALL)

    def _place(self, name: str) -> int:
        return int.from_bytes(self._digest(name, 8), "big") % _PLACES * _GAUGE.size

    def _sum(self, place: int) -> int:
        return self._times * int(sum(_GAUGE.unpack_from(self._map, part + place)[0] for part in self._parts()))

    @staticmethod
    def forget(path: str, index: int) -> None:
        """Whoever had this part is dead, and has nothing any more. Raise OSError."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(descriptor).st_size >= (index + 1) * _GAUGES:
                os.pwrite(descriptor, bytes(_GAUGES), index * _GAUGES)
        finally:
            os.close(descriptor)


_HAPPENED = Struct("<QdIII")
"""Whose it is, the instant of the last, the number of its period, the count in that period and in the one before."""


class Tally(_Shared):
    """How often something happened to each name in the last `period` seconds, about, and when it was last."""

    def __init__(self, path: str | None, index: int, workers: int, key: bytes, *, period: float) -> None:
        super().__init__(path, index, workers, key, _PLACES * _HAPPENED.size)
        self._period = period

    def _cells(self, name: str) -> tuple[range, int]:
        """(where in a part it may stand, what stands with it)."""
        digest = self._digest(name, 16)
        first = int.from_bytes(digest[:8], "big") % (_PLACES // _TOGETHER) * _TOGETHER
        size = _HAPPENED.size
        return range(first * size, (first + _TOGETHER) * size, size), int.from_bytes(digest[8:], "big") or 1

    def add(self, name: str, at: float, by: int = 1) -> None:
        """It happened at `at` (seconds since the epoch)."""
        cells, whose = self._cells(name)
        part = self._index * self._part
        now = int(at / self._period)
        chosen, least = -1, (0, 0.0)
        count = before = 0
        for place in cells:
            tag, last, number, here, earlier = _HAPPENED.unpack_from(self._map, part + place)
            if tag == whose:
                chosen = place
                if number == now:
                    count, before = here, earlier
                elif number == now - 1:
                    before = here
                break
            # Attack: failures of names without end. They forget each other, and neither fill everybody's places nor wipe out a large count.
            weight = (here + earlier if number >= now - 1 else 0, last)
            if chosen < 0 or weight < least:
                chosen, least = place, weight
        _HAPPENED.pack_into(self._map, part + chosen, whose, at, now, min(count + by, 0x7FFFFFFF), before)

    def recent(self, name: str, at: float) -> tuple[float, float]:
        """(about how often of late, when last) in all workers."""
        cells, whose = self._cells(name)
        now = int(at / self._period)
        # Of the period before, the share that is not yet longer ago than `period`.
        share = 1 - (at / self._period - now)
        total = latest = 0.0
        for part in self._parts():
            for place in cells:
                tag, last, number, count, before = _HAPPENED.unpack_from(self._map, part + place)
                if tag != whose:
                    continue
                latest = max(latest, last)
                if number == now:
                    total += count + before * share
                elif number == now - 1:
                    total += count * share
                break
        return total, latest
