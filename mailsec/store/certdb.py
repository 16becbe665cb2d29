"""The certificate database: certificates, nicknames, trust, private keys, whom they sign for, and users.

The shared database of NSS and mod_nss, with what mail needs besides: addresses, domains that an anchor may vouch for, users. Many
certificates may have one nickname if they have one subject (renewals); the same certificate twice is one entry; a key belongs to
every certificate with its public key. Blocking: called from commands, or in a thread.

The one invariant: an entry decides something (is an anchor, gives its key, answers for an address) only if `verified`: its row and
all rows about it were written by mailsec, and no row of these tables is missing.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, Connection, bindparam, or_, select, union

from mailsec.errors import KeyUnavailable, Tampered, UsageError
from mailsec.model.address import Address
from mailsec.model.session import matches_pattern
from mailsec.model.trust import Anchor, CertificateEntry, TrustFlags
from mailsec.store.bindings import add_bindings, binding_key
from mailsec.store.connection import fetch
from mailsec.store.database import now
from mailsec.store.entry_rows import (
    PURPOSES,
    anchor_purposes,
    best_first,
    demand_domains,
    insert_certificate,
    instant_of,
    may_be_authority,
    own_first,
    patterns_for,
    seconds_of,
    strings,
    trust_columns,
)
from mailsec.store.facts import demand_key_fits, facts_of
from mailsec.store.intake import Incoming
from mailsec.store.issued import record
from mailsec.store.issuers import issuers_of
from mailsec.store.ledger import Changes
from mailsec.store.nicknames import LONGEST, check_nickname, make_nickname
from mailsec.store.patterns import check_patterns
from mailsec.store.private_keys import FEW, TABLES, PrivateKeys
from mailsec.store.schema import assignments, certificate_addresses, certificates, learnt, private_keys
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["CertDb"]

NO_TRUST = TrustFlags()
_HAS_TRUST = or_(certificates.c.trust_tls != "", certificates.c.trust_email != "")
_MOST_AUTHORITIES = 5000
_MOST_NUMBERED = 20


# Statements of every message and of every certificate that is imported, made once: building one costs more than carrying it out.
_ADDRESSES = select(certificate_addresses).order_by(certificate_addresses.c.id)
_ADDRESSES_OF = _ADDRESSES.where(certificate_addresses.c.certificate_id.in_(bindparam("ids", expanding=True)))
_KEYS = select(private_keys)
_KEYS_OF = _KEYS.where(private_keys.c.key_id.in_(bindparam("key_ids", expanding=True)))
_NAMING = select(certificates).where(
    certificates.c.id.in_(
        select(certificate_addresses.c.certificate_id).where(certificate_addresses.c.address.in_(bindparam("places", expanding=True)))
    )
)
_OWNER = select(certificates.c.subject).where(certificates.c.nickname == bindparam("nickname")).limit(1)
_WITH_DIGEST = select(certificates).where(certificates.c.sha256 == bindparam("digest"))


class CertDb(PrivateKeys):
    """An `interfaces.CertificateDatabase` over SQL. Made by `create` or `open`."""

    # -- asking ------------------------------------------------------------------------------------------------------------

    def entries(self) -> Sequence[CertificateEntry]:
        """Every certificate, verified or not, by nickname."""
        with self.reading() as connection:
            found = self._entries(connection)
        return sorted(found, key=lambda entry: (entry.nickname, entry.id))

    def entries_with(self, ids: Sequence[int]) -> Sequence[CertificateEntry]:
        """The entries with these ids, in their order; those that are gone are left out."""
        found: dict[int, CertificateEntry] = {}
        with self.reading() as connection:
            for start in range(0, len(ids), FEW):
                for entry in self._entries(connection, certificates.c.id.in_(ids[start : start + FEW])):
                    found[entry.id] = entry
        return [found[each] for each in ids if each in found]

    def find(self, nickname: str, *, at: datetime | None = None) -> Sequence[CertificateEntry]:
        """Entries called `nickname`: verified ones first, of these our own newest valid one."""
        if not nickname.isprintable():
            return []  # nothing is called like that (and PostgreSQL would not take the question)
        with self.reading() as connection:
            rows = self._rows(connection, certificates.c.nickname == nickname)
            return [entry for entry, _ in best_first(self._build(connection, rows), at or now())]

    def for_address(self, address: Address, *, at: datetime | None = None) -> Sequence[CertificateEntry]:
        """Verified entries that name `address` or were bound to it, best first, then those of its domain; no blocked or distrusted ones."""
        instant = at or now()
        with self.reading() as connection:
            places = [address.key, "@" + address.domain_key]
            rows = [row for row in fetch(connection, _NAMING, places=places) if row["state"] in ("", "pinned")]
            built = [
                (entry, row)
                for entry, row in self._build(connection, rows)
                if entry.verified and not entry.trust.email_distrusted and entry.for_whom(address)
            ]
        return [entry for entry, _ in own_first(best_first(built, instant), address, instant)]

    def assigned_to(self, address: Address, usage: str = "", *, at: datetime | None = None) -> Sequence[CertificateEntry]:
        """Verified entries whose key may be used for `address`, newest valid first; expired ones come last.

        What mail taught is left out where a person has put a certificate of that key here, as in `of_keys`.
        """
        named = select(certificates.c.key_id).join(certificate_addresses, certificate_addresses.c.certificate_id == certificates.c.id)
        assigned = select(assignments.c.key_id).where(assignments.c.pattern.in_(patterns_for(address)))
        candidates = union(named.where(certificate_addresses.c.address == address.key), assigned)
        with self.reading() as connection:
            key_ids = [row["key_id"] for row in fetch(connection, candidates)]
            built = self._build(connection, self._rows(connection, certificates.c.key_id.in_(key_ids)))
            patterns = self._patterns(connection, key_ids, usage)
        found = []
        own = {row["key_id"] for entry, row in built if entry.verified and entry.source != "harvested"}
        for entry, row in best_first(built, at or now()):
            if not entry.verified or not entry.has_key or row["state"] == "blocked" or entry.trust.email_distrusted:
                continue
            if entry.source == "harvested" and row["key_id"] in own:
                # Attack: a correspondent has the public key of ours certified in his own name, and sends it along: we would sign as he.
                continue
            # Patterns of another usage bind the key too: it is then not for everybody whom the certificate names.
            for_key = patterns.get(row["key_id"], ()) if entry.assigned else entry.addresses
            if any(matches_pattern(pattern, address) for pattern in for_key):
                found.append(entry)
        return found

    def of_keys(self, key_ids: Collection[bytes], *, at: datetime | None = None) -> Sequence[CertificateEntry]:
        """Verified entries with these keys (SHA-256 of SubjectPublicKeyInfo) that a person put here, best first: for keys that lie on tokens.

        What mail taught is left out: a certificate that somebody got for the public key of another must not say whom that key is for.
        """
        with self.reading() as connection:
            built = self._build(connection, self._rows(connection, certificates.c.key_id.in_(key_ids))) if key_ids else []
            return [
                entry
                for entry, row in best_first(built, at or now())
                if entry.verified and row["state"] in ("", "pinned") and not entry.trust.email_distrusted and entry.source != "harvested"
            ]

    def anchors(self, purpose: str) -> Sequence[Anchor]:
        """What may vouch for "email", "tls-server" or "tls-client". Raise Tampered where the tables cannot be believed."""
        self._purpose(purpose)
        found = []
        with self.reading() as connection:
            self.demand(connection)
            for entry, row in self._build(connection, self._rows(connection, _HAS_TRUST)):
                purposes = anchor_purposes(entry.trust, entry.der)
                if entry.verified and purpose in purposes and row["state"] != "blocked":
                    # One that stands for itself alone does so for every address that it names.
                    domains = entry.domains or ("*",)
                    found.append(Anchor(entry.der, domains, purposes, instant_of(row["distrust_after"])))
        return tuple(found)

    def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """Certificates that no path may hold (NSS's "p"). Raise Tampered where any row was edited: it may have been such a one."""
        self._purpose(purpose)
        with self.reading() as connection:
            self.demand(connection)
            column = "trust_email" if purpose == "email" else "trust_tls"
            found = []
            for row in self._stream(connection):
                if not self.authentic("certificates", row):
                    raise Tampered("a certificate row was changed, and may have held a distrust", hint="`mailsec db check` shows which")
                if "p" in row[column] or row["state"] == "blocked":
                    found.append(row["der"])
            return tuple(found)

    def authorities(self) -> Sequence[bytes]:
        """Certificates of authorities that are here, with trust or without, to build paths with; distrusted and blocked ones are left out.

        Nobody believes a certificate for being here: every path ends at an anchor. Rows that cannot be believed are left out too.
        """
        with self.reading() as connection:
            rows = [
                row
                for row in self._stream(connection)
                if row["state"] in ("", "pinned") and isinstance(row["der"], bytes) and may_be_authority(row["der"])
            ]
            found = []
            for entry, _ in self._build(connection, rows[:_MOST_AUTHORITIES]):
                basic = load_certificate(entry.der).basic_constraints
                if entry.verified and not entry.trust.email_distrusted and basic is not None and basic.ca:
                    found.append(entry.der)
            return tuple(found)

    def chain(self, entry: CertificateEntry) -> tuple[bytes, ...]:
        """Certificates of the entry's issuers that are here, nearest first; a self-signed one, the anchor, is left out.

        Only names and key identifiers are compared: whoever gets the chain checks it.
        """
        with self.reading() as connection:

            def called(subject: bytes) -> Sequence[Certificate]:
                found = self._entries(connection, certificates.c.subject == subject)
                return [load_certificate(each.der) for each in found if each.verified and not each.trust.email_distrusted]

            return issuers_of(load_certificate(entry.der), called)

    def private_key(self, entry: CertificateEntry) -> bytes | None:
        """PKCS#8 DER of the entry's key; None where the database has none. Raise Tampered where a row was changed."""
        return self.key_octets(facts_of(entry.der).key_id, entry.nickname)

    # -- changing ----------------------------------------------------------------------------------------------------------

    def add(
        self,
        certificate: bytes,
        nickname: str,
        *,
        trust: TrustFlags = NO_TRUST,
        domains: Sequence[str] = (),
        source: str = "imported",
        private_key: bytes | None = None,
        assigned: Sequence[str] = (),
        issuer: bytes | None = None,
        at: datetime,
    ) -> CertificateEntry:
        """Add a certificate, and with `private_key` (PKCS#8 DER) its key; the same certificate twice is one entry.

        One that is there keeps its nickname; trust, key and assignments are added to it. `issuer` is the certificate of the authority of ours
        that has just issued it: it is written into the register in the same transaction (`store.issued`). Raise UsageError for a nickname that
        another subject has, or an e-mail anchor without domains.
        """
        item = Incoming(
            certificate,
            check_nickname(nickname),
            trust=trust,
            domains=domains,
            private_key=private_key,
            assigned=assigned,
            source=source,
            issuer=issuer,
        )
        with self.taking(at=at) as take:
            number, _ = take(item)
        return self.entries_with([number])[0]

    @contextmanager
    def taking(self, *, at: datetime) -> Iterator[Callable[[Incoming], tuple[int, bool]]]:
        """A transaction: a function that adds one certificate (`take`)."""
        with self.writing() as changes:
            self.demand(changes.connection)
            yield lambda item: self.take(changes, item, at=at)

    def take(self, changes: Changes, item: Incoming, *, at: datetime) -> tuple[int, bool]:
        """`add`, within a transaction after `demand`: the id of the entry, and whether it is new. Nothing was written where it raises."""
        facts = facts_of(item.der)
        domains = demand_domains(item.trust, item.domains)
        assigned = check_patterns(item.assigned)
        bound = [binding_key(place) for place in item.bound]
        if item.private_key is not None:
            demand_key_fits(item.private_key, facts.spki)
        connection = changes.connection
        digest = hashlib.sha256(item.der).digest()
        columns = {**trust_columns(item.trust, domains), "distrust_after": seconds_of(item.distrust_after)}
        rows = fetch(connection, _WITH_DIGEST, digest=digest)
        if rows:
            if item.trust != NO_TRUST:
                changes.update("certificates", rows[0], columns)
            number = int(rows[0]["id"])
        else:
            if item.nickname:
                nickname = check_nickname(item.nickname)
                self._demand_nickname(connection, nickname, facts.subject)
            else:
                nickname = self.free_nickname(connection, item.suggested, facts.subject)
            number = insert_certificate(changes, item.der, digest, facts, nickname, item.source, at, {**columns, "state": item.state})
        if item.private_key is not None:
            self._add_key(changes, facts.key_id, facts.key_type, item.private_key, at)
        if assigned:
            self._assign(changes, facts.key_id, assigned, "", keep=True)
        add_bindings(changes, number, item.der, bound)
        if item.issuer is not None:
            record(changes, item.issuer, item.der, at)
        return number, not rows

    def free_nickname(self, connection: Connection, suggested: str, subject: bytes) -> str:
        """`suggested` as a nickname that no other subject has, with a number behind it where one has."""
        wanted = make_nickname(suggested, "imported")
        owner = connection.execute(_OWNER, {"nickname": wanted}).first()
        if owner is None or owner.subject == subject:
            return wanted
        names = [wanted, *(f"{wanted[: LONGEST - 8]} #{number}" for number in range(2, _MOST_NUMBERED))]
        query = select(certificates.c.nickname, certificates.c.subject).where(certificates.c.nickname.in_(names))
        owners = {row["nickname"]: row["subject"] for row in fetch(connection, query)}
        # Whoever has a name has it with one subject. A name that very many want is told apart by the subject instead of by numbers.
        digest = hashlib.sha256(subject).hexdigest()[:16]
        return next((name for name in names if owners.get(name, subject) == subject), f"{wanted[: LONGEST - 20]} {digest}")

    def set_trust(self, nickname: str, trust: TrustFlags, *, domains: Sequence[str] = ()) -> None:
        """Give every certificate of `nickname` these flags; an e-mail anchor needs the domains that it may vouch for ("*": any)."""
        columns = trust_columns(trust, demand_domains(trust, domains))
        with self.writing() as changes:
            for row in self._named(changes.connection, nickname):
                changes.update("certificates", row, columns)

    def assign(self, nickname: str, patterns: Sequence[str], *, usage: str = "") -> None:
        """Say for whom the keys of `nickname` are used, instead of whom their certificates name; no patterns: these again."""
        checked = check_patterns(patterns)
        with self.writing() as changes:
            self.demand(changes.connection)
            for key_id in {bytes(row["key_id"]) for row in self._named(changes.connection, nickname)}:
                self._assign(changes, key_id, checked, usage, keep=False)

    def rename(self, nickname: str, new: str) -> None:
        """Call every certificate of `nickname` by another name."""
        new = check_nickname(new)
        with self.writing() as changes:
            for row in self._named(changes.connection, nickname):
                self._demand_nickname(changes.connection, new, row["subject"])
                changes.update("certificates", row, {"nickname": new})

    def delete(self, entry: CertificateEntry, *, keep_key: bool = False) -> bool:
        """Remove one certificate, and its key if no other certificate here has it (or not, with `keep_key`); True where a key went too."""
        with self.writing() as changes:
            connection = changes.connection
            for row in self._rows(connection, certificates.c.id == entry.id):
                query = select(certificate_addresses).where(certificate_addresses.c.certificate_id == entry.id)
                for address in fetch(connection, query):
                    changes.delete("certificate_addresses", address)
                connection.execute(learnt.delete().where(learnt.c.certificate_id == entry.id))
                changes.delete("certificates", row)
                if not keep_key and not self._rows(connection, certificates.c.key_id == row["key_id"]):
                    return self._delete_key(changes, row["key_id"])
        return False

    # -- within a transaction ----------------------------------------------------------------------------------------------

    @staticmethod
    def _purpose(purpose: str) -> None:
        if purpose not in PURPOSES:
            raise UsageError(f"there is no purpose {purpose!r}", hint="one of " + ", ".join(PURPOSES))

    @staticmethod
    def _rows(connection: Connection, *where: ColumnElement[bool]) -> Sequence[Mapping[str, Any]]:
        return fetch(connection, select(certificates).where(*where))

    @staticmethod
    def _stream(connection: Connection) -> Iterator[Mapping[str, Any]]:
        """Every row, one after another: a million certificates are not held in memory at once."""
        query = select(certificates).order_by(certificates.c.id).execution_options(yield_per=500)
        return iter(cast("Iterable[Mapping[str, Any]]", connection.execute(query).mappings()))

    def _named(self, connection: Connection, nickname: str) -> Sequence[Mapping[str, Any]]:
        rows = self._rows(connection, certificates.c.nickname == nickname)
        if not rows:
            raise KeyUnavailable(f"there is no certificate {nickname[:80]!r}", hint="`mailsec cert list` shows those that there are")
        return rows

    def _demand_nickname(self, connection: Connection, nickname: str, subject: bytes) -> None:
        # Attack: a certificate of somebody else under a name that the configuration uses. NSS has the same rule.
        for row in self._rows(connection, certificates.c.nickname == nickname):
            if row["subject"] != subject:
                raise UsageError(f"another subject has the nickname {nickname!r}", hint="choose another nickname")

    def entries_of(self, connection: Connection, *where: ColumnElement[bool]) -> Sequence[CertificateEntry]:
        """The entries of some rows, for another module's transaction (`store.learnt`)."""
        return self._entries(connection, *where)

    def _entries(self, connection: Connection, *where: ColumnElement[bool]) -> list[CertificateEntry]:
        return [entry for entry, _ in self._build(connection, self._rows(connection, *where))]

    def _build(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> list[tuple[CertificateEntry, Mapping[str, Any]]]:
        """Entries from rows, with what other tables say of them."""
        if not rows:
            return []
        whole = not self.problem(connection, *TABLES)
        # For a few entries only their own rows are read; for many, all at once.
        some = len(rows) <= FEW
        ids, key_ids = [row["id"] for row in rows], [row["key_id"] for row in rows]
        named = fetch(connection, _ADDRESSES_OF, ids=ids) if some else fetch(connection, _ADDRESSES)
        addresses: dict[int, list[str]] = defaultdict(list)
        bound: dict[int, list[str]] = defaultdict(list)
        forged: set[Any] = set()
        for row in named:
            if self.authentic("certificate_addresses", row):
                (bound if row["bound"] else addresses)[row["certificate_id"]].append(row["address"])
            else:
                forged.add(row["certificate_id"])
        held = fetch(connection, _KEYS_OF, key_ids=key_ids) if some else fetch(connection, _KEYS)
        keys = {row["key_id"]: self.authentic("private_keys", row) for row in held}
        # Attack: an assignment that is passed over widens what the key is for to whomever its certificate names.
        edited: set[bytes] = set()
        patterns = self._patterns(connection, set(key_ids), forged=edited)
        if keys and self.edited(connection, "assignments"):
            # One that was edited may have been of any key that has none now.
            edited |= {key_id for key_id in keys if key_id not in patterns}
        built = []
        for row in rows:
            verified = (
                whole
                and self.authentic("certificates", row)
                and row["id"] not in forged
                and keys.get(row["key_id"], True)
                and row["key_id"] not in edited
                and hashlib.sha256(row["der"]).digest() == row["sha256"]
            )
            entry = CertificateEntry(
                id=row["id"],
                nickname=str(row["nickname"]),
                der=row["der"] if isinstance(row["der"], bytes) else b"",
                trust=TrustFlags(str(row["trust_tls"]), str(row["trust_email"]), str(row["trust_object"])),
                has_key=row["key_id"] in keys,
                addresses=tuple(addresses.get(row["id"], ())),
                assigned=tuple(dict.fromkeys(patterns.get(row["key_id"], ()))),
                domains=strings(row["domains"]),
                verified=verified,
                source=str(row["source"]),
                learnt_at=instant_of(row["learnt_at"]),
                state=str(row["state"]),
                bound=tuple(bound.get(row["id"], ())),
            )
            built.append((entry, row))
        return built


if TYPE_CHECKING:
    from mailsec.interfaces import CertificateDatabase

    _keeps_the_promise: type[CertificateDatabase] = CertDb
