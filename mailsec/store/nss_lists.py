"""Revocation lists of an NSS database, as `mailsec crl` and the judging of paths ask for them: the face of `store.evidence` over them.

NSS keeps the lists themselves, and where they came from, so each is called by a number made from its octets. The one invariant: as with every
list, nothing is believed for being kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from mailsec.errors import InputError
from mailsec.store.evidence import KeptList
from mailsec.store.nssdb import NssDb
from mailsec.x509.crl import load_crl

__all__ = ["NssLists"]


class NssLists:
    """The lists of one NSS database."""

    def __init__(self, database: NssDb) -> None:
        self._database = database

    def lists(self) -> Sequence[KeptList]:
        """The facts about every list, by issuer."""
        found = [_kept(der, self._database.list_url(der)) for der in self._database.revocation_lists()]
        return sorted(found, key=lambda one: (one.issuer, one.id))

    def lists_of(self, issuers: Collection[bytes]) -> Sequence[bytes]:
        """The lists of these issuers (DER of their names)."""
        return [der for der in self._database.revocation_lists() if load_crl(der).issuer.der in issuers]

    def keep_list(self, octets: bytes, *, url: str = "", at: datetime, notice: bool = False) -> KeptList:
        """Keep a list in the place of older ones of its issuer. Raise InputError for what is none, or is older."""
        crl = load_crl(octets)
        if not crl.readable:
            raise InputError(crl.problems[0].message, hint=crl.problems[0].hint, stage="parse")
        self._database.keep_list(crl.der, url)
        return _kept(crl.der, self._database.list_url(crl.der))

    def delete_list(self, id: int) -> bool:
        """Forget the list that is called by this number."""
        for der in self._database.revocation_lists():
            if _kept(der).id == id:
                self._database.delete_list(der)
                return True
        return False


def _kept(der: bytes, url: str = "") -> KeptList:
    crl = load_crl(der)
    number = "" if crl.number is None else f"{crl.number:x}"[:48]
    return KeptList(
        int.from_bytes(crl.fingerprint[:3], "big"),
        crl.fingerprint,
        crl.issuer.text,
        number,
        crl.this_update,
        crl.next_update,
        url,
        None,
        len(der),
    )
