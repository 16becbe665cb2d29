"""Certificates and capabilities that correspondents' mail taught: which are used at once, which wait, and what a person decides.

The one invariant: what mail brings never takes the place of what is in use, unless it has the same key, or the same anchor and the time of
the other one is nearly over, or it was revoked. Everything else is "pending": it is shown (`mailsec cert learnt`), and nothing is encrypted
with it.
Blocking: called from commands, or in a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from mailsec.errors import CertificateError, Refused, Tampered, UsageError
from mailsec.model.address import Address
from mailsec.model.correspondents import KnownCertificate, Lesson, Sighting
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.connection import fetch
from mailsec.store.entry_rows import insert_certificate, instant_of, trust_columns
from mailsec.store.facts import facts_of
from mailsec.store.ledger import Changes
from mailsec.store.nicknames import LONGEST, free_nickname, make_nickname
from mailsec.store.schema import capabilities, certificate_addresses, certificates, learnt, private_keys
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["DECISIONS", "Learnt"]

NEARLY_OVER: Final = timedelta(days=30)
"""How long before its end a certificate in use may be followed by another one of the same authority."""

DECISIONS: Final[Mapping[str, str]] = {"accept": "", "reject": "rejected", "pin": "pinned", "block": "blocked"}
"""What a person may decide about a certificate, and the state that it then has."""

_IN_USE: Final = ("", "pinned")
_MOST_CAPABILITIES: Final = 4096
"""Octets of sMIMECapabilities that are kept: real ones have some hundred."""
_TABLES: Final = ("certificates", "certificate_addresses", "private_keys", "assignments", "capabilities")


class Learnt:
    """What a database knows of correspondents."""

    def __init__(self, database: CertDb) -> None:
        self._database = database

    # -- asking ------------------------------------------------------------------------------------------------------------

    def known(self, address: Address, *, domain: bool = False) -> Sequence[KnownCertificate]:
        """Every certificate that names `address` or was bound to it, whatever its state; verified ones only.

        `domain`: also those that were bound to its whole domain.
        """
        places = [address.key, "@" + address.domain_key] if domain else [address.key]
        wanted = select(certificate_addresses.c.certificate_id).where(certificate_addresses.c.address.in_(places))
        found = []
        with self._database.reading() as connection:
            rows = {row["id"]: row for row in fetch(connection, select(certificates).where(certificates.c.id.in_(wanted)))}
            sources = {
                row["certificate_id"]: row["source"] for row in fetch(connection, select(learnt).where(learnt.c.address == address.key))
            }
            for entry in self._database.entries_of(connection, certificates.c.id.in_(wanted)):
                if entry.verified and entry.for_whom(address) in places:
                    found.append(KnownCertificate(entry, str(rows[entry.id]["state"]), source=str(sources.get(entry.id, ""))))
        return found

    def seen(self, state: str | None = None) -> Sequence[KnownCertificate]:
        """Every certificate that mail taught, the last seen first; with `state` only those that have it."""
        found = []
        with self._database.reading() as connection:
            query = select(learnt).order_by(learnt.c.last_seen.desc(), learnt.c.id.desc())
            seen = fetch(connection, query)
            wanted = select(learnt.c.certificate_id)
            rows = {row["id"]: row for row in fetch(connection, select(certificates).where(certificates.c.id.in_(wanted)))}
            entries = {entry.id: entry for entry in self._database.entries_of(connection, certificates.c.id.in_(wanted))}
            for row in seen:
                entry = entries.get(row["certificate_id"])
                if entry is not None and state in (None, rows[entry.id]["state"]):
                    found.append(
                        KnownCertificate(
                            entry,
                            str(rows[entry.id]["state"]),
                            str(row["address"]),
                            str(row["source"]),
                            instant_of(row["first_seen"]),
                            instant_of(row["last_seen"]),
                            row["times"] if isinstance(row["times"], int) else 0,
                        )
                    )
        return found

    def capabilities(self, address: Address) -> bytes | None:
        """DER of the sMIMECapabilities that the holder of `address` signed last; None where none are known."""
        with self._database.reading() as connection:
            if self._database.problem(connection, "capabilities"):
                return None
            row = _first(connection, select(capabilities).where(capabilities.c.address == address.key))
            return bytes(row["der"]) if row is not None and self._database.authentic("capabilities", row) else None

    # -- learning ----------------------------------------------------------------------------------------------------------

    def learn(self, sightings: Sequence[Sighting], *, anchors: Collection[bytes] = (), at: datetime) -> tuple[Lesson, ...]:
        """Take in what mail showed, in one transaction; what became of each sighting. A certificate that cannot be read teaches nothing.

        `anchors` are the certificates that are anchors for e-mail now, also those that the database does not hold.
        """
        lessons = []
        with self._database.writing() as changes:
            self._demand(changes.connection)
            for sighting in sightings:
                try:
                    lessons.append(_Learning(self._database, changes, anchors, at).learn(sighting))
                except CertificateError:
                    continue
        return tuple(lessons)

    # -- a person decides --------------------------------------------------------------------------------------------------

    def decide(self, fingerprint: str, word: str) -> KnownCertificate:
        """Accept, reject, pin or block the certificate whose SHA-256 begins with `fingerprint` (hexadecimal, eight digits or more).

        Raise UsageError for another word or too few digits, Refused where there is none or more than one. Rows that were changed are refused.
        """
        if word not in DECISIONS:
            raise UsageError(f"a certificate cannot be {word!r}", hint="one of " + ", ".join(DECISIONS))
        digits = fingerprint.replace(":", "").lower()
        if len(digits) < 8 or set(digits) - set("0123456789abcdef"):
            raise UsageError(f"not a fingerprint: {fingerprint[:80]!r}", hint="eight hexadecimal digits or more")
        with self._database.writing() as changes:
            self._demand(changes.connection)
            rows = [row for row in fetch(changes.connection, select(certificates)) if row["sha256"].hex().startswith(digits)]
            if len(rows) != 1:
                what = "no certificate has" if not rows else f"{len(rows)} certificates have"
                raise Refused(f"{what} a fingerprint that begins with {digits}", hint="`mailsec cert list` shows those that there are")
            row = rows[0]
            if word == "pin" and _is_authority(load_certificate(row["der"])):
                raise Refused("the certificate of an authority cannot be pinned", hint="pin the certificate of a correspondent")
            if row["state"] != DECISIONS[word]:
                changes.update("certificates", row, {"state": DECISIONS[word]})
            entry = self._database.entries_of(changes.connection, certificates.c.id == row["id"])[0]
            return KnownCertificate(entry, DECISIONS[word])

    def _demand(self, connection: Connection) -> None:
        if problem := self._database.problem(connection, *_TABLES):
            raise Tampered(problem, hint="`mailsec db check` shows more")


class _Learning:
    """One sighting, within a transaction."""

    def __init__(self, database: CertDb, changes: Changes, anchors: Collection[bytes], at: datetime) -> None:
        self._database = database
        self._changes = changes
        self._connection = changes.connection
        self._anchors = anchors
        self._at = at

    def learn(self, sighting: Sighting) -> Lesson:
        facts = facts_of(sighting.certificate)
        address = sighting.address.key
        digest = hashlib.sha256(sighting.certificate).digest()
        row = _first(self._connection, select(certificates).where(certificates.c.sha256 == digest))
        state, reason = self._state(sighting, facts.key_id, digest)
        new = row is None
        if row is None:
            # Only the From address: whom else the certificate names has other certificates, perhaps, and was not asked.
            number = self._insert(sighting.certificate, digest, (address,), address, state)
        else:
            number = int(row["id"])
            if not self._database.authentic("certificates", row):
                raise Tampered(f"certificate {row['nickname']} was changed by something else than mailsec", hint="`mailsec db check`")
            if row["state"] == "pending" and state == "":
                self._changes.update("certificates", row, {"state": ""})
                new = True
            elif row["state"] != "" or self._names(number, address):
                state, reason = str(row["state"]), "known"
            elif state == "":
                self._changes.insert("certificate_addresses", {"certificate_id": number, "address": address, "bound": False})
                new = True
            else:
                # It is in use for somebody else; for this address it would have to wait, and a certificate has one state.
                return Lesson(address, digest.hex(), state, reason, False)
        if state in _IN_USE:
            for authority in sighting.chain[: DEFAULT_LIMITS.path_length]:
                self._keep_authority(authority)
            self._keep_capabilities(sighting, address, facts.key_id)
        self._note(number, address, sighting.source)
        return Lesson(address, digest.hex(), state, reason, new)

    def _state(self, sighting: Sighting, key_id: bytes, digest: bytes) -> tuple[str, str]:
        """What a certificate is to be to this address, given those that are known, and why."""
        wanted = select(certificate_addresses.c.certificate_id).where(certificate_addresses.c.address == sighting.address.key)
        rows = fetch(self._connection, select(certificates).where(certificates.c.id.in_(wanted), certificates.c.sha256 != digest))
        known = [row for row in rows if self._database.authentic("certificates", row)]
        if any(row["state"] in ("blocked", "rejected") and row["key_id"] == key_id for row in known):
            return "pending", "a person did not want another certificate with this key"
        known = [row for row in known if row["state"] in _IN_USE]
        if not known:
            return "", "the first certificate of this address"
        revoked = {hashlib.sha256(der).digest() for der in sighting.revoked}
        good = [row for row in known if row["sha256"] not in revoked]
        # Attack: whoever stole a key has another authority certify it, once it is revoked.
        if any(row["key_id"] == key_id for row in good):
            return "", "the key is known"
        if any(row["state"] == "pinned" for row in known):
            return "pending", "another certificate is pinned"
        own = select(private_keys.c.key_id).where(private_keys.c.key_id.in_([row["key_id"] for row in known]))
        if fetch(self._connection, own):
            return "pending", "the certificate in use is our own"
        if any(self._anchor_of(load_certificate(row["der"])) != sighting.anchor for row in known):
            return "pending", "it has another key, and another authority than the certificate in use"
        if not good:
            # Design §6: a certificate in use stays until it expires or is revoked; nothing is encrypted with it now.
            return "", "the same authority follows up a certificate that was revoked"
        ends = max((row["not_after"] or 0) for row in good)
        if ends - int(self._at.timestamp()) > NEARLY_OVER.total_seconds():
            return "pending", "it has another key, and the certificate in use has more than 30 days to go"
        return "", "the same authority follows up a certificate that ends"

    def _anchor_of(self, certificate: Certificate) -> bytes | None:
        """The anchor that the authorities at hand lead to, by names and key identifiers; None where they lead nowhere."""
        anchors = [load_certificate(der) for der in self._anchors]
        here = certificate
        for _ in range(DEFAULT_LIMITS.path_length):
            anchor = _issuer_among(here, anchors)
            if anchor is not None:
                return anchor.der
            query = select(certificates).where(certificates.c.subject == here.issuer.der)
            rows = [row for row in fetch(self._connection, query) if self._database.authentic("certificates", row)]
            above = _issuer_among(here, [load_certificate(row["der"]) for row in rows if row["state"] in _IN_USE])
            if above is None or above.der == here.der:
                return None
            for row in rows:
                if row["der"] == above.der and TrustFlags(email=row["trust_email"]).email_anchor:
                    return above.der
            here = above
        return None

    def _names(self, number: int, address: str) -> bool:
        query = select(certificate_addresses.c.id).where(
            certificate_addresses.c.certificate_id == number, certificate_addresses.c.address == address
        )
        return self._connection.execute(query).first() is not None

    def _insert(self, der: bytes, digest: bytes, addresses: tuple[str, ...], name: str, state: str) -> int:
        facts = replace(facts_of(der), addresses=addresses)
        wanted = make_nickname(name, digest.hex()[:16])
        # Names of the configuration are other subjects' (`CertDb.add`): a name that anybody has is not taken.
        query = select(certificates.c.nickname, certificates.c.subject).where(certificates.c.nickname.startswith(wanted[: LONGEST - 8]))
        taken = {row["nickname"] for row in fetch(self._connection, query) if row["subject"] != facts.subject}
        nickname = free_nickname(wanted, taken)
        number = insert_certificate(self._changes, der, digest, facts, nickname, "harvested", self._at, trust_columns(TrustFlags(), ()))
        if state:
            row = _first(self._connection, select(certificates).where(certificates.c.id == number))
            assert row is not None
            self._changes.update("certificates", row, {"state": state})
        return number

    def _keep_authority(self, der: bytes) -> None:
        """An authority helps to build paths; it is believed no more for being here."""
        digest = hashlib.sha256(der).digest()
        if _first(self._connection, select(certificates).where(certificates.c.sha256 == digest)) is None:
            self._insert(der, digest, (), load_certificate(der).subject.text, "")

    def _keep_capabilities(self, sighting: Sighting, address: str, key_id: bytes) -> None:
        der = sighting.capabilities
        if der is None or len(der) > _MOST_CAPABILITIES:
            return
        signed_at = int((sighting.signed_at or self._at).timestamp())
        values = {"key_id": key_id, "der": der, "signed_at": signed_at}
        row = _first(self._connection, select(capabilities).where(capabilities.c.address == address))
        if row is None:
            self._changes.insert("capabilities", {"address": address, **values})
        elif row["signed_at"] <= signed_at and (row["der"], row["key_id"]) != (der, key_id):
            # RFC 8551 §2.7.1: what was signed last counts; an older message that arrives late, or again, changes nothing.
            self._changes.update("capabilities", row, values)

    def _note(self, number: int, address: str, source: str) -> None:
        """Where and when it was seen. It informs, and decides nothing."""
        second = int(self._at.timestamp())
        here = (learnt.c.certificate_id == number, learnt.c.address == address, learnt.c.source == source[:128])
        if self._connection.execute(update(learnt).where(*here).values(last_seen=second, times=learnt.c.times + 1)).rowcount == 0:
            values = {"certificate_id": number, "address": address, "source": source[:128], "first_seen": second, "last_seen": second}
            self._connection.execute(insert(learnt).values(**values, times=1))


def _issuer_among(certificate: Certificate, candidates: Sequence[Certificate]) -> Certificate | None:
    wanted = certificate.authority_key_id.key_id if certificate.authority_key_id else None
    for one in candidates:
        if one.subject.der == certificate.issuer.der and (wanted is None or one.subject_key_id in (None, wanted)):
            return one
    return None


def _is_authority(certificate: Certificate) -> bool:
    return certificate.basic_constraints is not None and certificate.basic_constraints.ca


def _first(connection: Connection, query: Any) -> Mapping[str, Any] | None:
    return next(iter(fetch(connection, query)), None)
