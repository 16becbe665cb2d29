"""What of a mailsec database has a place in an NSS one, for `db merge OTHER -d nss:DIR`: certificates, trust for any domain, keys, whole lists.

The one invariant: nothing becomes wider by moving. An anchor for some domains is none there unless somebody types that it is for any; a key
that was assigned stays behind, since there it would be for whomever its certificate names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import func, select

from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.intake import Incoming
from mailsec.store.schema import issued, partner_settings, users
from mailsec.x509.crl import CertificateList, load_crl

__all__ = ["fitted_to_nss", "lists_for_nss", "why_not_in_nss", "without_place"]

_NO_PLACE: Final = (("users", users), ("settings of partners", partner_settings), ("rows of the register of issued certificates", issued))


def why_not_in_nss(state: str, distrust_after: datetime | None) -> str:
    """Why a certificate stays behind; empty where it need not."""
    if state not in ("", "pinned"):
        return f"it is {state}, and NSS keeps no such decisions"
    return "it is trusted for what is older than an instant only, which NSS does not keep" if distrust_after is not None else ""


def fitted_to_nss(item: Incoming, assigned: Sequence[str], *, anywhere: bool) -> tuple[Incoming, tuple[str, ...]]:
    """The item as NSS can keep it, and what it lost by that, a sentence each. `anywhere`: somebody has typed that anchors are for any domain."""
    lost = []
    trust, domains, key = item.trust, item.domains, item.private_key
    if trust.email_anchor and tuple(domains) != ("*",):
        if anywhere:
            domains = ("*",)
        else:
            trust = TrustFlags(trust.tls, trust.email.replace("C", ""), trust.object)
            lost.append(
                f"it is an anchor for {', '.join(domains) or 'no domain'}, and NSS keeps no domains: --for any makes it one for all"
            )
    if key is not None and assigned:
        key = None
        lost.append(f"its key is for {', '.join(assigned)}, and NSS keeps no assignments: it stays where it is")
    if item.bound:
        lost.append("NSS keeps no bindings to addresses and domains")
    fitted = replace(
        item,
        trust=trust,
        domains=domains if trust.email_anchor else (),
        private_key=key,
        assigned=(),
        bound=(),
        state="",
        distrust_after=None,
    )
    return fitted, tuple(lost)


def lists_for_nss(found: Iterable[tuple[bytes, str]], there: Sequence[bytes]) -> list[tuple[bytes, str]]:
    """Of (list, address) the newest whole one of each issuer, where no newer one is there: NSS keeps one for a name."""
    best: dict[bytes, tuple[CertificateList, str]] = {}
    known = {crl.issuer.der: crl for crl in map(load_crl, there)}
    for der, url in found:
        crl = load_crl(der)
        if not crl.readable or crl.base_number is not None or crl.distribution_point is not None:
            continue
        others = [one for one in (known.get(crl.issuer.der), best.get(crl.issuer.der, (None,))[0]) if one is not None]
        if all(_begins(one) < _begins(crl) for one in others):
            best[crl.issuer.der] = crl, url
    return [(crl.der, url) for crl, url in best.values()]


def without_place(source: CertDb) -> list[str]:
    """Rows of a database that have no place in an NSS one, a sentence for each table."""
    with source.reading() as connection:
        counts = [(name, connection.execute(select(func.count()).select_from(table)).scalar() or 0) for name, table in _NO_PLACE]
    return [f"{count} {name}: NSS has no place for them" for name, count in counts if count]


def _begins(crl: CertificateList) -> float:
    return crl.this_update.timestamp() if crl.this_update is not None else 0.0
