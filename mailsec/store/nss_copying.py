"""NSS databases, copied: a backup of one that is in use, and a backup put in place again.

NSS's files are SQLite, in the mode that keeps writers out while somebody reads. Both are read in one transaction each, begun before the first
octet is copied, so the copy is one moment of both. What is in them is as NSS keeps it, so a copy opens with the password of its day. The one
invariant: a copy is whole, or it is not there. Blocking.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Final

from mailsec.errors import StoreError
from mailsec.store.nss_files import NSS_FILES, open_for_reading, unreadable

__all__ = ["copy_nss"]

_MODULES: Final = "pkcs11.txt"


def copy_nss(source: Path, target: Path, *, replace_at: datetime | None = None) -> tuple[str, ...]:
    """Copy the database in the directory `source` into `target`, which is made where it is missing; the names of files that were put aside.

    Raise StoreError where `target` holds a database already, unless an instant is given at which it is replaced: its files then have other
    names, after the copy is whole.
    """
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = [name for name in (*NSS_FILES, _MODULES) if (target / name).exists()]
        if there and replace_at is None:
            raise StoreError(
                f"{target} holds an NSS database already", hint="choose another directory; `mailsec db restore --replace` puts it aside"
            )
        try:
            _copy_partial(source, target)
        except BaseException:
            for name in (*NSS_FILES, _MODULES):
                _partial(target, name).unlink(missing_ok=True)
            raise
        aside = []
        for name in (*NSS_FILES, _MODULES):
            partial, final = _partial(target, name), target / name
            if not partial.exists():
                continue
            if replace_at is not None and final.exists():
                _like(partial, final)
                aside.append(f"{name}.replaced-{replace_at:%Y%m%dT%H%M%S}")
                final.replace(target / aside[-1])
            partial.replace(final)
        _sync(target)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}", hint="choose another place, or another user") from error
    return tuple(aside)


def _partial(target: Path, name: str) -> Path:
    return target / f".{name}.partial"


def _copy_partial(source: Path, target: Path) -> None:
    with contextlib.ExitStack() as stack:
        connections = {}
        try:
            for name in NSS_FILES:
                connections[name] = stack.enter_context(contextlib.closing(open_for_reading(source / name)))
            for name in NSS_FILES:
                # The first read takes the lock that keeps writers from committing; it is held until the copies are done.
                connections[name].execute("BEGIN")
                connections[name].execute("SELECT count(*) FROM sqlite_master").fetchone()
            for name, connection in connections.items():
                partial = _partial(target, name)
                partial.unlink(missing_ok=True)
                os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                with contextlib.closing(sqlite3.connect(partial)) as copy:
                    connection.backup(copy)
                    if copy.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                        raise sqlite3.DatabaseError
                _sync(partial)
        except sqlite3.Error as error:
            raise unreadable(source, name, error) from None
        if (source / _MODULES).exists():
            shutil.copyfile(source / _MODULES, _partial(target, _MODULES))
            _partial(target, _MODULES).chmod(0o600)


def _like(new: Path, old: Path) -> None:
    """Rights and owner as before: the programs that use the database run as somebody else, maybe."""
    state = old.stat()
    new.chmod(state.st_mode & 0o7777)
    with contextlib.suppress(PermissionError):
        os.chown(new, state.st_uid, state.st_gid)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
