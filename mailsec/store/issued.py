"""What our own authorities issued, and what they revoked: the register that a revocation list and an OCSP responder are made from.

An authority is known by its key, so a renewed certificate of it goes on with the same register. The one invariant: a certificate that was
revoked stays revoked, but for one that was on hold (RFC 5280 §5.3.1). Blocking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, select

from mailsec.errors import KeyUnavailable, Refused, Tampered, UsageError
from mailsec.model.trust import IssuedCertificate
from mailsec.store.connection import fetch
from mailsec.store.database import Database
from mailsec.store.entry_rows import instant_of
from mailsec.store.facts import key_id_of
from mailsec.store.ledger import Changes
from mailsec.store.schema import issued
from mailsec.x509.certificate import load_certificate

__all__ = ["REASONS", "IssuedStore", "record"]

REASONS: Final = (
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
)
"""RFC 5280 §5.3.1, without removeFromCRL, which only a delta list says."""


class IssuedStore:
    """The registers of all our authorities. `authority` is always the DER of a certificate of the authority."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, authority: bytes, certificate: bytes, *, at: datetime) -> None:
        """Write down a certificate that `authority` has issued; one that is there stays as it is."""
        with self._database.writing() as changes:
            self._demand(changes.connection)
            record(changes, authority, certificate, at)

    def revoke(
        self, authority: bytes, serial: int, *, at: datetime, reason: str = "unspecified", not_after: datetime | None = None
    ) -> bool:
        """Revoke; False where that was done before. `not_after` also takes a serial number that is not in the register."""
        if reason not in REASONS:
            raise UsageError(f"there is no reason {reason!r}", hint="one of " + ", ".join(REASONS))
        values = {"revoked_at": int(at.timestamp()), "reason": reason}
        with self._database.writing() as changes:
            self._demand(changes.connection)
            row = _row(changes.connection, authority, serial)
            if row is None:
                if not_after is None:
                    raise KeyUnavailable(
                        f"no certificate with the serial number {serial:x} was issued here", hint="`mailsec cert show` prints it"
                    )
                changes.insert("issued", _values(authority, serial, None, not_after, at) | values)
            elif row["revoked_at"] is None:
                changes.update("issued", row, values)
            elif row["reason"] == "certificateHold" and reason != "certificateHold":
                # RFC 5280 §5.3.1: what was on hold may be revoked for good; since when is what was said first.
                changes.update("issued", row, {"reason": reason})
            else:
                return False
        return True

    def release(self, authority: bytes, serial: int) -> None:
        """Take a certificate off hold; raise Refused where it was revoked for good, or not at all."""
        with self._database.writing() as changes:
            self._demand(changes.connection)
            row = _row(changes.connection, authority, serial)
            if row is None or row["reason"] != "certificateHold":
                raise Refused(f"the certificate with the serial number {serial:x} is not on hold", hint="what is revoked stays revoked")
            changes.update("issued", row, {"revoked_at": None, "reason": ""})

    def issued(self, authority: bytes) -> Sequence[IssuedCertificate]:
        """Everything that `authority` issued or revoked. Raise Tampered where the register is not what mailsec wrote."""
        with self._database.reading() as connection:
            self._demand(connection)
            rows = fetch(connection, select(issued).where(issued.c.authority == _key_of(authority)).order_by(issued.c.id))
            for row in rows:
                if not self._database.authentic("issued", row):
                    raise Tampered("the register of issued certificates was changed", hint="`mailsec db check` shows which row")
        return [_entry(authority, row) for row in rows]

    def issued_as(self, authority: bytes, serial: int) -> IssuedCertificate | None:
        """What `authority` issued or revoked under that serial number; None: nothing. Raise Tampered as `issued` does."""
        with self._database.reading() as connection:
            self._demand(connection)
            row = _row(connection, authority, serial)
            if row is None:
                return None
            if not self._database.authentic("issued", row):
                raise Tampered("the register of issued certificates was changed", hint="`mailsec db check` shows which row")
        return _entry(authority, row)

    def _demand(self, connection: Connection) -> None:
        if problem := self._database.problem(connection, "issued"):
            raise Tampered(
                problem, hint="`mailsec db check` shows more; restore a backup, or `mailsec db check --accept` believes the rest"
            )


def record(changes: Changes, authority: bytes, certificate: bytes, at: datetime) -> None:
    """`IssuedStore.record`, within a transaction that adds the certificate, too."""
    parsed = load_certificate(certificate)
    if _row(changes.connection, authority, parsed.serial) is None:
        changes.insert("issued", _values(authority, parsed.serial, certificate, parsed.not_after or at, at))


def _row(connection: Connection, authority: bytes, serial: int) -> Mapping[str, Any] | None:
    query = select(issued).where(issued.c.authority == _key_of(authority), issued.c.serial == f"{serial:x}")
    return next(iter(fetch(connection, query)), None)


def _key_of(authority: bytes) -> bytes:
    return key_id_of(load_certificate(authority).spki)


def _values(authority: bytes, serial: int, der: bytes | None, not_after: datetime, at: datetime) -> dict[str, Any]:
    return {
        "authority": _key_of(authority),
        "serial": f"{serial:x}"[:40],
        "der": der,
        "issued_at": int(at.timestamp()),
        "not_after": int(not_after.timestamp()),
        "revoked_at": None,
        "reason": "",
    }


def _entry(authority: bytes, row: Mapping[str, Any]) -> IssuedCertificate:
    end = instant_of(row["not_after"])
    assert end is not None
    return IssuedCertificate(authority, int(row["serial"], 16), row["der"], end, instant_of(row["revoked_at"]), row["reason"])
