"""The queue as people see it: every spool of a directory, read without disturbing its owner; wishes written for the owner to carry out.

The one invariant: nothing here changes the state of a row, except where no process owns the spool: then the lock is taken for that
moment, and wishes are carried out here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mailsec.errors import StoreError
from mailsec.model.queue import QueueEntry
from mailsec.store.spool_faults import storage_fault
from mailsec.store.spool_rows import METADATA, SCHEMA_VERSION, queue_entry
from mailsec.store.spool_wishes import WISHES, Wish, carry_out

__all__ = ["list_queue", "make_wish", "spool_indexes"]

_NAME = re.compile(r"spool-([0-9]{1,4})\.sqlite\Z")
_WAKE_PATH_OCTETS = 107
_LOOKS = 10
_LOOK_AGAIN_SECONDS = 0.02
_AT_ONCE = 5000


def spool_indexes(directory: str | os.PathLike[str]) -> list[int]:
    """The numbers of the spools in `directory`; raise StoreError where it cannot be read."""
    try:
        names = [path.name for path in Path(directory).iterdir()]
    except OSError as fault:
        raise storage_fault(fault, f"reading the spool {os.fspath(directory)}") from fault
    return sorted(int(match[1]) for match in map(_NAME.match, names) if match)


def list_queue(directory: str | os.PathLike[str], told: Callable[[int], object] = lambda found: None) -> list[QueueEntry]:
    """Every row of every spool, oldest first. `told`: how many were found so far."""
    for left in reversed(range(_LOOKS)):
        try:
            return sorted(_rows(directory, told), key=lambda entry: (entry.received_at, entry.id))
        except StoreError:
            # A spool is being made, or was adopted while it was read: its rows are in another now, which may have been read before.
            if not left:
                raise
            time.sleep(_LOOK_AGAIN_SECONDS)
    raise AssertionError


def _rows(directory: str | os.PathLike[str], told: Callable[[int], object]) -> list[QueueEntry]:
    entries: list[QueueEntry] = []
    for index in spool_indexes(directory):
        with _connected(directory, index, read_only=True) as connection:
            rows = connection.execute(f"SELECT {METADATA} FROM entry").fetchall()  # noqa: S608 - column names of ours
        entries += [queue_entry(row, str(index)) for row in rows]
        told(len(entries))
    return entries


def make_wish(
    directory: str | os.PathLike[str],
    entries: Sequence[QueueEntry],
    word: str,
    *,
    now: Callable[[], float],
    told: Callable[[int], object] = lambda done: None,
) -> tuple[int, bool]:
    """Write `word` into the rows of `entries`; (how many there still were, whether a running owner carries it out). `told`: how far it is."""
    assert word in WISHES
    written = 0
    owned = False
    done = 0
    for index in sorted({int(entry.worker) for entry in entries}):
        ids = [entry.id for entry in entries if entry.worker == str(index)]
        with _connected(directory, index) as connection:
            for start in range(0, len(ids), _AT_ONCE):
                # One look through the rows for all of these (ids have no index: a row that is delivered at once should touch none), and
                # a transaction that is short enough for the owner to wait for.
                some = ids[start : start + _AT_ONCE]
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("CREATE TEMP TABLE IF NOT EXISTS wished (id TEXT PRIMARY KEY)")
                connection.execute("DELETE FROM wished")
                connection.executemany("INSERT OR IGNORE INTO wished VALUES (?)", [(id,) for id in some])
                written += connection.execute("UPDATE entry SET wish = ? WHERE id IN (SELECT id FROM wished)", (word,)).rowcount
                connection.execute("COMMIT")
                done += len(some)
                told(done)
            if _carry_out_alone(directory, index, connection, now):
                continue
        owned = True
        _wake(f"{os.fspath(directory)}/spool-{index}.wake")
    return written, owned


@contextlib.contextmanager
def _connected(directory: str | os.PathLike[str], index: int, *, read_only: bool = False) -> Iterator[sqlite3.Connection]:
    path = f"{os.fspath(directory)}/spool-{index}.sqlite".replace("?", "%3f").replace("#", "%23")
    connection = None
    try:
        connection = sqlite3.connect(f"file:{path}?mode={'ro' if read_only else 'rw'}", uri=True, isolation_level=None, timeout=5.0)
        # The owner does the checkpoints; ours would make it fsync at a bad moment.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        if connection.execute("PRAGMA user_version").fetchone()[0] > SCHEMA_VERSION:
            raise StoreError(f"spool {index} was written by a newer mailsec", hint="use that one's mailsec queue")
        yield connection
    except sqlite3.Error as fault:
        raise storage_fault(fault, f"opening spool {index}") from fault
    finally:
        if connection is not None:
            connection.close()


def _carry_out_alone(directory: str | os.PathLike[str], index: int, connection: sqlite3.Connection, now: Callable[[], float]) -> bool:
    """Carry out the wishes where no process owns the spool; False where one does."""
    base = f"{os.fspath(directory)}/spool-{index}"
    lock = os.open(base + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        wishes = [Wish(0, "", None)]
        while wishes:
            connection.execute("BEGIN IMMEDIATE")
            wishes = carry_out(connection, now())
            connection.execute("COMMIT")
            for wish in wishes:
                if wish.word == "delete" and wish.file is not None:
                    Path(f"{base}.bodies/{Path(wish.file).name}").unlink(missing_ok=True)
        return True
    finally:
        os.close(lock)


def _wake(path: str) -> None:
    """Tell the owner; it looks once a second anyway."""
    if len(os.fsencode(path)) > _WAKE_PATH_OCTETS:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
        wake.setblocking(False)
        with contextlib.suppress(OSError):
            wake.sendto(b"\n", path)
