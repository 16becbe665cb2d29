"""What the file system and SQLite say when they cannot, as errors of our tree: full is 452, anything else 451."""

from __future__ import annotations

import errno
import sqlite3

from mailsec.errors import StorageFull, StoreError

__all__ = ["storage_fault"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE})
_SQLITE_FULL = 13
_SQLITE_BUSY = 5
_SQLITE_READONLY = 8
_SQLITE_CORRUPT = 11
_SQLITE_NOTADB = 26
# SQLite cannot enlarge its shared-memory file on a full disk, and says so with an I/O error of its own.
_SQLITE_IOERR_SHMSIZE = 4874
_SQLITE_IOERR_SHMOPEN = 4618
_SQLITE_IOERR_SHMMAP = 5386


def storage_fault(fault: Exception, doing: str) -> StoreError:
    """The error to raise for `fault`, which came up while `doing` something ("writing the spool")."""
    if isinstance(fault, StoreError):
        return fault
    if isinstance(fault, OSError):
        if fault.errno in _FULL:
            return StorageFull(f"{doing}: {_words(fault)}", hint="free some room or inodes; mail is taken again by itself")
        if fault.errno in (errno.EACCES, errno.EPERM):
            return StoreError(f"{doing}: {_words(fault)}", hint="it belongs to the user that mailsec runs as: ask as that user, or as root")
        return StoreError(f"{doing}: {_words(fault)}", hint="see that the spool's directory is there and may be written")
    if isinstance(fault, sqlite3.Error):
        code = getattr(fault, "sqlite_errorcode", None) or 0
        if code & 0xFF == _SQLITE_FULL or code in (_SQLITE_IOERR_SHMSIZE, _SQLITE_IOERR_SHMMAP):
            return StorageFull(f"{doing}: {fault}", hint="free some room or inodes; mail is taken again by itself")
        if code & 0xFF == _SQLITE_READONLY or code == _SQLITE_IOERR_SHMOPEN:
            return StoreError(f"{doing}: {fault}", hint="the file system is read-only, or the file belongs to another user")
        if code & 0xFF == _SQLITE_BUSY:
            return StoreError(f"{doing}: {fault}", hint="another program holds the spool's database locked")
        if code & 0xFF in (_SQLITE_CORRUPT, _SQLITE_NOTADB):
            hint = "stop mailsec and put the file aside; a new one is made, and `sqlite3 FILE .recover` may save what was in it"
            return StoreError(f"{doing}: {fault}", hint=hint)
        return StoreError(f"{doing}: {fault}")
    return StoreError(f"{doing}: {type(fault).__name__}: {fault}")


def _words(fault: OSError) -> str:
    """What happened, without the path: it may stand in a log that strangers' replies are compared with."""
    return (fault.strerror or type(fault).__name__).lower()
