"""The files of an NSS database (cert9.db, key4.db: SQLite), looked at before softoken is: whether they are whole, NSS's, and not locked.

softoken answers a torn file as if nothing lay in it, so a certificate that somebody distrusts would be one that nobody knows; and it has one
number for everything that keeps it from opening a file. The one invariant: looking changes nothing. Blocking.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from mailsec.errors import SchemaError, StoreError
from mailsec.store.connection import DatabaseLocked

__all__ = ["NSS_FILES", "demand_sound", "open_for_reading", "unreadable"]

NSS_FILES: Final = ("cert9.db", "key4.db")
WAIT_SECONDS: Final = 5.0
"""For a file that another program is writing to."""
_TABLES: Final = {"cert9.db": {"nssPublic"}, "key4.db": {"nssPrivate", "metaData"}}
_BUSY: Final = frozenset({"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"})


def demand_sound(directory: Path, *, thoroughly: bool = False) -> None:
    """Raise SchemaError where a file of the database is damaged or another program's, DatabaseLocked where it is locked, StoreError where
    it cannot be read. `thoroughly`: also whether what is found by its name or issuer is what lies there, which takes longer.
    """
    for name in NSS_FILES:
        try:
            with closing(open_for_reading(directory / name)) as connection:
                (answer,) = connection.execute(f"PRAGMA {'integrity' if thoroughly else 'quick'}_check(1)").fetchone()
                tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        except sqlite3.Error as error:
            raise unreadable(directory, name, error) from None
        if answer != "ok":
            raise _damaged(directory, name)
        if not _TABLES[name] <= tables:
            what = "another program's database" if tables else "empty"
            raise SchemaError(
                f"{directory / name} is no file of NSS's: it is {what}",
                hint=f"restore it from a backup, or move it away: certutil -N -d sql:{directory} makes a new database",
            )


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raise sqlite3.Error, with its first statement at the latest."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS, isolation_level=None)


def unreadable(directory: Path, name: str, error: sqlite3.Error) -> StoreError:
    """What SQLite says about a file of the database, in our words."""
    code = getattr(error, "sqlite_errorname", "")
    if any(code.startswith(each) for each in _BUSY):
        return DatabaseLocked(
            f"{directory / name} cannot be read: another program has it locked", hint=f"wait for it, or find it: fuser {directory / name}"
        )
    if code.startswith("SQLITE_READONLY"):
        return StoreError(
            f"a program that was writing to {directory / name} was cut off",
            hint=f"NSS's own tools take back what it had begun: certutil -K -d sql:{directory}",
        )
    if isinstance(error, sqlite3.OperationalError):
        return StoreError(f"{directory / name} cannot be read: {error}", hint="run this as the user that owns the database")
    return _damaged(directory, name)


def _damaged(directory: Path, name: str) -> SchemaError:
    return SchemaError(
        f"{directory / name} is damaged",
        hint=f"nothing was taken from it; restore a backup: mailsec db restore BACKUP --replace -d nss:{directory}",
    )
