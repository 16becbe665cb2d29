"""Orphans: spools that no worker owns any more (there are fewer workers than there were, or their generation has ended) go into a living one.

The one invariant: a row is durable in the new spool before it leaves the old one. A kill in between leaves it in both: delivered
twice, never zero times.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Collection
from typing import Any

from mailsec.store.crashpoints import crash_point
from mailsec.store.spool import SqliteSpool
from mailsec.store.spool_faults import storage_fault
from mailsec.store.spool_queue import spool_indexes
from mailsec.store.spool_rows import connect, create_schema
from mailsec.store.spool_writer import Commit

__all__ = ["adopt_orphans"]

_ROWS_AT_ONCE = 64


async def adopt_orphans(spool: SqliteSpool, owned: Collection[int]) -> int:
    """Move the rows of spools whose index is not in `owned` into `spool`; return how many. Raises StoreError."""
    adopted = 0
    for index in spool_indexes(spool.directory):
        if index not in owned and index != spool.index:
            adopted += await _adopt(spool, f"{spool.directory}/spool-{index}")
    return adopted


async def _adopt(spool: SqliteSpool, base: str) -> int:
    try:
        lock = os.open(base + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as fault:
        raise storage_fault(fault, "adopting a spool") from fault
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:  # somebody lives there, or adopts it already
        os.close(lock)
        return 0
    adopted = 0
    try:
        connection = connect(base + ".sqlite")
        try:
            create_schema(connection)
            while batch := await spool.runtime.in_thread(_read, connection, lane="bulk"):
                adopted += await _take(spool, base, connection, *batch)
        finally:
            connection.close()
        # The lock file stays: whoever waits for the lock must not get one on a file that is gone.
        for suffix in (".sqlite", ".sqlite-wal", ".sqlite-shm", ".wake"):
            try:
                os.unlink(base + suffix)  # noqa: PTH108 - paths are str here
            except FileNotFoundError:
                continue
        try:
            os.rmdir(base + ".bodies")  # noqa: PTH106
        except OSError:  # a leftover in it: it does no harm
            return adopted
        return adopted
    except (OSError, sqlite3.Error) as fault:
        raise storage_fault(fault, "adopting a spool") from fault
    finally:
        os.close(lock)


def _read(connection: sqlite3.Connection) -> tuple[list[str], list[tuple[Any, ...]]] | None:
    cursor = connection.execute("SELECT * FROM entry ORDER BY row LIMIT ?", (_ROWS_AT_ONCE,))
    names = [column[0] for column in cursor.description]
    rows = cursor.fetchall()
    return (names, rows) if rows else None


async def _take(spool: SqliteSpool, base: str, connection: sqlite3.Connection, names: list[str], rows: list[tuple[Any, ...]]) -> int:
    now = spool.runtime.now().timestamp()
    row_at, file_at, state_at, due_at = (names.index(name) for name in ("row", "file", "state", "next_attempt"))
    statement = f"INSERT INTO entry ({','.join(names)}) VALUES ({','.join('?' * len(names))})"  # noqa: S608 - column names of ours
    changes: list[tuple[str, tuple[Any, ...]]] = []
    old_files = []
    for old in rows:
        values = list(old)
        number = spool.new_row()
        values[row_at] = number
        if old[file_at] is not None:
            old_files.append(f"{base}.bodies/{os.path.basename(old[file_at])}")  # noqa: PTH119
            values[file_at] = f"{number}.body"
            # The seal is bound to the id of the row, not to its number or file: octets move as they are.
            await spool.runtime.in_thread(spool.files.adopt, old_files[-1], values[file_at], lane="bulk")
        if old[due_at] is None and old[state_at] != "held":  # it was in the hands of whoever died
            values[due_at] = now
        changes.append((statement, tuple(values)))
    await spool.writer.submit(Commit([], changes=changes))
    crash_point("adopt.copied")
    await spool.runtime.in_thread(_forget, connection, [old[row_at] for old in rows], old_files, lane="bulk")
    if spool.on_raw is not None:
        spool.on_raw()
    return len(rows)


def _forget(connection: sqlite3.Connection, rows: list[int], files: list[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany("DELETE FROM entry WHERE row = ?", [(row,) for row in rows])
    connection.execute("COMMIT")
    for path in files:
        try:
            os.unlink(path)  # noqa: PTH108
        except FileNotFoundError:
            continue
