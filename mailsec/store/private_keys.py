"""Private keys of the database, with and without certificates, and whom each signs and opens for.

A key is called by the nicknames of its certificates; one that waits for its certificate (`mailsec cert request`) by the first digits of its id,
the SHA-256 of its public key. The one invariant: a key leaves its row only where that row and all about it were written by mailsec.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, select

from mailsec.errors import KeyUnavailable, Tampered, UsageError
from mailsec.store.connection import fetch
from mailsec.store.entry_rows import instant_of, key_place
from mailsec.store.facts import demand_key_fits, facts_of, key_id_of
from mailsec.store.ledger import Changes
from mailsec.store.patterns import check_patterns
from mailsec.store.schema import assignments, certificates, private_keys
from mailsec.store.users import Users
from mailsec.x509.issue import make_key
from mailsec.x509.keys import key_facts
from mailsec.x509.private_keys import public_key_of

__all__ = ["FEW", "TABLES", "USAGES", "PrivateKeys", "StoredKey", "the_key_called"]

TABLES: Final = ("certificates", "certificate_addresses", "private_keys", "assignments")
"""Tables that say together what a certificate or key is worth."""
FEW: Final = 50
"""Up to so many rows, what belongs to them is asked for by name; above, whole tables are read."""
USAGES: Final = ("", "sign", "decrypt")
_SHORTEST_ID: Final = 8
_ASSIGNMENTS: Final = select(assignments).order_by(assignments.c.id)
_ASSIGNMENTS_OF: Final = _ASSIGNMENTS.where(assignments.c.key_id.in_(bindparam("key_ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What is known of a private key; the key itself is not in here."""

    key_id: bytes
    key_type: str
    nicknames: tuple[str, ...]
    """Of its certificates; none: it waits for one."""
    assigned: tuple[tuple[str, str], ...]
    """(pattern, usage) of those whom it is assigned to; none: whom its certificates name."""
    created_at: datetime | None
    verified: bool


def the_key_called(name: str, keys: Sequence[StoredKey]) -> StoredKey:
    """The key of a certificate called `name`, or whose id begins with it; raise as `PrivateKeys.find_key`."""
    found = [key for key in keys if name in key.nicknames]
    digits = name.lower()
    if not found and len(digits) >= _SHORTEST_ID and not set(digits) - set("0123456789abcdef"):
        found = [key for key in keys if key.key_id.hex().startswith(digits)]
    if not found:
        raise KeyUnavailable(f"there is no private key {name[:80]!r} here", hint="`mailsec key list` shows those that there are")
    if len(found) > 1:
        ids = ", ".join(key.key_id.hex()[:16] for key in found)
        raise UsageError(f"{len(found)} keys are called {name[:80]!r}", hint=f"name one by its id: {ids}")
    return found[0]


class PrivateKeys(Users):
    """The part of the database that knows private keys."""

    def stored_keys(self) -> Sequence[StoredKey]:
        """Every private key, oldest first."""
        with self.reading() as connection:
            whole = not self.problem(connection, *TABLES)
            names: dict[bytes, list[str]] = defaultdict(list)
            query = select(certificates.c.key_id, certificates.c.nickname).join(
                private_keys, private_keys.c.key_id == certificates.c.key_id
            )
            for row in fetch(connection, query.order_by(certificates.c.nickname)):
                names[row["key_id"]].append(str(row["nickname"]))
            edited = bool(self.edited(connection, "assignments"))
            given: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
            assigned: set[bytes] = set()
            forged: set[bytes] = set()
            for row in fetch(connection, _ASSIGNMENTS):
                (assigned if self.authentic("assignments", row) else forged).add(row["key_id"])
                given[row["key_id"]].append((str(row["pattern"]), str(row["usage"])))
            return [
                StoredKey(
                    row["key_id"],
                    str(row["key_type"]),
                    tuple(dict.fromkeys(names[row["key_id"]])),
                    tuple(given[row["key_id"]]),
                    instant_of(row["created_at"]),
                    whole
                    and row["key_id"] not in forged
                    and (row["key_id"] in assigned or not edited)
                    and self.authentic("private_keys", row),
                )
                for row in fetch(connection, select(private_keys).order_by(private_keys.c.id))
            ]

    def find_key(self, name: str) -> StoredKey:
        """The key of a certificate called `name`, or whose id begins with it (eight digits or more).

        Raise KeyUnavailable where there is none, UsageError where there are several.
        """
        return the_key_called(name, self.stored_keys())

    def generate_key(self, kind: str, *, at: datetime) -> bytes:
        """Make a key ("rsa-3072", "ec-p256" …) that waits for its certificate; return its id. Raise UsageError for another kind."""
        return self.add_key(make_key(kind), at=at)

    def find_key_elsewhere(self, name: str) -> StoredKey | None:
        """The key of a certificate called `name` whose private part is not here (it lies on a token); None where there is none.

        Raise UsageError where several keys are called so.
        """
        with self.reading() as connection:
            self.demand(connection)
            rows = fetch(connection, select(certificates).where(certificates.c.nickname == name)) if name.isprintable() else ()
            found = {row["key_id"]: row["der"] for row in rows if self.authentic("certificates", row)}
            if len(found) > 1:
                raise UsageError(f"{len(found)} keys are called {name[:80]!r}", hint="give their certificates different nicknames")
            for key_id, der in found.items():
                given = fetch(connection, _ASSIGNMENTS_OF, key_ids=[key_id])
                pairs = tuple((str(row["pattern"]), str(row["usage"])) for row in given)
                return StoredKey(key_id, facts_of(der).key_type, (name,), pairs, None, verified=True)
        return None

    def add_key(self, private_key: bytes, *, at: datetime) -> bytes:
        """Keep a key (PKCS#8 DER) that has no certificate yet; return its id. One that is there stays as it is."""
        spki = public_key_of(private_key)
        demand_key_fits(private_key, spki)
        key_id = key_id_of(spki)
        facts = key_facts(spki)
        with self.writing() as changes:
            self.demand(changes.connection)
            self._add_key(changes, key_id, facts.type, private_key, at)
        return key_id

    def key_octets(self, key_id: bytes, name: str = "") -> bytes | None:
        """PKCS#8 DER of a key; None where it is not here. Raise Tampered where a row was changed."""
        with self.reading() as connection:
            row = next(iter(fetch(connection, select(private_keys).where(private_keys.c.key_id == key_id))), None)
            if row is None:
                return None
            self.demand(connection)
            if not self.authentic("private_keys", row):
                who = name or key_id.hex()[:16]
                raise Tampered(f"the private key of {who} was changed", hint="`mailsec db check` shows what was changed")
            return self._unlocked().unseal("private key", row["sealed"], key_place(row["id"], key_id))

    def delete_key(self, key_id: bytes) -> bool:
        """Remove a key, and not its certificates; False where it was not here. What was encrypted to it cannot be read by anybody then."""
        with self.writing() as changes:
            return self._delete_key(changes, key_id)

    def assign_key(self, key_id: bytes, patterns: Sequence[str], *, usage: str = "") -> None:
        """Say for whom a key is used, instead of whom its certificates name; no patterns: these again."""
        if usage not in USAGES:
            raise UsageError(f"there is no usage {usage!r}", hint="sign, decrypt, or neither for both")
        checked = check_patterns(patterns)
        with self.writing() as changes:
            self.demand(changes.connection)
            self._assign(changes, key_id, checked, usage, keep=False)

    # -- within a transaction ----------------------------------------------------------------------------------------------

    def demand(self, connection: Connection) -> None:
        """Raise Tampered where rows are missing or foreign: then nothing here may be believed."""
        self._unlocked()
        if problem := self.problem(connection, *TABLES):
            raise Tampered(
                problem, hint="`mailsec db check` shows more; restore a backup, or `mailsec db check --accept` believes the rest"
            )

    def demand_assignments(self) -> None:
        """Raise Tampered where nobody can say for whom the keys here are: that somebody has none may be an attacker's doing."""
        with self.reading() as connection:
            self.demand(connection)
            if problem := self.edited(connection, "assignments"):
                raise Tampered(
                    problem, hint="`mailsec db check` shows more; restore a backup, or `mailsec db check --accept` takes it away"
                )

    def _patterns(
        self, connection: Connection, key_ids: Collection[bytes], usage: str = "", forged: set[bytes] | None = None
    ) -> dict[bytes, list[str]]:
        """Whom keys are assigned to; ids of keys whose assignments somebody edited are added to `forged`."""
        patterns: dict[bytes, list[str]] = defaultdict(list)
        if len(key_ids) <= FEW:
            rows = fetch(connection, _ASSIGNMENTS_OF, key_ids=list(key_ids))
        else:
            rows = fetch(connection, _ASSIGNMENTS)
        for row in rows:
            if not self.authentic("assignments", row):
                if forged is not None:
                    forged.add(row["key_id"])
            elif not usage or row["usage"] in ("", usage):
                patterns[row["key_id"]].append(row["pattern"])
        return patterns

    def _add_key(self, changes: Changes, key_id: bytes, key_type: str, private_key: bytes, at: datetime) -> None:
        row = next(iter(fetch(changes.connection, select(private_keys).where(private_keys.c.key_id == key_id))), None)
        if row is not None:
            if not self.authentic("private_keys", row):
                raise Tampered("the private key that is there was changed", hint="`mailsec db check` shows what was changed")
            return
        number = changes.next_id("private_keys")
        sealed = self._unlocked().seal("private key", private_key, key_place(number, key_id))
        values = {"id": number, "key_id": key_id, "key_type": key_type, "sealed": sealed, "created_at": int(at.timestamp())}
        changes.insert("private_keys", values)

    def _assign(self, changes: Changes, key_id: bytes, patterns: Sequence[str], usage: str, *, keep: bool) -> None:
        query = select(assignments).where(assignments.c.key_id == key_id, assignments.c.usage == usage)
        there = {row["pattern"]: row for row in fetch(changes.connection, query)}
        for pattern, row in there.items():
            if pattern not in patterns and not keep:
                changes.delete("assignments", row)
        for pattern in patterns:
            if pattern not in there:
                changes.insert("assignments", {"key_id": key_id, "pattern": pattern, "usage": usage})

    @staticmethod
    def _delete_key(changes: Changes, key_id: bytes) -> bool:
        gone = False
        for table, source in (("assignments", assignments), ("private_keys", private_keys)):
            rows = fetch(changes.connection, select(source).where(source.c.key_id == key_id))
            for each in rows:
                changes.delete(table, each)
            gone = table == "private_keys" and bool(rows)
        return gone
