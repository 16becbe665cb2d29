"""Mozilla's roots in the database: added, and kept as the list says when a newer one comes.

Entries of the list bear the source "mozilla". The one invariant: what a person has decided about a certificate is not changed by any list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import select

from mailsec.errors import CertificateError
from mailsec.keys.certdata import Root
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.connection import fetch
from mailsec.store.entry_rows import seconds_of, trust_columns
from mailsec.store.intake import Incoming
from mailsec.store.schema import certificates

__all__ = ["SOURCE", "Installed", "install_roots"]

SOURCE: Final = "mozilla"


@dataclass(frozen=True, slots=True)
class Installed:
    """What a list brought."""

    anchors: int
    """Roots that are trusted for e-mail now."""
    distrusted: int
    added: int
    changed: int
    withdrawn: int
    """Roots that an earlier list trusted and this one does not."""
    kept: int
    """Roots about which a person has decided."""


def install_roots(database: CertDb, roots: Sequence[Root], *, at: datetime) -> Installed:
    """Take over the roots with a trust bit for e-mail; they may vouch for any domain, as the list means it."""
    added = changed = withdrawn = kept = 0
    wanted = {hashlib.sha256(root.der).digest(): root for root in roots if root.email}
    with database.writing() as changes:
        database.demand(changes.connection)
        known = {row["sha256"]: row for row in fetch(changes.connection, select(certificates).where(certificates.c.source == SOURCE))}
        for digest, root in wanted.items():
            trust = TrustFlags("", root.email, "")
            domains = ("*",) if trust.email_anchor else ()
            columns = {**trust_columns(trust, domains), "distrust_after": seconds_of(root.distrust_after)}
            row = known.get(digest)
            if row is not None:
                if any(row[name] != value for name, value in columns.items()):
                    if row["state"] or row["trust_tls"] or row["trust_object"]:
                        kept += 1
                        continue
                    changes.update("certificates", row, columns)
                    changed += 1
                continue
            if fetch(changes.connection, select(certificates.c.id).where(certificates.c.sha256 == digest)):
                kept += 1
                continue
            try:
                database.take(
                    changes,
                    Incoming(
                        root.der, suggested=root.name, trust=trust, domains=domains, source=SOURCE, distrust_after=root.distrust_after
                    ),
                    at=at,
                )
            except CertificateError:
                continue
            added += 1
        for digest, row in known.items():
            if digest not in wanted and row["trust_email"] and not row["state"]:
                changes.update("certificates", row, {"trust_email": "", "domains": "[]", "distrust_after": None})
                withdrawn += 1
    anchors = sum(root.email == "C" for root in wanted.values())
    return Installed(anchors, len(wanted) - anchors, added, changed, withdrawn, kept)
