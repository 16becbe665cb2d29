"""For whom answers are given: our own authorities, found by the hashes of a CertID (RFC 6960 §4.1.1).

The one invariant: an authority is its name and its key together, and what is said of a number comes from the register of that key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailsec.interfaces import Gateway
from mailsec.pki.ocsp import HASHES, issuer_hashes
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec_ocsp.requests import CertId
from mailsec_ocsp.responses import Standing

__all__ = ["Authorities", "Authority"]


@dataclass(frozen=True, slots=True)
class Authority:
    """One authority with one key."""

    name: str
    certificate: Certificate


class Authorities:
    """All that answers are given for. `not_issued` is what is said of numbers that none of them issued."""

    def __init__(self, gateway: Gateway, names: Sequence[str], *, not_issued: Standing) -> None:
        self._gateway = gateway
        self._names = tuple(names)
        self._not_issued = not_issued
        self._certificates: tuple[tuple[bytes, ...], ...] = ()
        self._by_hash: dict[tuple[str, bytes, bytes], Authority] = {}

    async def all(self) -> Sequence[Authority]:
        """Each of them, the certificate that issues now first. Raise KeyUnavailable where the database has none of that name."""
        certificates = tuple([tuple(await self._gateway.authority(name)) for name in self._names])
        if certificates != self._certificates:
            found: dict[tuple[str, bytes, bytes], Authority] = {}
            for name, ders in zip(self._names, certificates, strict=True):
                for certificate in map(load_certificate, ders):
                    authority = Authority(name, certificate)
                    for oid, hash_name in HASHES.items():
                        # A certificate that was renewed with its key of before is the same authority.
                        found.setdefault((oid, *issuer_hashes(certificate.subject.der, certificate.spki, hash_name)), authority)
            self._certificates, self._by_hash = certificates, found
        return tuple(dict.fromkeys(self._by_hash.values()))

    async def of(self, cert_id: CertId) -> Authority | None:
        """Whose certificate is asked about; None: nobody's that we answer for."""
        await self.all()
        return self._by_hash.get((cert_id.hash_algorithm, cert_id.issuer_name_hash, cert_id.issuer_key_hash))

    async def standing(self, authority: Authority, serial: int) -> Standing:
        """What the register says. Raise a MailsecError where it cannot be read or believed."""
        entry = await self._gateway.issued_as(authority.name, serial) if serial > 0 else None
        if entry is None or load_certificate(entry.issuer).spki != authority.certificate.spki:
            return self._not_issued
        if entry.revoked_at is None:
            return Standing("good")
        return Standing("revoked", entry.revoked_at, entry.reason)
