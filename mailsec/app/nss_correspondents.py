"""Correspondents' certificates of an NSS database, for `mailsec cert find`: what a gateway that used this directory would encrypt for.

NSS keeps no decisions about correspondents: a certificate is distrusted (the letter p), believed by itself (P), or judged by its path.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.interfaces import FoundCertificate
from mailsec.model.address import Address
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason
from mailsec.store.nssdb import NssDb

__all__ = ["NssCorrespondents"]

_DISTRUSTED = Reason("distrusted", "path", "it is marked as distrusted", "see `mailsec cert show`")
_UNVERIFIED = Reason("distrusted", "path", "its trust was not written by NSS", "`mailsec cert trust` writes it anew")


class NssCorrespondents:
    """A `CertificateDirectory`, and what is believed there (`app.truststore.Believed`)."""

    name = "nss"
    local = True

    def __init__(self, database: NssDb) -> None:
        self._database = database

    async def certificates(self, address: Address) -> Sequence[FoundCertificate]:
        """Every certificate that names `address`, also those that must not be used, with why."""
        return [
            FoundCertificate(
                entry.der,
                self.name,
                trusted_binding=entry.verified and entry.trust.email_peer,
                against=_DISTRUSTED if entry.trust.email_distrusted else None if entry.verified else _UNVERIFIED,
            )
            for entry in self._database.entries()
            if address.key in entry.addresses
        ]

    async def anchors(self, purpose: str = "email") -> Sequence[Anchor]:
        """Anchors for "email", "tls-server" or "tls-client"."""
        return self._database.anchors(purpose)

    async def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """Certificates that no path may hold."""
        return self._database.distrusted(purpose)

    async def authorities(self) -> Sequence[bytes]:
        """Certificates of authorities, which help to build paths."""
        return self._database.authorities()
