"""Revocation lists of authorities whose keys lie in an NSS database: the next one is made of the one that is there (`store.nss_register`).

The one invariant: reading a list and putting the next one in its place is one step for all commands of mailsec on that directory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from mailsec.app.authorities import key_of
from mailsec.app.nss_databases import alone_in
from mailsec.model.trust import CertificateEntry
from mailsec.store.evidence import KeptList
from mailsec.store.nss_lists import NssLists
from mailsec.store.nss_register import ListedRegister, read_register
from mailsec.store.nssdb import NssDb

__all__ = ["DAYS", "Reissued", "reissue"]

DAYS = 7
"""When the next list comes, where nobody says so."""


@dataclass(frozen=True, slots=True)
class Reissued:
    """A list that was made."""

    der: bytes
    kept: KeptList
    revoked: int
    """How many certificates stand on it."""


def reissue(
    database: NssDb,
    authority: CertificateEntry,
    *,
    at: datetime,
    days: int = DAYS,
    published: bytes | None = None,
    change: Callable[[ListedRegister], ListedRegister] | None = None,
) -> Reissued | None:
    """Make the next list of `authority` and keep it; None where `change` changes nothing. `published` is a list that was handed out.

    Raise Refused where a list there is not the authority's own.
    """
    from mailsec.x509.issue import IssuedBy
    from mailsec.x509.issue_crl import issue_crl

    with alone_in(database.name):
        before = read_register(database, authority.der, published=[published] if published is not None else ())
        after = before if change is None else change(before)
        if change is not None and after == before:
            return None
        # RFC 5280 §5.2.3: numbers grow. Seconds do, and the clock may have been wrong.
        number = max(int(at.timestamp()), before.number + 1)
        der = issue_crl(IssuedBy(authority.der, key_of(database, authority)), after.revoked, number=number, at=at, days=days)
        kept = NssLists(database).keep_list(der, at=at, notice=True)
    return Reissued(der, kept, len(after.revoked))
