"""The keys with which the gateway seals what it delivers: one for three months, believed for years, each encrypted under the data key.

The one invariant: a key is given only where its row is what mailsec wrote, and no row of the table is missing. Blocking.
"""

from __future__ import annotations

import hmac
import os
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, select

from mailsec.errors import Tampered
from mailsec.model.seal import SealKey
from mailsec.store.connection import fetch
from mailsec.store.database import Database
from mailsec.store.schema import seal_keys
from mailsec.store.sealing import DataKey

__all__ = ["BELIEVED_FOR", "SEALS_FOR", "SealKeyStore"]

SEALS_FOR: Final = timedelta(days=90)
"""After that another key is made."""
BELIEVED_FOR: Final = timedelta(days=5 * 365)
"""So long mail may lie in a mailbox and still show its verdict."""

_PURPOSE: Final = "delivery"
_SEALED_AS: Final = "seal key"


class SealKeyStore:
    """The table `seal_keys`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key = DataKey(database.data_key, os.urandom)

    def keys(self) -> tuple[SealKey, ...]:
        """All keys, the newest first. Raise Tampered where the table is not what mailsec wrote."""
        with self._database.reading() as connection:
            return self._keys(connection)

    def current(self, at: datetime) -> SealKey:
        """The key to seal with at this instant, made now where there is none."""
        found = _usable(self.keys(), at)
        if found is not None:
            return found
        with self._database.writing() as changes:
            # Another worker may have made one: whoever writes is alone here.
            found = _usable(self._keys(changes.connection), at)
            if found is not None:
                return found
            number, secret = changes.next_id("seal_keys"), self._key.random(32)
            created, retires = int(at.timestamp()), int((at + BELIEVED_FOR).timestamp())
            sealed = self._key.seal(_SEALED_AS, secret, _place(number))
            changes.insert(
                "seal_keys",
                {"id": number, "purpose": _PURPOSE, "sealed": sealed, "created_at": created, "retires_at": retires},
            )
            return _key(secret, created, retires)

    def _keys(self, connection: Connection) -> tuple[SealKey, ...]:
        database = self._database
        if problem := database.problem(connection, "seal_keys"):
            raise Tampered(f"no seal can be read or written: {problem}", hint="`mailsec db check` shows more")
        query = select(seal_keys).where(seal_keys.c.purpose == _PURPOSE).order_by(seal_keys.c.created_at.desc(), seal_keys.c.id.desc())
        return tuple(self._open(row) for row in fetch(connection, query) if database.authentic("seal_keys", row))

    def _open(self, row: Any) -> SealKey:
        secret = self._key.unseal(_SEALED_AS, row["sealed"], _place(row["id"]))
        return _key(secret, row["created_at"], row["retires_at"])


def _usable(keys: tuple[SealKey, ...], at: datetime) -> SealKey | None:
    return next((key for key in keys if key.created_at <= at < key.created_at + SEALS_FOR), None)


def _key(secret: bytes, created_at: int, retires_at: int) -> SealKey:
    name = hmac.digest(secret, b"mailsec seal key id", "sha256")[:8].hex()
    return SealKey(name, secret, datetime.fromtimestamp(created_at, UTC), datetime.fromtimestamp(retires_at, UTC))


def _place(number: int) -> bytes:
    return b"seal_keys %d" % number
