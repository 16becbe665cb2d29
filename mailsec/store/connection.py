"""How a database is reached: the URL, the file and its directory, SQLite's settings, and SQL errors as ours.

The one invariant: no SQL parameter, and so no secret, gets into an error; a database that another program holds is waited for
`BUSY_TIMEOUT` seconds and no longer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import Column, CompoundSelect, Connection, Engine, Select, create_engine, event, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from mailsec.errors import ConfigurationError, SchemaError, StorageFull, StoreError, UsageError

__all__ = [
    "BUSY_TIMEOUT",
    "DatabaseLocked",
    "check_file",
    "column_in_lots",
    "create_file",
    "data_version",
    "database_file",
    "fetch",
    "make_engine",
    "parse_url",
    "translated",
]

BUSY_TIMEOUT: Final = 5.0
"""Seconds to wait for a database that another program is writing to."""


class DatabaseLocked(StoreError):
    """Another program is writing, and did not end in time."""

    exit_code = 75


class DatabaseAway(StoreError):
    """The server does not answer, or lets nobody in."""

    exit_code = 75


_AWAY: Final = ("connection", "server closed", "terminating", "shutting down", "starting up", "timeout expired", "fatal")


def parse_url(text: str) -> URL:
    """A path or an SQLAlchemy URL. Raise UsageError for a URL with a password, which would stand in the process list."""
    if text.startswith("nss:"):
        raise UsageError(
            "this is not kept in NSS databases, which hold certificates, trust, keys and revocation lists",
            hint="name a mailsec database, as in -d mailsec.db; `mailsec db merge nss:DIR` brings into it what NSS has",
        )
    if not text or "\0" in text:
        raise UsageError("no database was named", hint="name a file, as in -d mailsec.db")
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        url = make_url(text)
        dialect = url.get_dialect().name
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        raise UsageError("the database URL cannot be read", hint="write sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME") from None
    if url.password is not None:
        raise UsageError("the database URL holds a password", hint="put it into ~/.pgpass or use a socket with peer authentication")
    if dialect not in ("sqlite", "postgresql"):
        raise UsageError(f"databases of {dialect} are not supported", hint="use SQLite or PostgreSQL")
    if dialect == "sqlite" and (not url.database or url.database == ":memory:" or url.query):
        raise UsageError("a SQLite database must be a plain file", hint="write sqlite:///PATH")
    return url


def database_file(url: URL) -> Path | None:
    """The file of a SQLite database."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def create_file(path: Path) -> None:
    """Make an empty file that only we can read. Raise StoreError where there is one, or where the directory is not safe."""
    _check_directory(path)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        raise StoreError(f"{path} exists already", hint="choose another name, or move the old database away") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be made: {error.strerror}", hint="the directory must be writable for this user") from None


def check_file(path: Path) -> None:
    """Raise StoreError where `path` is not a file that only its owner can read and write, or SchemaError where it is no SQLite file."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise StoreError(f"{path} is not a file", hint="name the database file")
            head = file.read(16)
    except FileNotFoundError:
        raise StoreError(f"there is no database {path}", hint=f"`mailsec db init -d {path}` makes one") from None
    except IsADirectoryError:
        raise StoreError(f"{path} is a directory", hint="name the database file within it") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}", hint="run this as the user that owns the database"
        ) from None
    if head != b"SQLite format 3\x00":
        raise SchemaError(
            f"{path} is not a mailsec database", hint="name the file that `mailsec db init` made, or restore it from a backup"
        )
    # Attack: whoever can write the file can put old rows back; whoever can read it can guess at passwords.
    if facts.st_mode & 0o077:
        raise StoreError(f"other users may open {path} (mode {stat.S_IMODE(facts.st_mode):04o})", hint=f"chmod 600 {path}")
    if facts.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise StoreError(f"{path} belongs to another user", hint="run this as the user that owns the database")
    _check_directory(path)


def _check_directory(path: Path) -> None:
    directory = path.resolve().parent
    try:
        facts = directory.stat()
    except OSError as error:
        raise StoreError(
            f"the directory {directory} cannot be read: {(error.strerror or str(error)).lower()}", hint=f"mkdir -m 700 {directory}"
        ) from None
    if not stat.S_ISDIR(facts.st_mode):
        raise StoreError(f"{directory} is not a directory", hint="name a file within a directory")
    # Attack: in a directory that others can write to, they lay a journal or a log beside the file, and SQLite replays it into ours.
    if facts.st_mode & 0o022:
        raise StoreError(
            f"other users may write to the directory {directory}", hint=f"use a directory of its own, or chmod 700 {directory}"
        )


def make_engine(url: URL, *, busy_timeout: float = BUSY_TIMEOUT) -> Engine:
    """An engine whose transactions see one moment, or with `mailsec_write` take the write lock (SQLite) or wait for rows (PostgreSQL)."""
    is_file = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {} if is_file else _postgresql_options(busy_timeout)
    try:
        engine = create_engine(url, hide_parameters=True, **options)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the database {url} needs the Python package {error.name}",
            hint=f"pip install {error.name}, as in pip install 'mailsec[postgresql]'",
        ) from None
    if is_file:

        @event.listens_for(engine, "connect")
        def _connected(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # we begin transactions ourselves: the driver would begin them too late
            # A text that is not UTF-8 is an edited row: it can be read, and is not authentic.
            connection.text_factory = lambda octets: octets.decode("utf-8", "surrogateescape")
            cursor = connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {int(busy_timeout * 1000)}")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA secure_delete = ON")
            # Attack: functions called from views and triggers that somebody planted in the file.
            cursor.execute("PRAGMA trusted_schema = OFF")
            cursor.close()

        @event.listens_for(engine, "begin")
        def _begun(connection: Connection) -> None:
            # A transaction that reads first and writes later would fail at once (not wait) when another one wrote in between.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("mailsec_write") else "BEGIN")

    else:

        @event.listens_for(engine, "begin")
        def _begun_there(connection: Connection) -> None:
            # Readers see one moment. A writer sees what the one before it committed while it waited for the ledger's row: at any higher level
            # it would fail instead.
            if not connection.get_execution_options().get("mailsec_write"):
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    return engine


def _postgresql_options(busy_timeout: float) -> dict[str, Any]:
    settings = f"-c lock_timeout={int(busy_timeout * 1000)} -c application_name=mailsec"
    # A server that was restarted is noticed before a connection of before is used.
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": max(2, int(busy_timeout)), "options": settings}}


def data_version(connection: Connection) -> Any:
    """A value that changes when somebody else has committed anything; it may change without that, too."""
    if connection.dialect.name == "sqlite":
        return connection.exec_driver_sql("PRAGMA data_version").scalar()
    # Which transactions are seen: as long as that is the same, so are the rows.
    return connection.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar()


def fetch(connection: Connection, query: Select[Any] | CompoundSelect[Any], **parameters: Any) -> Sequence[Mapping[str, Any]]:
    """All rows of a query, as mappings from the names of the columns; `parameters` are those of its bindparams."""
    return cast("Sequence[Mapping[str, Any]]", connection.execute(query, parameters or None).mappings().all())


def column_in_lots(connection: Connection, column: Column[Any], lot: int) -> Iterator[Sequence[Any]]:
    """All values of a column, so many at a time, from the driver itself: of a million rows SQLAlchemy's own cost more than the rest."""
    result = connection.execute(select(column))
    cursor, errors = result.cursor, connection.dialect.loaded_dbapi.Error
    try:
        while cursor is not None and (rows := cursor.fetchmany(lot)):
            yield [value for (value,) in rows]
    except errors as error:
        raise DBAPIError(None, None, error) from error
    finally:
        result.close()


@contextmanager
def translated(name: str) -> Iterator[None]:
    """SQL errors as ours; `name` is how the database is called."""
    try:
        yield
    except DBAPIError as error:
        raise _store_error(name, str(error.orig).lower()) from None
    except UnicodeDecodeError:  # the driver's, of a message that quotes a torn file
        raise SchemaError(f"database {name} is damaged", hint="restore it from a backup") from None
    except SQLAlchemyError as error:
        raise StoreError(f"database {name}: {type(error).__name__}", hint="`mailsec db check` says more") from None


def _store_error(name: str, text: str) -> StoreError:
    text = text.splitlines()[0] if text else text
    if "locked" in text or "busy" in text or "lock timeout" in text:
        return DatabaseLocked(f"database {name} is locked by another program", hint="wait for it, or find it with `fuser` and end it")
    if "full" in text or "no space left" in text:
        return StorageFull(f"no room to write database {name}", hint="free some space on its file system")
    if "malformed" in text or "not a database" in text or "no such table" in text or "no such column" in text:
        return SchemaError(f"database {name} is damaged: {text}", hint="restore it from a backup")
    if "does not exist" in text and ("relation" in text or "column" in text):
        return SchemaError(f"database {name} is damaged: {text}", hint="restore it from a backup")
    if any(word in text for word in _AWAY):
        return DatabaseAway(f"database {name} cannot be reached: {text}", hint="is the server running, and may this user connect to it?")
    if "readonly" in text or "unable to open" in text:
        return StoreError(
            f"database {name} cannot be written: {text}", hint="this user must be able to write to the file and its directory"
        )
    return StoreError(f"database {name}: {text}", hint="`mailsec db check` says more")
