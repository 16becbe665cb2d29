"""What shows that rows were edited, deleted or put back: a MAC per row, and one sealed sum and count per table.

Each row's `mac` covers the table's name and the values of all its authenticated columns, id included. The ledger holds for every
authenticated table how many rows it has, the sum modulo 2^256 of a keyed function of their MACs, and the next id (ids are never
used twice); all tables stand in one value, sealed with the data key, with the number of changes made so far. This is the
multiset hash of Clarke and others (MSet-Add-Hash, 2003): an update costs two additions, whoever writes takes the ledger's row
first, so writers are one after the other, and sums and summands are unknown without the data key, so nobody can search for
other rows with the same sum. Putting back an old copy of one table with its old sum fails too: the ledger is one value. (An old
copy of the whole file is a valid old database; a running process notices it, because the number of changes went down.)

The one invariant: `Changes` is the only writer of authenticated tables.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, insert, select, update

from mailsec.errors import SchemaError, Tampered
from mailsec.store.connection import column_in_lots, fetch
from mailsec.store.schema import AUTHENTICATED
from mailsec.store.schema import ledger as ledger_table
from mailsec.store.sealing import DataKey

__all__ = ["Changes", "Ledger", "Sums", "encode_row", "is_authentic"]

_MODULUS: Final = 2**256
_PURPOSE: Final = "ledger"
_MAC_OCTETS: Final = 32
_LOT: Final = 4096

# Statements that are asked for each row are made once: building one costs more than carrying it out.
_INSERTS: Final = {table: insert(table) for table, _ in AUTHENTICATED.values()}
_ROW: Final = select(ledger_table.c.changes, ledger_table.c.sealed).where(ledger_table.c.id == 1)


def encode_row(table: str, columns: tuple[str, ...], row: Mapping[str, Any]) -> bytes:
    """The octets that a row's MAC covers: no two different rows give the same ones."""
    pieces = [table.encode()]
    for column in columns:
        value = row[column]
        if value is None:
            pieces.append(b"-")
        elif isinstance(value, bytes):
            pieces.append(b"b%d:%b" % (len(value), value))
        elif isinstance(value, str):
            octets = value.encode("utf-8", "surrogatepass")
            pieces.append(b"s%d:%b" % (len(octets), octets))
        elif isinstance(value, int):
            pieces.append(b"i%d" % value)  # a bool is 0 or 1 here, as SQLite stores it
        else:
            raise TypeError(type(value))
    return b"|".join(pieces)


def is_authentic(key: DataKey, table: str, row: Mapping[str, Any]) -> bool:
    """True where `row` (with all columns of its table) was written by somebody with the data key."""
    try:
        expected = key.mac(encode_row(table, AUTHENTICATED[table][1], row))
    except TypeError:  # SQLite keeps any type in any column: a float where a number belongs
        return False
    return isinstance(row["mac"], bytes) and hmac.compare_digest(expected, row["mac"])


class Ledger:
    """The sums of all authenticated tables at one moment."""

    __slots__ = ("changes", "counts", "next_ids", "sealed", "totals")

    def __init__(self) -> None:
        self.changes = 0
        self.sealed = b""
        self.counts = dict.fromkeys(AUTHENTICATED, 0)
        self.totals = dict.fromkeys(AUTHENTICATED, 0)
        self.next_ids = dict.fromkeys(AUTHENTICATED, 1)

    @classmethod
    def read(cls, connection: Connection, key: DataKey, *, lock: bool = False, known: Ledger | None = None) -> Ledger:
        """The stored ledger; raise Tampered where it is not what mailsec wrote. `lock`: nobody else writes until the end.

        `known` is one that was read before and not changed: it is given back where the stored one is the same.
        """
        row = connection.execute(_ROW.with_for_update() if lock else _ROW).first()
        if row is None:
            raise Tampered("the ledger is gone", hint="restore the database from a backup")
        if not isinstance(row.sealed, bytes):
            raise Tampered("the ledger is no longer a sealed value", hint="restore the database from a backup")
        if known is not None and known.sealed == row.sealed and known.changes == row.changes:
            return known
        facts = json.loads(key.unseal(_PURPOSE, row.sealed, b"ledger"))
        ledger = cls()
        ledger.sealed = row.sealed
        ledger.changes = facts["changes"]
        if ledger.changes != row.changes:
            raise Tampered("the number of changes was edited", hint="restore the database from a backup")
        for name, (count, total, next_id) in facts["tables"].items():
            # Schema N+1 may know more tables: they are kept as they are.
            ledger.counts[name], ledger.totals[name], ledger.next_ids[name] = count, int(total, 16), next_id
        return ledger

    def write(self, connection: Connection, key: DataKey, *, first: bool = False) -> None:
        """Seal and store it, as the next change."""
        self.changes += 1
        tables = {name: (self.counts[name], f"{self.totals[name]:x}", self.next_ids[name]) for name in self.counts}
        sealed = key.seal(_PURPOSE, json.dumps({"changes": self.changes, "tables": tables}).encode(), b"ledger")
        if first:
            connection.execute(insert(ledger_table).values(id=1, changes=self.changes, sealed=sealed))
        else:
            connection.execute(update(ledger_table).where(ledger_table.c.id == 1).values(changes=self.changes, sealed=sealed))

    def problem(self, connection: Connection, key: DataKey, table: str, sums: Sums) -> str:
        """Why the rows of `table` are not all those, and only those, that mailsec wrote; "" where they are."""
        count, total = sums.of(connection, key, table)
        if count != self.counts[table]:
            return f"table {table} has {count} rows where mailsec wrote {self.counts[table]}"
        if total % _MODULUS != self.totals[table]:
            return f"table {table} has rows that mailsec did not write, or wrote earlier and changed since"
        return ""


class Sums:
    """Adds up the MACs of whole tables, and remembers by their digest the runs of rows that it has added up before.

    Every MAC is read each time, so nothing is believed for having been right earlier; only the keyed function, most of the work, is left out
    where the same MACs follow one another again. Where a run ends depends on the MACs in it, so that a row more or less changes one run. May be
    shared between threads.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, dict[bytes, int]] = {}

    def of(self, connection: Connection, key: DataKey, table: str) -> tuple[int, int]:
        """The number of rows, and their sum modulo 2^256."""
        count, total = 0, 0
        before = self._known.get(table, {})
        now: dict[bytes, int] = {}
        run: list[bytes] = []

        def finished() -> int:
            digest = hashlib.sha256(b"".join(run)).digest()
            known = before.get(digest)
            if known is None:
                known = sum(map(key.summand, run)) % _MODULUS
            now[digest] = known
            run.clear()
            return known

        for lot in column_in_lots(connection, AUTHENTICATED[table][0].c.mac, _LOT):
            count += len(lot)
            for mac in lot:
                if type(mac) is bytes and len(mac) == _MAC_OCTETS:
                    run.append(mac)
                    if mac[0] == 0:  # of MACs that we wrote every 256th
                        total += finished()
                elif isinstance(mac, bytes):
                    # Attack: the octets of two MACs parted elsewhere are the same run. Of such lengths nothing is remembered.
                    total += key.summand(mac)
            if len(run) >= _LOT:  # of MACs that somebody has chosen
                total += finished()
        total += finished()
        self._known[table] = now
        return count, total % _MODULUS


class Changes:
    """One transaction's writes. Made by `Database.writing`, which stores the ledger at the end."""

    __slots__ = ("_connection", "_key", "_ledger", "changed")

    def __init__(self, connection: Connection, key: DataKey, ledger: Ledger) -> None:
        self._connection = connection
        self._key = key
        self._ledger = ledger
        self.changed = False

    @property
    def connection(self) -> Connection:
        """For reading, and for tables without a MAC."""
        return self._connection

    def next_id(self, table: str) -> int:
        """An id that no row of `table` ever had."""
        number: int = self._ledger.next_ids[table]
        self._ledger.next_ids[table] = number + 1
        self.changed = True
        return number

    def insert(self, table: str, values: dict[str, Any]) -> int:
        """Add a row; its id is drawn here unless `values` has one from `next_id`."""
        into, columns = AUTHENTICATED[table]
        row = values if "id" in values else values | {"id": self.next_id(table)}
        mac = self._key.mac(encode_row(table, columns, row))
        self._connection.execute(_INSERTS[into], {**row, "mac": mac})
        self._add(table, 1, self._key.summand(mac))
        return int(row["id"])

    def update(self, table: str, row: Mapping[str, Any], values: dict[str, Any]) -> None:
        """Change `row`, as it was read. Raise Tampered where it is not authentic: a change must not make it so."""
        into, columns = AUTHENTICATED[table]
        if not is_authentic(self._key, table, row):
            raise Tampered(f"row {row['id']} of {table} was not written by mailsec", hint="`mailsec db check` shows what was changed")
        mac = self._key.mac(encode_row(table, columns, {**row, **values}))
        self._connection.execute(update(into).where(into.c.id == row["id"]).values(**values, mac=mac))
        self._add(table, 0, self._key.summand(mac) - self._key.summand(row["mac"]))

    def delete(self, table: str, row: Mapping[str, Any]) -> None:
        """Remove `row`, as it was read. (A forged row leaves its mark in the sum: only `rebuild` takes that away.)"""
        into: Table = AUTHENTICATED[table][0]
        self._connection.execute(delete(into).where(into.c.id == row["id"]))
        self._add(table, -1, -self._key.summand(row["mac"]) if isinstance(row["mac"], bytes) else 0)

    def rebuild(self, table: str) -> int:
        """Remove the rows that are not authentic (and what points to them), and sum up the others; return how many went.

        A person asked for this. Tables that point to `table` must be rebuilt after it.
        """
        source, _ = AUTHENTICATED[table]
        gone, count, total, highest = 0, 0, 0, 0
        for row in fetch(self._connection, select(source)):
            if is_authentic(self._key, table, row):
                count, total, highest = count + 1, total + self._key.summand(row["mac"]), max(highest, row["id"])
                continue
            for other in source.metadata.tables.values():
                for key in other.foreign_keys:
                    if key.column.table is source:
                        self._connection.execute(delete(other).where(key.parent == row["id"]))
            self._connection.execute(delete(source).where(source.c.id == row["id"]))
            gone += 1
        self._ledger.counts[table], self._ledger.totals[table] = count, total % _MODULUS
        self._ledger.next_ids[table] = max(self._ledger.next_ids[table], highest + 1)
        self.changed = True
        return gone

    def _add(self, table: str, rows: int, amount: int) -> None:
        if table not in self._ledger.totals:
            raise SchemaError(f"the ledger does not know table {table}", hint="run `mailsec db upgrade`")
        self._ledger.counts[table] += rows
        self._ledger.totals[table] = (self._ledger.totals[table] + amount) % _MODULUS
        self.changed = True
