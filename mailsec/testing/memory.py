"""Scratch, spool and seal keys in memory: for tests and for commands on small files.

The one invariant: they refuse what the real ones refuse (reading before `seal`, ids that repeat), so that a test with them means something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mailsec.errors import LocalProtocolError, MailsecError, StorageFull
from mailsec.model.octets import BytesOctets, Octets, Segments
from mailsec.model.queue import NewEntry, SpooledEntry, State
from mailsec.model.seal import SealKey

__all__ = ["MemoryScratch", "MemorySealKeys", "MemorySpool", "Row"]


class MemoryScratch:
    """`interfaces.Scratch` in memory."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._length = 0
        self._sealed: BytesOctets | None = None
        self.discarded = False

    def append(self, chunk: bytes | memoryview) -> None:
        if self._sealed is not None or self.discarded:
            raise LocalProtocolError("a scratch was written after it was sealed or discarded")
        self._chunks.append(bytes(chunk))
        self._length += len(chunk)

    def __len__(self) -> int:
        return self._length

    def seal(self) -> Octets:
        if self.discarded:
            raise LocalProtocolError("a scratch was sealed after it was discarded")
        if self._sealed is None:
            self._sealed = BytesOctets(b"".join(self._chunks))
            self._chunks.clear()
        return self._sealed

    def discard(self) -> None:
        self._chunks.clear()
        self._sealed = None
        self.discarded = True


class MemorySealKeys:
    """`interfaces.SealKeys` in memory: the first of `keys` seals."""

    def __init__(self, *keys: SealKey) -> None:
        self.keys = list(keys)

    async def current(self) -> SealKey:
        return self.keys[0]

    async def find(self, key_id: str) -> SealKey | None:
        return next((key for key in self.keys if key.id == key_id), None)


class Row(NamedTuple):
    """A committed entry with the octets as they were at that moment."""

    entry: NewEntry
    octets: bytes


class MemorySpool:
    """`interfaces.Spool` in memory: `rows` in the order of commits; `fail_with` is raised by the next commits while it is set."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.commits = 0
        self.fail_with: MailsecError | None = None
        self._delayed: set[str] = set()
        self.scratches: list[MemoryScratch] = []

    async def commit(self, entries: Sequence[NewEntry], *, replaces: str = "") -> None:
        if self.fail_with is not None:
            raise self.fail_with
        if replaces:
            self._find(replaces)
            self.rows = [row for row in self.rows if row.entry.id != replaces]
        known = {row.entry.id for row in self.rows}
        rows = [Row(entry, entry.segments.join()) for entry in entries]
        for row in rows:
            if row.entry.id in known:
                raise LocalProtocolError(f"row {row.entry.id} was committed twice")
            known.add(row.entry.id)
        self.rows += rows
        self.commits += 1

    def check_room(self, octets: int = 0) -> None:
        if isinstance(self.fail_with, StorageFull):
            raise self.fail_with

    def many_wait(self, need: str, most: int) -> bool:
        return sum(row.entry.need == need for row in self.rows) >= most

    async def postpone(self, id: str, *, need: str, reason: str, report: NewEntry | None = None) -> None:
        self._change(id, need=need, reason=reason)
        if report is not None:
            await self.commit([report])
            self._delayed.add(id)

    async def hold(self, id: str, reason: str) -> None:
        self._change(id, state=State.HELD, reason=reason)

    def scratch(self) -> MemoryScratch:
        scratch = MemoryScratch()
        self.scratches.append(scratch)
        return scratch

    def in_state(self, state: State) -> list[Row]:
        """The rows in `state`."""
        return [row for row in self.rows if row.entry.state is state]

    def spooled(self, id: str, attempts: int = 0) -> SpooledEntry:
        """The row as `Pipeline.resume` is given it."""
        row = self._find(id)
        octets = BytesOctets(row.octets)
        return SpooledEntry(
            replace(row.entry, segments=Segments.of(octets)), octets, self.rows.index(row) + 1, attempts, delayed=id in self._delayed
        )

    def _find(self, id: str) -> Row:
        for row in self.rows:
            if row.entry.id == id:
                return row
        raise LocalProtocolError(f"there is no row {id}")

    def _change(self, id: str, **changes: Any) -> None:
        row = self._find(id)
        if row.entry.state is not State.RAW:
            raise LocalProtocolError(f"row {id} is not raw")
        self.rows[self.rows.index(row)] = Row(replace(row.entry, **changes), row.octets)
