"""What a row of the spool looks like in SQLite, and how it becomes a `SpooledEntry` again.

The one invariant: `next_attempt` is NULL exactly while a row is in the hands of the process that owns the spool, or held. A row
that is committed and delivered at once therefore never touches an index; what a dead process had in its hands is due at once when
the spool is opened again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from mailsec.errors import SchemaError
from mailsec.model.address import Address
from mailsec.model.octets import BytesOctets, Octets, Segments
from mailsec.model.queue import NewEntry, QueueEntry, RecipientState, SpooledEntry, State
from mailsec.model.session import Envelope, Origin, Recipient
from mailsec.store.spool_seal import Sealer

__all__ = [
    "METADATA",
    "SCHEMA_VERSION",
    "WHOLE",
    "connect",
    "create_schema",
    "delete_statement",
    "file_of",
    "insert_statement",
    "pack_progress",
    "pack_row",
    "queue_entry",
    "spooled_entry",
]

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entry (
    row INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('raw', 'ready', 'held')),
    paused INTEGER NOT NULL DEFAULT 0,
    next_attempt REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    begun INTEGER NOT NULL DEFAULT 0,
    wish TEXT,
    progress TEXT,
    need TEXT NOT NULL,
    reason TEXT NOT NULL,
    origin TEXT NOT NULL,
    listener TEXT NOT NULL,
    identity TEXT NOT NULL,
    reverse_path TEXT,
    recipients TEXT NOT NULL,
    declared_size INTEGER NOT NULL,
    body_type TEXT NOT NULL,
    smtputf8 INTEGER NOT NULL,
    ret TEXT NOT NULL,
    envid TEXT NOT NULL,
    auth TEXT NOT NULL,
    received_at REAL NOT NULL,
    message_id TEXT NOT NULL,
    rule TEXT NOT NULL,
    verdict TEXT NOT NULL,
    secret INTEGER NOT NULL,
    sensitive INTEGER NOT NULL,
    sealed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    file TEXT,
    private BLOB NOT NULL,
    body BLOB,
    delayed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS due ON entry (state, next_attempt) WHERE next_attempt IS NOT NULL;
CREATE INDEX IF NOT EXISTS kept ON entry (received_at) WHERE state = 'held' OR paused = 1;
CREATE INDEX IF NOT EXISTS wishes ON entry (wish) WHERE wish IS NOT NULL;
CREATE VIEW IF NOT EXISTS ready AS SELECT * FROM entry WHERE state = 'ready' AND paused = 0;
"""

_INSERTED = (
    "row", "id", "state", "next_attempt", "need", "reason", "origin", "listener", "identity", "reverse_path", "recipients",
    "declared_size", "body_type", "smtputf8", "ret", "envid", "auth", "received_at", "message_id", "rule", "verdict", "secret",
    "sensitive", "sealed", "size", "file", "private", "body",
)  # fmt: skip

METADATA = (
    "row, id, state, paused, next_attempt, attempts, reverse_path, recipients, progress, size, received_at, origin, listener, need, "
    "reason, message_id, rule, wish, file"
)
"""The columns that `queue_entry` reads."""

WHOLE = (
    "row, id, state, attempts, progress, delayed, need, reason, origin, listener, identity, reverse_path, recipients, declared_size, body_type, "
    "smtputf8, ret, envid, auth, received_at, message_id, rule, verdict, secret, sensitive, sealed, size, file, private, body"
)
"""The columns that `spooled_entry` reads."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_ONE_ROW = "(" + ",".join("?" * len(_INSERTED)) + ")"


def connect(path: str, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to a spool's database. Transactions are begun by hand; checkpoints are the owner's."""
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"file:{path.replace('?', '%3f').replace('#', '%23')}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA busy_timeout = 5000")
    if not read_only:
        # Only heeded while the file is empty: what a backlog has left can then be given back to the disk, a piece at a time.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        # Debian's SQLite overwrites what is deleted; bodies that must not be read are encrypted, the others came in clear.
        connection.execute("PRAGMA secure_delete = OFF")
    return connection


def create_schema(connection: sqlite3.Connection) -> None:
    """Make the tables where they are missing; raise SchemaError for a file that a newer mailsec wrote."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise SchemaError(f"the spool was written by a newer mailsec (version {version}, ours is {SCHEMA_VERSION})")
    added = "ALTER TABLE entry ADD COLUMN delayed INTEGER NOT NULL DEFAULT 0;" if version == 1 else ""
    connection.executescript(f"BEGIN IMMEDIATE; {added} {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")


@lru_cache(maxsize=16)
def insert_statement(rows: int) -> str:
    """The statement that inserts so many rows: one step of SQLite, so one release of the interpreter's lock, for all of them."""
    return f"INSERT INTO entry ({','.join(_INSERTED)}) VALUES {','.join([_ONE_ROW] * rows)}"  # noqa: S608 - column names of ours


@lru_cache(maxsize=16)
def delete_statement(rows: int) -> str:
    """The statement that deletes so many rows by number."""
    return f"DELETE FROM entry WHERE row IN ({','.join('?' * rows)})"  # noqa: S608 - question marks


def pack_row(
    row: int, entry: NewEntry, *, next_attempt: float | None, size: int, file: str | None, body: bytes | None, sealer: Sealer | None
) -> tuple[Any, ...]:
    """The values of a new row, in the order of `insert_statement`. `body` is sealed already where `sealer` is given."""
    envelope = entry.envelope
    private = len(entry.header).to_bytes(4, "big") + entry.header + entry.session
    reverse_path = envelope.reverse_path
    return (
        row,
        entry.id,
        entry.state._value_,  # .value is a function call, and this is once for each message
        next_attempt,
        entry.need,
        entry.reason,
        entry.origin._value_,
        entry.listener,
        entry.identity,
        None if reverse_path is None else f"{reverse_path.local_part}@{reverse_path.domain}",
        _pack_recipients(envelope.recipients),
        envelope.size,
        envelope.body,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
        envelope.auth,
        entry.received_at.timestamp(),
        entry.message_id,
        entry.rule,
        entry.verdict,
        entry.secret,
        entry.sensitive,
        sealer is not None,
        size,
        file,
        private if sealer is None else sealer.seal_small(f"{entry.id} private", private),
        body,
    )


def file_of(row: tuple[Any, ...]) -> str | None:
    """The file that a row of `pack_row` names."""
    name: str | None = row[_INSERTED.index("file")]
    return name


def _pack_recipients(recipients: Sequence[Recipient]) -> str:
    if len(recipients) == 1:
        packed = _recipient(recipients[0])
        if isinstance(packed, str) and '"' not in packed and "\\" not in packed:
            return f'["{packed}"]'  # the JSON of nearly every message, ten times as fast
    return _encode([_recipient(recipient) for recipient in recipients])


def _recipient(recipient: Recipient) -> str | tuple[str, str, str]:
    address = recipient.address
    text = f"{address.local_part}@{address.domain}"
    return (text, recipient.notify, recipient.original) if recipient.notify or recipient.original else text


def pack_progress(progress: Sequence[tuple[RecipientState, str]]) -> str:
    """The value of the column `progress`."""
    return _encode([(state.value, reply) for state, reply in progress])


def _address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)


def _progress(text: str | None) -> tuple[tuple[RecipientState, str], ...]:
    return tuple((RecipientState(state), reply) for state, reply in json.loads(text)) if text else ()


def spooled_entry(values: tuple[Any, ...], sealer: Sealer, body_file: Callable[[str], Octets]) -> SpooledEntry:
    """Read a row of `WHOLE` back. Raises Tampered, or StoreError where it is sealed and there is no data key."""
    (
        row, id, state, attempts, progress, delayed, need, reason, origin, listener, identity, reverse_path, recipients, declared_size, body_type,
        smtputf8, ret, envid, auth, received_at, message_id, rule, verdict, secret, sensitive, sealed, _, file, private, body,
    ) = values  # fmt: skip
    octets: Octets = BytesOctets(body) if file is None else body_file(file)
    if sealed:
        octets = sealer.open(f"{id} body", octets)
        private = sealer.open_small(f"{id} private", BytesOctets(private))
    header_end = 4 + int.from_bytes(private[:4], "big")
    envelope = Envelope(
        None if reverse_path is None else _address(reverse_path),
        tuple(
            Recipient(_address(item)) if isinstance(item, str) else Recipient(_address(item[0]), item[1], item[2])
            for item in json.loads(recipients)
        ),
        declared_size,
        body_type,
        bool(smtputf8),
        ret,
        envid,
        auth,
    )
    entry = NewEntry(
        id=id,
        state=State(state),
        envelope=envelope,
        segments=Segments.of(octets),
        received_at=datetime.fromtimestamp(received_at, UTC),
        origin=Origin(origin),
        listener=listener,
        secret=bool(secret),
        identity=identity,
        need=need,
        reason=reason,
        header=private[4:header_end],
        message_id=message_id,
        rule=rule,
        verdict=verdict,
        sensitive=bool(sensitive),
        session=private[header_end:],
    )
    return SpooledEntry(entry, octets, row, attempts, _progress(progress), bool(delayed))


def queue_entry(values: tuple[Any, ...], worker: str) -> QueueEntry:
    """Read a row of `METADATA` for people."""
    (
        _, id, state, paused, next_attempt, attempts, reverse_path, recipients, progress, size, received_at, origin, listener, need,
        reason, message_id, rule, _, _,
    ) = values  # fmt: skip
    addresses = [item if isinstance(item, str) else item[0] for item in json.loads(recipients)]
    states = _progress(progress) or ((RecipientState.WAITING, ""),) * len(addresses)
    return QueueEntry(
        id=id,
        state=State(state),
        paused=bool(paused),
        reverse_path=reverse_path or "",
        recipients=tuple((address, state, reply) for address, (state, reply) in zip(addresses, states, strict=True)),
        size=size,
        received_at=datetime.fromtimestamp(received_at, UTC),
        next_attempt=None if next_attempt is None else datetime.fromtimestamp(next_attempt, UTC),
        attempts=attempts,
        origin=Origin(origin),
        listener=listener,
        need=need,
        reason=reason,
        message_id=message_id,
        rule=rule,
        worker=worker,
    )
