"""The spool of one worker: an SQLite file that it holds the lock of, and large bodies beside it (promise 1).

    DIRECTORY/spool-0.sqlite      rows, and bodies up to 256 KiB
    DIRECTORY/spool-0.lock        the owner's flock
    DIRECTORY/spool-0.bodies/     larger bodies, one file each
    DIRECTORY/spool-0.wake        a datagram here makes the owner look for wishes

The one invariant: a row changes its state only here, in the process that holds the lock, and in one transaction with whatever
replaces it. `raw`, `held` and secret rows are encrypted, their files included. The relay is handed READY rows and can ask for no
other.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from mailsec.errors import LocalProtocolError, Reply, StorageFull, StoreError, Tampered
from mailsec.interfaces import Runtime
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import BytesOctets, Octets
from mailsec.model.queue import NewEntry, RecipientState, SpooledEntry, State
from mailsec.store.scratch import FileScratch
from mailsec.store.spool_due import begin_raw, begin_ready, come_back, expired_held, recover
from mailsec.store.spool_faults import storage_fault
from mailsec.store.spool_files import BodyFiles
from mailsec.store.spool_rows import (
    SCHEMA_VERSION,
    connect,
    create_schema,
    file_of,
    insert_statement,
    pack_progress,
    pack_row,
    spooled_entry,
)
from mailsec.store.spool_seal import Sealer
from mailsec.store.spool_wishes import carry_out
from mailsec.store.spool_writer import Commit, GroupWriter

__all__ = ["SqliteSpool", "retry_delay"]

_INLINE_OCTETS = 256 * 1024
_RESERVE_OCTETS = 64 * 1024 * 1024
_ROOM_CHECK_SECONDS = 0.5
_UNREADABLE_SECONDS = 300.0
_BROKEN_SECONDS = 1.0


def retry_delay(attempts: int, first: float, longest: float) -> float:
    """Seconds to wait after so many attempts failed: twice as long each time."""
    return min(longest, first * 2.0 ** min(max(attempts - 1, 0), 30))


class SqliteSpool:
    """A `Spool`. Blocking: `open`, `close`. Everything else waits in the runtime, and is called from its one thread."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        index: int,
        data_key: bytes | None,
        runtime: Runtime,
        limits: Limits = DEFAULT_LIMITS,
        *,
        reserve: int = _RESERVE_OCTETS,
    ) -> None:
        self.directory = os.fspath(directory)
        self.index = index
        self.limits = limits
        self.runtime = runtime
        self.on_ready: Callable[[list[SpooledEntry]], None] | None = None
        """Who takes READY rows that have just become durable (the relay); None: they are due at once, for `take_ready`."""
        self.on_wish: Callable[[int], bool] | None = None
        """Who is told that a person holds or deletes a row that may be in the relay's hands; True: it is not, or no more."""
        self.on_raw: Callable[[], None] | None = None
        """Who is told that there are RAW rows to process."""
        self.on_hurry: Callable[[], None] | None = None
        """Who is told that a person wants rows tried now (the relay)."""
        self._reserve = reserve
        self._sealer = Sealer(data_key, runtime.random)
        self._next_row = 1
        self._in_hand: dict[int, str | None] = {}
        self._raw_in_hand: dict[str, SpooledEntry] = {}
        self._suspect = -1
        self._room_until = 0.0
        self._lock = -1
        self._log = -1

    def __repr__(self) -> str:
        return f"<SqliteSpool {self.base}>"

    @property
    def base(self) -> str:
        """The path that all its files begin with."""
        return f"{self.directory}/spool-{self.index}"

    # -- opening and closing ------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the lock and recover: what the last owner had in its hands is due at once; files without a row go away.

        Raises StoreError where another process holds the lock, SchemaError for a file that a newer mailsec wrote.
        """
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)  # noqa: PTH103 - paths are str here
            self._lock = os.open(self.base + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            raise StoreError(f"spool {self.index} belongs to another process", hint="is mailsec running already?") from None
        except OSError as fault:
            raise storage_fault(fault, f"opening spool {self.index}") from fault
        try:
            self.files = BodyFiles(self.base + ".bodies", self._reserve)
            self._connection = connect(self.base + ".sqlite")
            create_schema(self._connection)
            self._recover()
            self._reader = connect(self.base + ".sqlite", read_only=True)
            # The log exists from the first write on and stays while we are connected: this is what commits are made durable by.
            self._log = os.open(self.base + ".sqlite-wal", os.O_RDONLY | os.O_CLOEXEC)
            os.fdatasync(self._log)
            directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fsync(directory)
            os.close(directory)
        except (OSError, sqlite3.Error) as fault:
            self.close()
            raise storage_fault(fault, f"opening spool {self.index}") from fault
        except StoreError:
            self.close()
            raise
        self.writer = GroupWriter(self._connection, self._log, self.files, self.runtime, self._hand_over)

    def _recover(self) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        recover(connection, self.runtime.now().timestamp())
        # Also writes where nothing was in hand, so that the log is there.
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION:d}")
        connection.execute("COMMIT")
        self._next_row = connection.execute("SELECT coalesce(max(row), 0) + 1 FROM entry").fetchone()[0]
        self.files.remove_all_but({name for (name,) in connection.execute("SELECT file FROM entry WHERE file IS NOT NULL")})

    def close(self) -> None:
        """Give everything back. Commits that are under way are lost, as by a kill: call `flush` before."""
        for name in ("_reader", "_connection", "files"):
            if hasattr(self, name):
                getattr(self, name).close()
                delattr(self, name)
        for descriptor in (self._log, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._log = self._lock = -1

    async def flush(self) -> None:
        """Return when everything that was asked for is done."""
        await self.writer.flush()

    # -- the face of `interfaces.Spool` -------------------------------------------------------------------------------

    def scratch(self) -> FileScratch:
        """A Scratch whose file, if it grows one, lies where the spool can give it a name."""
        return FileScratch(self.files.directory, self.limits, self.files.check_room)

    def check_room(self, octets: int = 0) -> None:
        """Raise StorageFull where a message of that size should not even begin, StoreError where too many wait. Cheap: kept for half a second."""
        if self.writer.rows >= self.limits.spooled_messages:
            # RFC 3463 §3.4: X.3.2, the system takes no messages for now.
            reply = Reply(451, "4.3.2", "too much mail waits here already: try again later")
            raise StoreError(
                f"{self.writer.rows} messages wait in spool {self.index}", hint="see mailsec queue list --summary", reply=reply
            )
        now = self.runtime.monotonic()
        if octets > _INLINE_OCTETS or now >= self._room_until:
            try:
                self.files.check_room(octets)
            except StorageFull:
                self.writer.no_room()
                raise
            self._room_until = now + _ROOM_CHECK_SECONDS

    async def commit(self, entries: Sequence[NewEntry], *, replaces: str = "") -> None:
        """All of them or none, durably; raise StorageFull (452) or StoreError (451)."""
        changes: list[tuple[str, tuple[Any, ...]]] | None = None
        replaced: SpooledEntry | None = None
        if replaces:
            replaced = self._raw(replaces)
            changes = [("DELETE FROM entry WHERE row = ? AND state = 'raw'", (replaced.row,))]
        await self._commit(entries, changes)
        if replaced is not None:
            del self._raw_in_hand[replaces]
            file = self._in_hand.pop(replaced.row)
            if file is not None:
                await self.runtime.in_thread(self.files.remove, (file,), lane="spool")

    def many_wait(self, need: str, most: int) -> bool:
        """True where `most` raw rows or more wait for `need`."""
        return self._any("SELECT 1 FROM entry WHERE state = 'raw' AND need = ? LIMIT 1 OFFSET ?", need, max(0, most - 1))

    async def postpone(self, id: str, *, need: str, reason: str, report: NewEntry | None = None) -> None:
        """A raw row waits on; it is tried again after 10 seconds, and later each time up to 10 minutes. `report` tells its sender so."""
        row = self._raw(id)
        due = self.runtime.now().timestamp() + retry_delay(row.attempts + 1, 10.0, 600.0)
        statement = "UPDATE entry SET next_attempt = ?, begun = 0, need = ?, reason = ?, delayed = max(delayed, ?) WHERE row = ?"
        await self._put_back(id, statement, (due, need, reason, report is not None, row.row), () if report is None else (report,))

    async def postpone_failed(self, id: str, reason: str) -> None:
        """A raw row that our own code failed on: tried again later, and held like one that took its worker down when that was too often."""
        row = self._raw(id)
        due = self.runtime.now().timestamp() + retry_delay(row.attempts + 1, 10.0, 600.0)
        await self._put_back(id, "UPDATE entry SET next_attempt = ?, reason = ? WHERE row = ?", (due, reason, row.row))

    async def hold(self, id: str, reason: str) -> None:
        """A raw row waits for a person."""
        row = self._raw(id)
        await self._put_back(id, "UPDATE entry SET state = 'held', begun = 0, reason = ? WHERE row = ?", (reason, row.row))

    # -- raw rows -----------------------------------------------------------------------------------------------------

    async def take_raw(self, limit: int = 16) -> list[SpooledEntry]:
        """RAW rows that are due, each with its attempt counted durably before it is begun: one that takes us down is held in the end.

        Every one of them must be given to `commit(replaces=…)`, `postpone` or `hold`.
        """
        now, most = self.runtime.now().timestamp(), self.limits.attempts_before_hold

        def take(connection: sqlite3.Connection) -> list[tuple[SpooledEntry, str | None]]:
            return self._read(connection, begin_raw(connection, now, limit, most))

        taken = self._take(await self.writer.submit(Commit([], job=take)))
        for entry in taken:
            self._raw_in_hand[entry.entry.id] = entry
        return taken

    async def wake(self, need: str) -> None:
        """What raw rows waited for is back: try them now."""
        statement = "UPDATE entry SET next_attempt = ? WHERE state = 'raw' AND need = ? AND next_attempt IS NOT NULL"
        await self.writer.submit(Commit([], changes=[(statement, (self.runtime.now().timestamp(), need))], durable=False))
        if self.on_raw is not None:
            self.on_raw()

    async def hasten(self) -> None:
        """Everything that waits for its next attempt is due now."""
        statement = "UPDATE entry SET next_attempt = ? WHERE state IN ('raw', 'ready') AND next_attempt > ?"
        now = self.runtime.now().timestamp()
        await self.writer.submit(Commit([], changes=[(statement, (now, now))], durable=False))

    def _raw(self, id: str) -> SpooledEntry:
        row = self._raw_in_hand.get(id)
        if row is None:
            raise LocalProtocolError(f"no raw row {id} was taken")
        return row

    async def _put_back(self, id: str, statement: str, values: tuple[Any, ...], reports: Sequence[NewEntry] = ()) -> None:
        await self._commit(reports, [(statement, values)])
        self._in_hand.pop(self._raw_in_hand.pop(id).row, None)

    # -- held rows ----------------------------------------------------------------------------------------------------

    async def expired_held(self, before: datetime, limit: int = 64) -> list[SpooledEntry]:
        """Rows that wait for a person since `before` and longer, and whose senders may be told: for `bounce_held`."""

        def read(connection: sqlite3.Connection) -> list[tuple[SpooledEntry, str | None]]:
            return self._read(connection, expired_held(connection, before.timestamp(), limit))

        if not self._any("SELECT 1 FROM entry WHERE state = 'held' AND received_at <= ? LIMIT 1", before.timestamp()):
            return []
        return [entry for entry, _ in await self.writer.submit(Commit([], job=read, durable=False))]

    async def bounce_held(self, row: int, report: NewEntry) -> bool:
        """Put `report` (a small READY row) in the place of a held row, where a person has not released it meanwhile."""
        number, octets = self.new_row(), report.segments.join()
        packed = pack_row(
            number, report, next_attempt=self.runtime.now().timestamp(), size=len(octets), file=None, body=octets, sealer=None
        )

        def change(connection: sqlite3.Connection) -> str | None:
            query = "SELECT file FROM entry WHERE row = ? AND state = 'held' AND wish IS NULL"
            found: tuple[str | None] | None = connection.execute(query, (row,)).fetchone()
            if found is None:
                return None
            connection.execute("DELETE FROM entry WHERE row = ?", (row,))
            connection.execute(insert_statement(1), packed)
            return found[0] or ""

        file = await self.writer.submit(Commit([], job=change))
        if file:
            await self.runtime.in_thread(self.files.remove, (file,), lane="spool")
        return file is not None

    # -- ready rows: for the relay ------------------------------------------------------------------------------------

    async def take_ready(self, limit: int = 32) -> list[SpooledEntry]:
        """READY rows that are due; each must be given to `finish`, `settle` or `give_back`."""
        now, most = self.runtime.now().timestamp(), self.limits.attempts_before_hold

        def take(connection: sqlite3.Connection) -> list[tuple[SpooledEntry, str | None]]:
            rows, suspect = begin_ready(connection, now, limit, self._in_hand, most, alone=self._suspect not in self._in_hand)
            self._suspect = suspect if suspect is not None else self._suspect
            return self._read(connection, rows)

        if not self._any("SELECT 1 FROM ready WHERE next_attempt <= ? LIMIT 1", now):
            return []
        return self._take(await self.writer.submit(Commit([], job=take, durable=False)))

    async def come_back(self, seconds: float) -> None:
        """No row waits longer than `seconds`: one that does was put back before the clock was."""
        now = self.runtime.now().timestamp()
        query = "SELECT 1 FROM entry WHERE state = ? AND next_attempt > ? LIMIT 1"
        if self._any(query, "ready", now + seconds) or self._any(query, "raw", now + seconds):
            await self.writer.submit(Commit([], job=lambda connection: come_back(connection, now, now + seconds), durable=False))

    def finish(self, row: int) -> None:
        """Every recipient is done: the row goes away with the next group."""
        self.writer.discard(row, self._in_hand.pop(row, None))

    async def settle(
        self,
        row: int,
        progress: Sequence[tuple[RecipientState, str]],
        *,
        next_attempt: float | None,
        reports: Sequence[NewEntry] = (),
        hold: str = "",
        delayed: bool = False,
    ) -> None:
        """Write down what became of each recipient, together with the DSNs about it, and that the sender knows of the delay.

        `next_attempt` None: nobody is waiting any more, and the row goes away, unless `hold` says why a person has to see it.
        """
        file = self._in_hand.get(row)
        change: tuple[str, tuple[Any, ...]]
        if hold:
            change = (
                "UPDATE entry SET paused = 1, reason = ?, progress = ?, next_attempt = NULL WHERE row = ?",
                (hold, pack_progress(progress), row),
            )
        elif next_attempt is None:
            change = ("DELETE FROM entry WHERE row = ?", (row,))
        else:
            change = (
                "UPDATE entry SET attempts = attempts + 1, begun = 0, progress = ?, next_attempt = ?, delayed = max(delayed, ?) WHERE row = ?",
                (pack_progress(progress), next_attempt, delayed, row),
            )
        await self._commit(reports, [change])
        self._in_hand.pop(row, None)
        if next_attempt is None and not hold and file is not None:
            await self.runtime.in_thread(self.files.remove, (file,), lane="spool")

    async def give_back(self, rows: Sequence[int], due: float | None = None) -> None:
        """Rows that were handed over and not begun: read again at `due` (POSIX seconds; now)."""
        due = self.runtime.now().timestamp() if due is None else due
        statement = "UPDATE entry SET next_attempt = ? WHERE row = ? AND next_attempt IS NULL"
        await self.writer.submit(Commit([], changes=[(statement, (due, row)) for row in rows], durable=False))
        for row in rows:
            self._in_hand.pop(row, None)

    # -- wishes -------------------------------------------------------------------------------------------------------

    async def carry_out_wishes(self) -> int:
        """Do what `mailsec queue` wrote down, some of it where that is much; return how many wishes were carried out."""
        if not self._any("SELECT 1 FROM entry WHERE wish IS NOT NULL LIMIT 1"):
            return 0
        now = self.runtime.now().timestamp()
        raw_in_hand = frozenset(entry.row for entry in self._raw_in_hand.values())
        wishes = await self.writer.submit(Commit([], job=lambda connection: carry_out(connection, now, raw_in_hand)))
        self.writer.rows -= sum(wish.word == "delete" for wish in wishes)
        removed = []
        for wish in wishes:
            if wish.word in ("hold", "delete") and (self.on_wish is None or self.on_wish(wish.row)):
                self._in_hand.pop(wish.row, None)
            if wish.word == "delete":
                removed.append(wish.file)
        files = [file for file in removed if file is not None]
        if files:
            await self.runtime.in_thread(self.files.remove, files, lane="spool")
        if any(wish.word in ("release", "retry", "flush") for wish in wishes):
            for told in (self.on_hurry, self.on_raw):
                if told is not None:
                    told()
        return len(wishes)

    @property
    def in_hand(self) -> int:
        """How many rows are being processed or delivered."""
        return len(self._in_hand)

    def new_row(self) -> int:
        """A number that no row has."""
        number = self._next_row
        self._next_row += 1
        return number

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _commit(self, entries: Sequence[NewEntry], changes: list[tuple[str, tuple[Any, ...]]] | None) -> None:
        rows: list[tuple[Any, ...]] = []
        ready: list[SpooledEntry] = []
        files: list[str] = []
        raw = False
        commit: Commit | None = None
        if entries and changes is None:
            # What takes the place of something else may use the reserve: it is what makes room again.
            self.check_room()
        try:
            for entry in entries:
                number = self.new_row()
                state = entry.state
                sealer = self._sealer if entry.secret or state is not State.READY else None
                size = len(entry.segments)
                file: str | None = None
                body: bytes | None = None
                octets: Octets
                if size <= _INLINE_OCTETS:
                    clear = entry.segments.join()
                    octets = BytesOctets(clear)
                    body = clear if sealer is None else sealer.seal_small(f"{entry.id} body", clear)
                else:
                    file = f"{number}.body"
                    self.check_room(size)
                    await self.runtime.in_thread(self.files.write, file, entry.segments, sealer, f"{entry.id} body", lane="bulk")
                    files.append(file)
                    octets = self.files.open(file) if sealer is None else sealer.open(f"{entry.id} body", self.files.open(file))
                due: float | None = None
                if state is State.READY and self.on_ready is not None:
                    self._in_hand[number] = file
                    ready.append(SpooledEntry(entry, octets, number))
                elif state is not State.HELD:
                    due = self.runtime.now().timestamp()
                    raw = raw or state is State.RAW
                rows.append(pack_row(number, entry, next_attempt=due, size=size, file=file, body=body, sealer=sealer))
            commit = Commit(rows, ready=ready or None, changes=changes)
            await self.writer.submit(commit)
        except BaseException:
            in_hand = {entry_in_hand.row: self._in_hand.pop(entry_in_hand.row, None) for entry_in_hand in ready}
            if commit is None or not commit.written:
                self.files.remove(files)
            elif changes is None:
                # Its sync failed, and whoever sent it is told so and sends it again: the row goes away, and only then its file.
                for row in rows:
                    self.writer.discard(row[0], file_of(row))
            else:
                # What it takes the place of is gone from the database: this is now all there is of it.
                self.runtime.start(self._bring_back(list(in_hand)), "spool")
            raise
        if raw and self.on_raw is not None:
            self.on_raw()

    async def _bring_back(self, rows: Sequence[int]) -> None:
        """Have rows tried that were written by a commit whose sync failed, as soon as that is mended."""
        while True:
            try:
                await self.give_back(rows)
                return
            except StoreError:
                await self.runtime.sleep(_BROKEN_SECONDS)

    def _take(self, taken: list[tuple[SpooledEntry, str | None]]) -> list[SpooledEntry]:
        self._in_hand.update((entry.row, file) for entry, file in taken)
        return [entry for entry, _ in taken]

    def _any(self, query: str, *values: Any) -> bool:
        try:
            return self._reader.execute(query, values).fetchone() is not None
        except sqlite3.Error as fault:
            raise storage_fault(fault, "reading the spool") from fault

    def _hand_over(self, ready: list[SpooledEntry]) -> None:
        if self.on_ready is not None:
            self.on_ready(ready)

    def _read(self, connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> list[tuple[SpooledEntry, str | None]]:
        """Rows of `WHOLE`, those left out that cannot be read: one that was tampered with must not keep the others waiting."""
        read = []
        for values in rows:
            try:
                read.append((spooled_entry(values, self._sealer, self.files.open), values[-3]))
            except (Tampered, ValueError, TypeError, LookupError, AttributeError) as error:
                # What is no row of ours in any column: a damaged disk, or somebody's editor.
                connection.execute(
                    "UPDATE entry SET state = CASE state WHEN 'raw' THEN 'held' ELSE state END, paused = 1, next_attempt = NULL, begun = 0, "
                    "reason = ? WHERE row = ?",
                    (error.message if isinstance(error, Tampered) else "the row cannot be read: it was damaged or edited", values[0]),
                )
            except StoreError as error:
                later = self.runtime.now().timestamp() + _UNREADABLE_SECONDS
                connection.execute(
                    "UPDATE entry SET next_attempt = ?, begun = 0, reason = ? WHERE row = ?", (later, error.message, values[0])
                )
        return read
