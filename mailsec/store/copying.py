"""Whole databases, copied: backups of one that is in use, and what was backed up put in place again; from SQLite to PostgreSQL and back, too.

Rows are copied as they are, with their MACs, the ledger and the wrapped data key: nothing is decrypted, and no password is needed. The source
is read in one transaction, so the copy is one moment of it. The one invariant: a copy is whole, or it is not there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, text

from mailsec.errors import StoreError
from mailsec.store.connection import create_file, database_file, make_engine, parse_url, translated
from mailsec.store.database import Database, journalled, remove_files
from mailsec.store.migrations import migrate
from mailsec.store.schema import meta, metadata

__all__ = ["copy_database"]

_ROWS: Final = 500
Show = Callable[[int, str], object]


def copy_database(source: Database, url: str, *, replace_at: datetime | None = None, show: Show = lambda done, words: None) -> Path | None:
    """Copy `source` into a new database (a path or a URL). `show` is told how many rows are done.

    Raise StoreError where there is one already, unless an instant is given at which it is replaced: a file is then put aside, under the name
    that is returned, after the copy is whole; a PostgreSQL database is emptied and filled in one transaction.
    """
    source.demand_own_schema()
    parsed = parse_url(url)
    path = database_file(parsed)
    partial = None
    if path is not None:
        if path.exists() and replace_at is None:
            raise StoreError(f"{path} exists already", hint="choose another name; `mailsec db restore --replace` puts it aside")
        # Written under another name: a copy that was cut off is never taken for one.
        partial = path.with_name(f".{path.name}.partial")
        remove_files(partial)
        create_file(partial)
        parsed = parse_url(str(partial))
    engine = make_engine(parsed)
    name = str(path or parsed)
    try:
        with translated(name):
            if partial is not None:
                journalled(engine)
            with source.reading() as reading, engine.connect().execution_options(mailsec_write=True) as writing, writing.begin():
                if partial is None and engine.dialect.has_table(writing, "meta"):
                    if replace_at is None:
                        raise StoreError(f"{name} exists already", hint="choose another name: that one holds a mailsec database")
                    for table in reversed(metadata.sorted_tables):
                        writing.execute(delete(table))
                else:
                    migrate(writing)
                _copy_rows(reading, writing, show)
    except BaseException:
        engine.dispose()
        if partial is not None:
            remove_files(partial)
        raise
    engine.dispose()
    if partial is not None and path is not None:
        aside = None if replace_at is None or not path.exists() else _put_aside(path, replace_at)
        # The last connection has emptied the write-ahead log into the file.
        partial.replace(path)
        _sync(path.parent)
        return aside
    return None


def _put_aside(path: Path, at: datetime) -> Path:
    """Call a SQLite database by another name, with its log."""
    aside = path.with_name(f"{path.name}.replaced-{at:%Y%m%dT%H%M%S}")
    for suffix in ("-wal", "-shm", ""):
        here = path.with_name(path.name + suffix)
        if here.exists():
            here.replace(aside.with_name(aside.name + suffix))
    return aside


def _copy_rows(reading: Connection, writing: Connection, show: Show) -> None:
    done = 0
    for table in metadata.sorted_tables:
        batch: list[Mapping[str, Any]] = []
        for row in reading.execute(select(table).execution_options(yield_per=_ROWS)).mappings():
            # A lease is about a worker of the other database.
            if table is meta and str(row["name"]).startswith("lease:"):
                continue
            batch.append(dict(row))
            if len(batch) >= _ROWS:
                writing.execute(insert(table), batch)
                done += len(batch)
                batch = []
                show(done, f"{done:,} rows")
        if batch:
            writing.execute(insert(table), batch)
            done += len(batch)
        if writing.dialect.name == "postgresql" and table.c.get("id") is not None and table.c.id.autoincrement is True:
            # Rows came with their ids: the next one that the server draws is behind them.
            writing.execute(
                text(
                    f"SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), "  # noqa: S608 - a name of our own schema
                    f"(SELECT COALESCE(MAX(id), 0) + 1 FROM {table.name}), false)"
                )
            )
    show(done, f"{done:,} rows")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
