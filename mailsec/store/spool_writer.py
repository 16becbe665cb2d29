"""Group commit: whatever asks to be durable while one commit is under way shares the next one, and its fsync.

The one invariant: `submit` returns after the rows would survive a kill and a loss of power. SQLite runs in WAL mode. Its
synchronous=FULL is NORMAL and an fsync of the log after each transaction; we do that fsync ourselves, in a thread, because the
transaction is a few system calls into the page cache (15 microseconds a message) and only the fsync is worth a thread. SQLite in a
thread of its own would have to win the interpreter's lock back after every statement, up to 5 ms each time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any

from mailsec.errors import MailsecError, StorageFull, StoreError
from mailsec.interfaces import Runtime, Signal
from mailsec.model.queue import SpooledEntry
from mailsec.store.crashpoints import crash_point
from mailsec.store.spool_faults import storage_fault
from mailsec.store.spool_files import BodyFiles
from mailsec.store.spool_rows import delete_statement, insert_statement

__all__ = ["Commit", "GroupWriter"]

_ROWS_AT_ONCE = 32
_TURNS = 4
_CHECKPOINT_OCTETS = 16 * 1024 * 1024
"""Octets of log after which it is copied into the database."""
_SPARE_PAGES = 2048
"""Pages of 4 KiB that are given back at a time; four times as many may stay in the file for the mail to come."""
_DISCARD_DELAY = 0.05
_RETRY_DELAY = 1.0
_BUSY_INLINE = 20
_BUSY_IN_THREAD = 5000
"""Milliseconds to wait for `mailsec queue` to end its write: a short time where we keep others waiting."""
_SQLITE_BUSY = 5


class Commit:
    """What one caller wants in a transaction: rows to insert, changes as (statement, values), and a job that reads and writes."""

    __slots__ = ("changes", "durable", "fault", "job", "ready", "result", "rows", "written")

    def __init__(
        self,
        rows: list[tuple[Any, ...]],
        *,
        ready: list[SpooledEntry] | None = None,
        changes: list[tuple[str, tuple[Any, ...]]] | None = None,
        job: Callable[[sqlite3.Connection], Any] | None = None,
        durable: bool = True,
    ) -> None:
        self.rows = rows
        self.ready = ready
        self.changes = changes
        self.job = job
        self.durable = durable
        """False where a loss of power may undo it without harm: the fsync then waits for somebody who needs it."""
        self.fault: Exception | None = None
        self.written = False
        """True once its transaction has ended well: where it fails behind that, nobody knows whether it is durable, and it is in the database."""
        self.result: Any = None


class _Group:
    __slots__ = ("commits", "signal")

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.commits: list[Commit] = []


class GroupWriter:
    """The one writer of one spool's database."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        log_descriptor: int,
        files: BodyFiles,
        runtime: Runtime,
        on_ready: Callable[[list[SpooledEntry]], None],
    ) -> None:
        self._connection = connection
        self._log = log_descriptor
        self._files = files
        self._runtime = runtime
        self._on_ready = on_ready
        self._group: _Group | None = None
        self._running = False
        self._waiting = False
        self._discarded: list[int] = []
        self._removed: list[str] = []
        self._since_checkpoint = 0
        self._busy_timeout = -1
        self._grown = 0
        self.broken: StoreError | None = None
        """Set when an fsync failed: what the kernel did with those pages is unknown, so nothing is promised until it is mended."""
        self._mend_at = 0.0
        self._full = False
        self._stuck = False
        self.rows = connection.execute("SELECT count(*) FROM entry").fetchone()[0]
        """Rows in the database, as the last transaction left it."""

    async def submit(self, commit: Commit) -> Any:
        """Have `commit` done with the next group; return its job's result, or raise what went wrong with it."""
        if self.broken is not None:
            await self._mend(self.broken)
        group = self._group
        if group is None:
            group = self._group = _Group(self._runtime.signal())
            if not self._running:
                self._running = True
                self._runtime.start(self._run(), "spool writer")
        group.commits.append(commit)
        await group.signal.wait()
        if commit.fault is not None:
            raise _again(commit.fault)
        return commit.result

    def discard(self, row: int, file: str | None) -> None:
        """Delete a row with the next group, or soon: nobody waits for it, and a row that comes back is delivered twice, not lost."""
        self._discarded.append(row)
        if file is not None:
            self._removed.append(file)
        if not self._running and not self._waiting:
            self._discard_later(_DISCARD_DELAY)

    def _discard_later(self, seconds: float) -> None:
        self._waiting = True
        self._runtime.start(self._wait_and_discard(seconds), "spool writer")

    async def _wait_and_discard(self, seconds: float) -> None:
        await self._runtime.sleep(seconds)
        self._waiting = False
        if self._discarded and not self._running:
            self._running = True
            await self._run()

    async def _mend(self, broken: StoreError) -> None:
        """After a failed fsync: have everything written once more, at most once a second; raise what is wrong until that succeeds."""
        now = self._runtime.monotonic()
        if now < self._mend_at or self._running:
            raise _again(broken)
        self._mend_at = now + _RETRY_DELAY
        self._running = True
        try:
            await self._runtime.in_thread(self._copy_log, lane="spool")
        except (OSError, sqlite3.Error, StoreError) as fault:
            raise _again(storage_fault(fault, "mending the spool")) from fault
        finally:
            self._running = False
        self.broken = None

    def _copy_log(self) -> None:
        """The pages of the log are right in memory, and may never reach the disk; copied into the database they are written afresh."""
        busy, pages, copied = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or pages != copied:
            raise StoreError("the log of the spool cannot be copied now", hint="is a `mailsec queue` stopped?")
        os.fdatasync(self._log)

    async def flush(self) -> None:
        """Return when everything that was asked for before is durable."""
        if self.broken is None or self._discarded:
            await self.submit(Commit([]))

    # -- one group after the other ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            while True:
                await self._until_nobody_joins()
                group, self._group = self._group, None
                if self._full:
                    await self._make_room()
                if group is None:
                    if not self._discarded or self._waiting:
                        return
                    group = _Group(self._runtime.signal())
                    await self._write(group)
                    return
                await self._write(group)
        finally:
            self._running = False
            self._continue()

    async def _until_nobody_joins(self) -> None:
        """Whatever else asks in this turn of the reactor comes into the same group, and in the next turns, as long as somebody does.

        A turn is shorter than an fsync and its way to a thread and back, which all of them then share.
        """
        joined = 0
        for _ in range(_TURNS):
            await self._runtime.sleep(0)
            if self._group is None or len(self._group.commits) == joined:
                return
            joined = len(self._group.commits)

    def _continue(self) -> None:
        """Go on with what was asked for while we were on our way out."""
        if self._group is not None:
            self._running = True
            self._runtime.start(self._run(), "spool writer")
        elif self._discarded and not self._waiting and self.broken is None:
            self._discard_later(_RETRY_DELAY if self._full else _DISCARD_DELAY)

    async def _write(self, group: _Group) -> None:
        discarded, self._discarded = self._discarded, []
        removed, self._removed = self._removed, []
        commits = group.commits
        try:
            if self.broken is not None:
                # It waited while the sync of the group before it failed: behind pages that may never reach the disk nothing of the log counts.
                raise _again(self.broken)
            durable = any(commit.durable for commit in commits)
            done = False
            if self._since_checkpoint < _CHECKPOINT_OCTETS:
                done = self._transact(commits, discarded, _BUSY_INLINE)
                if done and (durable or removed):
                    await self._runtime.in_thread(self._settle, durable, removed, lane="spool")
            if not done:
                await self._runtime.in_thread(self._write_all, commits, discarded, durable, removed, lane="spool")
        except Exception as fault:
            # Covers cancellation of the worker too: whoever waits must not wait for ever.
            error = storage_fault(fault, "writing the spool")
            for commit in commits:
                commit.fault = commit.fault or error
            self._discarded[:0] = discarded
            self._removed[:0] = removed
            if isinstance(error, StorageFull):
                self._full = self._stuck = True
            if not isinstance(fault, MailsecError | OSError | sqlite3.Error):
                raise
        finally:
            group.signal.fire()
        ready = [row for commit in commits if commit.ready is not None and commit.fault is None for row in commit.ready]
        if ready:
            self._on_ready(ready)

    def no_room(self) -> None:
        """Somebody was refused for want of room: see what can be given back."""
        self._full = True
        if not self._running:
            self._running = True
            self._runtime.start(self._run(), "spool writer")

    async def _make_room(self) -> None:
        """Give back what the database does not need, at most once a second.

        Even a deletion needs room in the log: where that failed the ballast goes first; then the log begins anew, then the file shrinks.
        """
        now = self._runtime.monotonic()
        if now < self._mend_at:
            return
        self._mend_at = now + _RETRY_DELAY
        try:
            await self._runtime.in_thread(self._shrink, lane="spool")
            self._full = self._stuck = False
        except (OSError, sqlite3.Error, StoreError):
            return  # it is tried again with the next refusal

    def _shrink(self) -> None:
        if self._stuck:
            self._files.drop_ballast()
        self._copy_log()
        self._vacuum(4 * _SPARE_PAGES)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._since_checkpoint = 0

    def _vacuum(self, pages: int) -> None:
        # A page for each step, and execute() makes one step of what has no columns.
        self._connection.executescript(f"PRAGMA incremental_vacuum({pages:d})")

    def _write_all(self, commits: list[Commit], discarded: list[int], durable: bool, removed: list[str]) -> None:
        """Everything in the thread: where a checkpoint is due (it, and the next transaction, fsync), or somebody held the lock."""
        if self._since_checkpoint >= _CHECKPOINT_OCTETS:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._since_checkpoint = 0
            if self._connection.execute("PRAGMA freelist_count").fetchone()[0] > 4 * _SPARE_PAGES:
                # A backlog is gone: its pages go back to the disk, some at a time.
                self._vacuum(_SPARE_PAGES)
            crash_point("spool.checkpoint.after")
        if not self._transact(commits, discarded, _BUSY_IN_THREAD):
            raise StoreError("another program holds the database of the spool locked", hint="is a `mailsec queue` stopped?")
        self._settle(durable, removed)

    def _settle(self, durable: bool, removed: list[str]) -> None:
        if durable:
            try:
                os.fdatasync(self._log)
            except OSError as fault:
                self.broken = storage_fault(fault, "syncing the spool")
                raise self.broken from fault
            crash_point("spool.sync.after")
        if removed:
            self._files.remove(removed)
            crash_point("spool.delete.after")

    # -- one transaction ----------------------------------------------------------------------------------------------

    def _transact(self, commits: list[Commit], discarded: list[int], busy_timeout: int) -> bool:
        """Write all in one transaction; False where somebody else holds the lock. Raises where the storage is at fault."""
        connection = self._connection
        self._grown = 0
        if busy_timeout != self._busy_timeout:
            connection.execute(f"PRAGMA busy_timeout = {busy_timeout:d}")
            self._busy_timeout = busy_timeout
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as fault:
            if fault.sqlite_errorcode & 0xFF == _SQLITE_BUSY:
                return False
            raise
        try:
            self._insert([row for commit in commits for row in commit.rows])
            for commit in commits:
                self._change(commit)
            self._delete(discarded)
            crash_point("spool.commit.before")
            connection.execute("COMMIT")
            self.rows += self._grown
            for commit in commits:
                commit.written = True
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as fault:
            self._roll_back()
            if isinstance(fault, sqlite3.OperationalError) or len(commits) < 2:
                raise
            self._one_by_one(commits, discarded)
        except Exception:
            # Something is wrong with one of them (a string that is no text): it must not take the others with it.
            self._roll_back()
            self._one_by_one(commits, discarded)
        crash_point("spool.commit.after")
        return True

    def _one_by_one(self, commits: list[Commit], discarded: list[int]) -> None:
        connection = self._connection
        for commit in commits:
            self._grown = 0
            try:
                connection.execute("BEGIN IMMEDIATE")
                self._insert(commit.rows)
                self._change(commit)
                connection.execute("COMMIT")
                self.rows += self._grown
                commit.written = True
            except Exception as fault:
                self._roll_back()
                commit.fault = storage_fault(fault, "writing a row of the spool")
        if discarded:
            self._grown = 0
            connection.execute("BEGIN IMMEDIATE")
            self._delete(discarded)
            connection.execute("COMMIT")
            self.rows += self._grown

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        execute = self._connection.execute
        start = 0
        while start < len(rows):
            # Powers of two, so that a handful of prepared statements serve every size.
            size = min(_ROWS_AT_ONCE, 1 << ((len(rows) - start).bit_length() - 1))
            values: list[Any] = []
            for row in rows[start : start + size]:
                values += row
                self._since_checkpoint += 4096 + (len(row[-1]) if row[-1] else 0)
            execute(insert_statement(size), values)
            self._grown += size
            start += size

    def _change(self, commit: Commit) -> None:
        if commit.changes is not None:
            for statement, values in commit.changes:
                changed = self._connection.execute(statement, values)
                if statement.startswith("INSERT"):
                    self._grown += changed.rowcount
                elif statement.startswith("DELETE"):
                    self._grown -= changed.rowcount
                self._since_checkpoint += 4096
        if commit.job is not None:
            commit.result = commit.job(self._connection)
            self._since_checkpoint += 4096

    def _delete(self, rows: list[int]) -> None:
        start = 0
        while start < len(rows):
            size = min(_ROWS_AT_ONCE, 1 << ((len(rows) - start).bit_length() - 1))
            self._grown -= self._connection.execute(delete_statement(size), rows[start : start + size]).rowcount
            self._since_checkpoint += 4096 * size
            start += size


def _again(fault: Exception) -> Exception:
    """The fault for one more caller: an exception that is raised twice grows its traceback each time."""
    if isinstance(fault, MailsecError):
        return type(fault)(fault.message, hint=fault.hint, reply=fault.reply)
    return fault
