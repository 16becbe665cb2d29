"""One mailsec database: made, opened, read and changed; its password, and the check of everything that is authenticated.

Blocking. Every read is one transaction and so one moment; every change is one transaction that takes the write lock first and
writes the ledger last. The one invariant: what `verified` says of a row holds in the transaction in which the row was read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import Connection, Engine, insert, select, update

from mailsec.errors import SchemaError, StoreError, Tampered, WrongPassphrase
from mailsec.store.connection import (
    BUSY_TIMEOUT,
    check_file,
    create_file,
    data_version,
    database_file,
    fetch,
    make_engine,
    parse_url,
    translated,
)
from mailsec.store.ledger import Changes, Ledger, Sums, is_authentic
from mailsec.store.migrations import migrate
from mailsec.store.schema import APPLICATION_ID, AUTHENTICATED, SCHEMA, ledger, meta
from mailsec.store.sealing import SCRYPT_COST, DataKey, opens_without_password, unwrap_data_key, wrap_data_key

__all__ = ["Database", "journalled", "now", "remove_files"]


class Database:
    """A mailsec database. Made by `create` or `open`; safe to share between threads."""

    def __init__(self, engine: Engine, name: str, key: DataKey | None) -> None:
        self._engine = engine
        self._key = key
        self._latest = 0
        self._sums = Sums()
        self.name = name
        """How messages call it: its path, or its URL."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    # -- made, opened, closed ----------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        url: str,
        password: bytes,
        *,
        at: datetime,
        random: Callable[[int], bytes] = os.urandom,
        cost: int = SCRYPT_COST,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> Self:
        """Make a database (a path or an SQLAlchemy URL) with a new data key, wrapped by `password`. An empty one protects nothing."""
        parsed = parse_url(url)
        path = database_file(parsed)
        if path is not None:
            create_file(path)
        engine = make_engine(parsed, busy_timeout=busy_timeout)
        name = str(path or parsed)
        try:
            with translated(name):
                if path is not None:
                    journalled(engine)
                key = DataKey(random(32), random)
                with engine.connect().execution_options(mailsec_write=True) as connection, connection.begin():
                    if path is None and engine.dialect.has_table(connection, "meta"):
                        raise StoreError(f"{name} exists already", hint="choose another name: that one holds a mailsec database")
                    migrate(connection)
                    values = {"data-key": wrap_data_key(key.secret, password, random, cost=cost), "created-at": at.isoformat()}
                    connection.execute(insert(meta), [{"name": name, "value": value} for name, value in values.items()])
                    Ledger().write(connection, key, first=True)
        except BaseException:
            engine.dispose()
            if path is not None:
                remove_files(path)
            raise
        return cls(engine, name, key)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        password: bytes | None = None,
        data_key: bytes | None = None,
        random: Callable[[int], bytes] = os.urandom,
        busy_timeout: float = BUSY_TIMEOUT,
    ) -> Self:
        """Open a database with its password, or with its data key (a worker got it from the supervisor).

        Without either, one that has an empty password opens all the same; any other shows its rows as not verified, and they
        decide nothing. Raise WrongPassphrase, SchemaError, or StoreError where it is away, locked or unsafe.
        """
        parsed = parse_url(url)
        path = database_file(parsed)
        if path is not None:
            check_file(path)
        engine = make_engine(parsed, busy_timeout=busy_timeout)
        name = str(path or parsed)
        try:
            with translated(name), engine.connect() as connection:
                _check_schema(connection, name, is_file=path is not None)
                stored = connection.execute(select(meta.c.value).where(meta.c.name == "data-key")).scalar()
            if not isinstance(stored, str):
                raise SchemaError(f"database {name} has no data key", hint="restore it from a backup")
            secret = data_key
            if secret is None and (password is not None or opens_without_password(stored)):
                secret = unwrap_data_key(stored, password or b"")
            database = cls(engine, name, None if secret is None else DataKey(secret, random))
            if database._key is not None:
                with translated(name), engine.connect() as connection:
                    database._ledger(connection)  # a wrong data key, a planted wrapping or a planted ledger ends here
        except BaseException:
            engine.dispose()
            raise
        return database

    @classmethod
    def upgrade(cls, url: str, *, busy_timeout: float = BUSY_TIMEOUT) -> str:
        """Bring a database to the schema of this code; return its name. Nothing is decrypted, so no password is needed."""
        parsed = parse_url(url)
        path = database_file(parsed)
        if path is not None:
            check_file(path)
        engine = make_engine(parsed, busy_timeout=busy_timeout)
        name = str(path or parsed)
        try:
            with translated(name), engine.connect().execution_options(mailsec_write=True) as connection, connection.begin():
                if _schema_of(connection, name, is_file=path is not None) < SCHEMA:
                    migrate(connection)
                _check_schema(connection, name, is_file=path is not None)
        finally:
            engine.dispose()
        return name

    def demand_own_schema(self) -> None:
        """Raise SchemaError where the database is newer than this code: what it does not know it cannot copy."""
        with self.reading() as connection:
            number = _schema_of(connection, self.name, is_file=connection.dialect.name == "sqlite")
        if number != SCHEMA:
            raise SchemaError(
                f"database {self.name} has schema {number}, this mailsec writes {SCHEMA}", hint="use the newer mailsec for this"
            )

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- keys and password -------------------------------------------------------------------------------------------------

    @property
    def unlocked(self) -> bool:
        """True where the data key is known: rows can be verified, keys opened, changes made."""
        return self._key is not None

    @property
    def data_key(self) -> bytes:
        """The data key, for the pipe to a worker and for the spool. Raise WrongPassphrase where it is not known."""
        return self._unlocked().secret

    @property
    def has_password(self) -> bool:
        """False where the password is empty."""
        with self.reading() as connection:
            return not opens_without_password(str(connection.execute(select(meta.c.value).where(meta.c.name == "data-key")).scalar()))

    def change_password(self, password: bytes, *, cost: int = SCRYPT_COST) -> None:
        """Wrap the data key anew. Nothing else is rewritten. (A copy of the old file still opens with the old password.)"""
        key = self._unlocked()
        wrapped = wrap_data_key(key.secret, password, os.urandom, cost=cost)
        with self.writing() as changes:
            changes.connection.execute(update(meta).where(meta.c.name == "data-key").values(value=wrapped))
            changes.changed = True
        # The old wrapping must not stay behind in the write-ahead log (`secure_delete` overwrites it in the file).
        if self._engine.dialect.name == "sqlite":
            with translated(self.name):
                _run_outside_transactions(self._engine, "PRAGMA wal_checkpoint(TRUNCATE)")

    def _unlocked(self) -> DataKey:
        if self._key is None:
            raise WrongPassphrase(f"database {self.name} is locked: its password was not given", hint="use --passphrase-file FILE")
        return self._key

    # -- reading and writing -----------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One moment of the database."""
        with translated(self.name), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Changes]:
        """One change: all of it or nothing. Other writers wait."""
        key = self._unlocked()
        with translated(self.name), self._engine.connect().execution_options(mailsec_write=True) as connection, connection.begin():
            state = self._ledger(connection, lock=True)
            changes = Changes(connection, key, state)
            yield changes
            if changes.changed:
                before = (state.changes, data_version(connection))
                state.write(connection, key)
                seen, known = connection.info.get("mailsec", (None, {}))
                if seen == before:
                    # Sums that were right before are right now, `Changes` saw to it: an update costs what it changes, not all rows.
                    right = {table: problem for table, problem in known.items() if not problem}
                    connection.info["mailsec"] = ((state.changes, before[1]), right)
        self._latest = max(self._latest, state.changes)

    @contextmanager
    def writing_plainly(self) -> Iterator[Connection]:
        """One change of tables whose rows have no MAC: all of it or nothing. It does not count as a change of the database."""
        with translated(self.name), self._engine.connect().execution_options(mailsec_write=True) as connection, connection.begin():
            yield connection

    def changes(self) -> int:
        """How often the database was changed: a number to compare, cheap to read, believed only for noticing."""
        with self.reading() as connection:
            return int(connection.execute(select(ledger.c.changes)).scalar() or 0)

    def _ledger(self, connection: Connection, *, lock: bool = False) -> Ledger:
        try:
            # What is written on is never shared: only readers take up what they have read before.
            state = Ledger.read(connection, self._unlocked(), lock=lock, known=None if lock else connection.info.get("ledger"))
        except (ValueError, KeyError, TypeError):
            raise SchemaError(f"the ledger of {self.name} cannot be read", hint="use the mailsec that wrote it") from None
        # Attack: an old copy of the whole file is consistent in itself; whoever saw a newer one notices.
        if state.changes < self._latest:
            raise Tampered(f"database {self.name} went back in time", hint="somebody put an old copy in its place: check it, then restart")
        self._latest = state.changes
        if not lock:
            connection.info["ledger"] = state
        return state

    def authentic(self, table: str, row: Mapping[str, Any]) -> bool:
        """True where mailsec wrote this row. (Whether rows are missing is what `problem` says.)"""
        return self._key is not None and is_authentic(self._key, table, row)

    def problem(self, connection: Connection, *tables: str) -> str:
        """Why the rows of `tables` cannot decide anything; "" where they can.

        The sums are added up once for each state of the database: `data_version` shows what others wrote, and the number of changes
        what this connection wrote.
        """
        if self._key is None:
            return "the database password was not given"
        try:
            state = self._ledger(connection)
        except Tampered as error:
            return error.message
        known = self._known(connection, state)
        for table in tables:
            if table not in known:
                known[table] = state.problem(connection, self._key, table, self._sums)
            if known[table]:
                return known[table]
        return ""

    def edited(self, connection: Connection, table: str) -> str:
        """Why some row of `table` is not as mailsec wrote it; "" where all are. For tables in which a row that is not found decides, too.

        Attack: a row whose name was edited is found by nobody who asks by that name. Its MAC lies in the sum as before, so only reading every
        row shows it: once for each state of the database, as `problem`.
        """
        if problem := self.problem(connection, table):
            return problem
        known = self._known(connection, self._ledger(connection))
        rows = f"{table} rows"
        if rows not in known:
            numbers = [row["id"] for row in fetch(connection, select(AUTHENTICATED[table][0])) if not self.authentic(table, row)]
            known[rows] = f"row {numbers[0]} of {table} was changed by something else than mailsec" if numbers else ""
        return known[rows]

    @staticmethod
    def _known(connection: Connection, state: Ledger) -> dict[str, str]:
        """What was found out about this state of the database on this connection."""
        seen = (state.changes, data_version(connection))
        before, found = connection.info.get("mailsec", (None, {}))
        known: dict[str, str] = found if before == seen else {}
        connection.info["mailsec"] = (seen, known)
        return known

    # -- check -------------------------------------------------------------------------------------------------------------

    def check(self) -> tuple[str, ...]:
        """Everything that is wrong with the file and with what is authenticated, one sentence each."""
        found: list[str] = []
        with self.reading() as connection:
            if connection.dialect.name == "sqlite":
                for (text,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
                    if text != "ok":
                        found.append(f"SQLite: {text}")
                for child, number, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
                    found.append(f"SQLite: row {number} of {child} points to a row of {parent} that is not there")
            if self._key is None:
                return (*found, "the database password was not given: nothing could be verified")
            for name, (table, _) in AUTHENTICATED.items():
                if problem := self.problem(connection, name):
                    found.append(problem)
                for row in fetch(connection, select(table)):
                    if not self.authentic(name, row):
                        found.append(f"row {row['id']} of {name} was changed by something else than mailsec")
        return tuple(found)

    def accept(self) -> int:
        """Remove the rows that mailsec did not write, and believe the rest; return how many went. Only a person may ask for this."""
        with self.writing() as changes:
            return sum([changes.rebuild(table) for table in AUTHENTICATED])


def _run_outside_transactions(engine: Engine, *statements: str) -> None:
    # SQLite changes the journal mode, and empties the log, nowhere else.
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
            cursor.fetchall()
        cursor.close()
    finally:
        connection.close()


def journalled(engine: Engine) -> None:
    """Make an empty SQLite file one of ours: its journal, and the mark by which it is known."""
    _run_outside_transactions(engine, "PRAGMA journal_mode = WAL", f"PRAGMA application_id = {APPLICATION_ID}")


def remove_files(path: Path) -> None:
    """Remove a SQLite database with its log."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


# Triggers and rules (a view is one) beside our tables.
_PLANTED: Final = """
    SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE NOT t.tgisinternal AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'ledger'::regclass)
    UNION ALL SELECT r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
        WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'ledger'::regclass)
    LIMIT 1
"""


def _schema_of(connection: Connection, name: str, *, is_file: bool) -> int:
    """The number of the schema; raise SchemaError where this is no database of ours."""
    if is_file:
        ours = connection.exec_driver_sql("PRAGMA application_id").scalar() == APPLICATION_ID
        # Attack: triggers that undo what we write, views in the place of tables. mailsec makes neither.
        planted = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view')").scalar()
    else:
        ours = connection.dialect.has_table(connection, "alembic_version") and connection.dialect.has_table(connection, "ledger")
        planted = connection.exec_driver_sql(_PLANTED).scalar() if ours else None
    if planted is not None:
        raise SchemaError(f"database {name} holds a trigger or view that mailsec did not make", hint="restore it from a backup")
    if not ours:
        raise SchemaError(f"{name} is not a mailsec database", hint="name the database that `mailsec db init` made, or make one with it")
    version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return int(version) if isinstance(version, str) and version.isascii() and version.isdigit() else 0


def _check_schema(connection: Connection, name: str, *, is_file: bool) -> None:
    number = _schema_of(connection, name, is_file=is_file)
    if number < SCHEMA:
        raise SchemaError(f"database {name} has schema {number}, this mailsec needs {SCHEMA}", hint=f"run `mailsec db upgrade -d {name}`")
    # Schema N serves code N-1 (`store.migrations`); more is unknown.
    if number > SCHEMA + 1:
        raise SchemaError(
            f"database {name} has schema {number}, this mailsec knows schemas up to {SCHEMA + 1}",
            hint="install the newer mailsec that wrote it",
        )


def now() -> datetime:
    """The instant, where a caller of the store gave none."""
    return datetime.now(UTC)
