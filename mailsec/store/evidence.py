"""Revocation lists, OCSP responses and what was asked, kept in the database and shared by all workers; and the lease on their refreshing.

These rows have no MAC: lists and responses carry their signer's signature and are judged at every use (`mailsec.pki`), so whoever edits them
can only take away what is fetched again. The one invariant: nothing that is read from here is believed for being here. Blocking.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from mailsec.errors import InputError
from mailsec.store.connection import fetch
from mailsec.store.database import Database
from mailsec.store.entry_rows import instant_of
from mailsec.store.schema import crls, evidence, meta
from mailsec.x509.crl import CertificateList, load_crl

__all__ = ["EvidenceStore", "KeptEvidence", "KeptList", "fingerprint"]

_KEPT_RESPONSES = 2
"""Responses about one certificate that are kept: the newest, and the one before it."""
_AFTER_END = timedelta(days=30)
"""How long a list or a response is kept after its end: for `[revocation] grace_days`, and as it still says what was revoked then."""


@dataclass(frozen=True, slots=True)
class KeptList:
    """One revocation list; `octets` may be left out where only the facts are asked for."""

    id: int
    sha256: bytes
    issuer: str
    number: str
    this_update: datetime | None
    next_update: datetime | None
    url: str
    fetched_at: datetime | None
    size: int = 0
    octets: bytes = b""


@dataclass(frozen=True, slots=True)
class KeptEvidence:
    """One OCSP response ("ocsp"), one issuer's certificate ("issuer"), or what was asked ("asked": the two certificates)."""

    kind: str
    subject: bytes
    """SHA-256 of the certificate that it is about."""
    octets: bytes
    source: str
    fetched_at: datetime
    expires_at: datetime


class EvidenceStore:
    """Evidence in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- OCSP responses and what was asked ----------------------------------------------------------------------------------------

    def keep(self, items: Sequence[KeptEvidence]) -> None:
        """Keep these; of one kind about one certificate only the newest few stay."""
        with self._writing() as connection:
            for item in items:
                values = {
                    "kind": item.kind,
                    "subject": item.subject,
                    "data": item.octets,
                    "source": item.source[:1000],
                    "fetched_at": int(item.fetched_at.timestamp()),
                    "expires_at": int(item.expires_at.timestamp()),
                }
                same = (evidence.c.kind == item.kind, evidence.c.subject == item.subject)
                known = fetch(connection, select(evidence.c.id, evidence.c.data).where(*same).order_by(evidence.c.fetched_at.desc()))
                doubles = [row["id"] for row in known if row["data"] == item.octets]
                older = [row["id"] for row in known if row["id"] not in doubles][_KEPT_RESPONSES - 1 :]
                if gone := [*doubles, *older]:
                    connection.execute(delete(evidence).where(evidence.c.id.in_(gone)))
                connection.execute(insert(evidence).values(values))

    def about(self, subjects: Collection[bytes], *, at: datetime, kinds: Collection[str] = ("ocsp", "issuer")) -> Sequence[KeptEvidence]:
        """What is kept about these certificates (SHA-256) and has not ended, newest first."""
        query = select(evidence).where(
            evidence.c.kind.in_(kinds), evidence.c.subject.in_(subjects), evidence.c.expires_at >= int(at.timestamp())
        )
        with self._database.reading() as connection:
            return [_evidence(row) for row in fetch(connection, query.order_by(evidence.c.fetched_at.desc(), evidence.c.id.desc()))]

    def ending(self, kind: str, after: datetime, before: datetime, *, fetched_before: datetime) -> Sequence[KeptEvidence]:
        """What ends between two instants, or has not ended at the first and was fetched before a third; what ends soonest first."""
        ends = evidence.c.expires_at
        due = or_(ends < int(before.timestamp()), evidence.c.fetched_at < int(fetched_before.timestamp()))
        query = select(evidence).where(evidence.c.kind == kind, ends >= int(after.timestamp()), due)
        with self._database.reading() as connection:
            return [_evidence(row) for row in fetch(connection, query.order_by(evidence.c.expires_at).limit(1000))]

    # -- lists ----------------------------------------------------------------------------------------------------------------------

    def keep_list(self, octets: bytes, *, url: str = "", at: datetime, notice: bool = False, judged: bool = True) -> KeptList:
        """Keep a list; older ones of the same address go (if it was not `judged`, those that have ended). Raise InputError for what is none.

        `notice` counts it as a change of the database: workers then forget what they know (`CertDb.changes`).
        """
        crl = load_crl(octets)
        if not crl.readable:
            problem = crl.problems[0]
            raise InputError(problem.message, hint=problem.hint, stage="parse")
        values = _values(crl, url, at)
        with self._writing(notice=notice) as connection:
            known = fetch(connection, select(crls.c.id).where(crls.c.sha256 == crl.fingerprint))
            if known:
                changed = {"url": url, "fetched_at": values["fetched_at"]} if url else {"fetched_at": values["fetched_at"]}
                connection.execute(update(crls).where(crls.c.id == known[0]["id"]).values(changed))
                number = known[0]["id"]
            else:
                number = connection.execute(insert(crls).values(values)).inserted_primary_key[0]  # type: ignore[index]  # one row, one key
            if url:
                # Attack: a responder that plays an older list does not push the newer one out.
                older = delete(crls).where(crls.c.url == url, crls.c.issuer == crl.issuer.der, crls.c.id != number)
                if crl.this_update is not None:
                    older = older.where(or_(crls.c.this_update.is_(None), crls.c.this_update <= values["this_update"]))
                if not judged:
                    older = older.where(or_(crls.c.next_update.is_(None), crls.c.next_update < int(at.timestamp())))
                connection.execute(older)
            row = fetch(connection, select(crls).where(crls.c.id == number))[0]
        return _list(row, crl)

    def lists(self) -> Sequence[KeptList]:
        """The facts about every list."""
        with self._database.reading() as connection:
            rows = fetch(connection, select(crls).order_by(crls.c.id))
        return [_list(row, load_crl(row["der"]), octets=False) for row in rows]

    def lists_of(self, issuers: Collection[bytes], urls: Collection[str] = ()) -> Sequence[tuple[bytes, int]]:
        """(SHA-256, id) of the lists of these issuers (DER of their names), or from these addresses."""
        where = or_(crls.c.issuer.in_(issuers), crls.c.url.in_([url for url in urls if url]))
        with self._database.reading() as connection:
            return [(row["sha256"], row["id"]) for row in fetch(connection, select(crls.c.sha256, crls.c.id).where(where))]

    def list_octets(self, ids: Collection[int]) -> Sequence[bytes]:
        """The lists themselves."""
        with self._database.reading() as connection:
            return [row["der"] for row in fetch(connection, select(crls.c.der).where(crls.c.id.in_(ids)))]

    def sources_of_lists(self, before: datetime, *, fetched_before: datetime) -> Sequence[str]:
        """Addresses whose newest list ends before an instant, does not say when, or was fetched before another instant."""
        with self._database.reading() as connection:
            rows = fetch(connection, select(crls.c.url, crls.c.next_update, crls.c.fetched_at).where(crls.c.url != ""))
        newest: dict[str, tuple[int, int]] = {}
        for row in rows:
            end, fetched = newest.get(row["url"], (0, 0))
            newest[row["url"]] = max(end, row["next_update"] or 0), max(fetched, row["fetched_at"] or 0)
        return [url for url, (end, fetched) in newest.items() if end < before.timestamp() or fetched < fetched_before.timestamp()]

    def delete_list(self, id: int) -> bool:
        """Forget one list; workers are told."""
        with self._writing(notice=True) as connection:
            return connection.execute(delete(crls).where(crls.c.id == id)).rowcount > 0

    def expire(self, at: datetime) -> int:
        """Delete what ended, lists and responses some weeks later; return how many rows went."""
        now, long_ago = int(at.timestamp()), int((at - _AFTER_END).timestamp())
        with self._writing() as connection:
            over = or_(evidence.c.expires_at < long_ago, and_(evidence.c.kind != "ocsp", evidence.c.expires_at < now))
            gone = connection.execute(delete(evidence).where(over)).rowcount
            ended = crls.c.next_update < long_ago
            gone += connection.execute(delete(crls).where(ended, crls.c.url != "")).rowcount
        return int(gone)

    # -- the lease ------------------------------------------------------------------------------------------------------------------

    def take_lease(self, name: str, holder: str, *, at: datetime, seconds: float) -> bool:
        """True where `holder` may do the job `name` until `seconds` from now: it had the lease, or nobody has."""
        row = f"lease:{name}"
        value = f"{int(at.timestamp() + seconds)} {holder}"
        with self._writing() as connection:
            query = select(meta.c.value).where(meta.c.name == row).with_for_update()
            known = connection.execute(query).scalar()
            if known is None:
                connection.execute(insert(meta).values(name=row, value=value))
                return True
            end, _, owner = str(known).partition(" ")
            # A clock that was wrong, or an edited row: a lease longer than any that is given out does not count.
            left = int(end) - at.timestamp() if end.isascii() and end.isdigit() else -1.0
            if owner != holder and 0 < left <= seconds * 10:
                return False
            connection.execute(update(meta).where(meta.c.name == row).values(value=value))
            return True

    def give_lease_back(self, name: str, holder: str) -> None:
        """Let somebody else have it at once."""
        with self._writing() as connection:
            row = meta.c.name == f"lease:{name}"
            if str(connection.execute(select(meta.c.value).where(row)).scalar() or "").endswith(f" {holder}"):
                connection.execute(delete(meta).where(row))

    # -- within ---------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self, *, notice: bool = False) -> Iterator[Connection]:
        if notice:
            with self._database.writing() as changes:
                changes.changed = True
                yield changes.connection
        else:
            with self._database.writing_plainly() as connection:
                yield connection


def fingerprint(der: bytes) -> bytes:
    """SHA-256 of a certificate: how evidence calls it."""
    return hashlib.sha256(der).digest()


def _values(crl: CertificateList, url: str, at: datetime) -> dict[str, Any]:
    return {
        "sha256": crl.fingerprint,
        "issuer": crl.issuer.der,
        "number": None if crl.number is None else f"{crl.number:x}"[:48],
        "this_update": None if crl.this_update is None else int(crl.this_update.timestamp()),
        "next_update": None if crl.next_update is None else int(crl.next_update.timestamp()),
        "url": url[:4000],
        "der": crl.der,
        "fetched_at": int(at.timestamp()),
    }


def _list(row: Any, crl: CertificateList, *, octets: bool = True) -> KeptList:
    return KeptList(
        row["id"],
        row["sha256"],
        crl.issuer.text,
        row["number"] or "",
        instant_of(row["this_update"]),
        instant_of(row["next_update"]),
        row["url"],
        instant_of(row["fetched_at"]),
        len(row["der"]),
        row["der"] if octets else b"",
    )


def _evidence(row: Any) -> KeptEvidence:
    fetched, expires = instant_of(row["fetched_at"]), instant_of(row["expires_at"])
    assert fetched is not None and expires is not None
    return KeptEvidence(row["kind"], row["subject"], row["data"], row["source"], fetched, expires)
