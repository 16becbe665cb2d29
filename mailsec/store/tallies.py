"""Counts that the workers of one machine share without asking each other: what happened to whom of late, and who has how much now.

Each worker writes into a part of its own of a mapped file, and reads those of all. Names have a place by a keyed digest. In `Gauges` two may
share one: a count can be too high, by chance and not by choice. In a `Tally` nobody pays for another: of too many names the one that counts
least is forgotten. The one invariant: no worker waits for another, and a file that
cannot be had costs the sharing, not the mail.
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
    """A part for each of `workers`; `key` is secret, and the same for all of them."""

    def __init__(self, path: str | None, index: int, workers: int, key: bytes, cell: Struct) -> None:
        self._cell = cell
        self._key = hashlib.sha256(b"places" + key).digest()
        self._part = _PLACES * cell.size
        size = self._part * workers
        self._index, self._workers = index, workers
        try:
            if path is None:
                raise OSError
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size < size:
                    os.ftruncate(descriptor, size)
                # Written out now: a full disk later would end the process that writes into a hole of the file.
                os.posix_fallocate(descriptor, 0, size)
                self._map = mmap.mmap(descriptor, size)
            finally:
                os.close(descriptor)
        except OSError:
            self._map, self._index, self._workers = mmap.mmap(-1, self._part), 0, 1

    def _place(self, name: str) -> int:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=self._key).digest()
        return int.from_bytes(digest, "big") % _PLACES * self._cell.size

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()


class Gauges(_Shared):
    """How much of something each name has now, in all workers."""

    def __init__(self, path: str | None, index: int, workers: int, key: bytes) -> None:
        super().__init__(path, index, workers, key, Struct("<i"))
        own = self._index * self._part
        # What a worker had that had this part before is over. (What happened of late has happened: a Tally keeps it.)
        self._map[own : own + self._part] = bytes(self._part)

    def change(self, name: str, by: int) -> None:
        """Our own part of it."""
        at = self._index * self._part + self._place(name)
        (count,) = self._cell.unpack_from(self._map, at)
        self._cell.pack_into(self._map, at, max(0, count + by))

    def total(self, name: str) -> int:
        """What all have."""
        place = self._place(name)
        return int(sum(self._cell.unpack_from(self._map, worker * self._part + place)[0] for worker in range(self._workers)))


class Tally(_Shared):
    """How often something happened to each name in the last `period` seconds, about, and when it was last."""

    def __init__(self, path: str | None, index: int, workers: int, key: bytes, *, period: float) -> None:
        # whose it is, the instant of the last, the number of its period, the count in that period and in the one before
        super().__init__(path, index, workers, key, Struct("<QdIII"))
        self._period = period

    def _cells(self, name: str) -> tuple[range, int]:
        """(where in a part it may stand, what stands with it)."""
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key).digest()
        first = int.from_bytes(digest[:8], "big") % (_PLACES // _TOGETHER) * _TOGETHER
        size = self._cell.size
        return range(first * size, (first + _TOGETHER) * size, size), int.from_bytes(digest[8:], "big") or 1

    def add(self, name: str, at: float, by: int = 1) -> None:
        """It happened at `at` (seconds since the epoch)."""
        cells, whose = self._cells(name)
        part = self._index * self._part
        now = int(at / self._period)
        chosen, least = -1, (0, 0.0)
        count = before = 0
        for place in cells:
            tag, last, number, here, earlier = self._cell.unpack_from(self._map, part + place)
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
        self._cell.pack_into(self._map, part + chosen, whose, at, now, min(count + by, 0x7FFFFFFF), before)

    def recent(self, name: str, at: float) -> tuple[float, float]:
        """(about how often of late, when last) in all workers."""
        cells, whose = self._cells(name)
        now = int(at / self._period)
        # Of the period before, the share that is not yet longer ago than `period`.
        share = 1 - (at / self._period - now)
        total = latest = 0.0
        for part in range(0, self._workers * self._part, self._part):
            for place in cells:
                tag, last, number, count, before = self._cell.unpack_from(self._map, part + place)
                if tag != whose:
                    continue
                latest = max(latest, last)
                if number == now:
                    total += count + before * share
                elif number == now - 1:
                    total += count * share
                break
        return total, latest
