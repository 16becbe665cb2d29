"""What an authority whose key lies in an NSS database has revoked: the list of its own that is there, as crlutil -M goes on with the last one.

NSS has no place for what was issued, and guards no list. So the register is the list itself, believed only where the authority's own key has
signed it; what a list does not say (numbers that were issued and not revoked) is not known. The one invariant: what stands on the list before
stands on the next one, but for what was on hold (RFC 5280 §5.3.1), or no list is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from mailsec.algorithms.table import signature_mechanism
from mailsec.errors import MailsecError, Refused, UsageError
from mailsec.keys.software import SoftwareBackend
from mailsec.model.trust import IssuedCertificate
from mailsec.store.issued import REASONS
from mailsec.store.nssdb import NssDb
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec.x509.crl import CertificateList, load_crl

__all__ = ["ListedRegister", "read_register"]

_KNOWN: Final = (x509.CRLReason.oid, x509.InvalidityDate.oid)


@dataclass(frozen=True, slots=True)
class ListedRegister:
    """What the lists of one authority say; immutable: a change is another register."""

    authority: bytes
    """DER of its certificate."""
    revoked: tuple[IssuedCertificate, ...] = ()
    number: int = 0
    """The highest number of those lists."""

    def revoke(self, serial: int, *, at: datetime, reason: str) -> ListedRegister:
        """With one more; the same register where it was revoked before. Raise UsageError for an unknown reason."""
        if reason not in REASONS:
            raise UsageError(f"there is no reason {reason!r}", hint="one of " + ", ".join(REASONS))
        before = next((one for one in self.revoked if one.serial == serial), None)
        if before is None:
            return replace(self, revoked=(*self.revoked, _entry(self.authority, serial, at, reason)))
        if before.reason == "certificateHold" and reason != "certificateHold":
            # RFC 5280 §5.3.1: what was on hold may be revoked for good; since when is what was said first.
            return replace(self, revoked=tuple(replace(one, reason=reason) if one is before else one for one in self.revoked))
        return self

    def release(self, serial: int) -> ListedRegister:
        """Without one that is on hold. Raise Refused where it was revoked for good, or not at all."""
        left = tuple(one for one in self.revoked if one.serial != serial or one.reason != "certificateHold")
        if left == self.revoked:
            raise Refused(f"the certificate with the serial number {serial:x} is not on hold", hint="what is revoked stays revoked")
        return replace(self, revoked=left)


def read_register(database: NssDb, authority: bytes, *, published: Sequence[bytes] = ()) -> ListedRegister:
    """The register of `authority`, from its list in the database and from `published` ones (DER): what stands on any of them.

    Raise Refused where a list is not the authority's, or says what another one could not go on with.
    """
    certificate = load_certificate(authority)
    here = [der for der in database.revocation_lists() if load_crl(der).issuer.der == certificate.subject.der]
    revoked: dict[int, IssuedCertificate] = {}
    number = 0
    for where, der in (*((database.name, der) for der in here), *(("the file", der) for der in published)):
        crl = load_crl(der)
        _demand_own(crl, certificate, where)
        number = max(number, crl.number or 0)
        for serial, at, reason in _entries(der, where):
            known = revoked.get(serial)
            if known is None or known.reason == "certificateHold":
                revoked[serial] = _entry(authority, serial, min(at, known.revoked_at or at) if known else at, reason)
    return ListedRegister(authority, tuple(revoked.values()), number)


def _demand_own(crl: CertificateList, authority: Certificate, where: str) -> None:
    who = authority.subject.text
    if not crl.readable or crl.problems or crl.base_number is not None or crl.distribution_point is not None:
        raise Refused(f"the list of {who} in {where} is none that another one can go on with", hint="go on with the tool that made it")
    # Attack: a list that somebody put there, without what was revoked. NSS looks at no signature when it shows lists.
    try:
        mechanism = signature_mechanism("", crl.signature_algorithm, authority.key_type)
        right = crl.issuer.der == authority.subject.der and SoftwareBackend().verify(authority.spki, mechanism, crl.signature, crl.tbs)
    except MailsecError:
        right = False
    if not right:
        raise Refused(
            f"the list in {where} was not signed by {who} with this key",
            hint="`mailsec crl delete` takes it away; --previous FILE goes on with one that was published",
        )


def _entries(der: bytes, where: str) -> list[tuple[int, datetime, str]]:
    try:
        found = []
        for one in x509.load_der_x509_crl(der):
            reasons = [each.value.reason.value for each in one.extensions if isinstance(each.value, x509.CRLReason)]
            if any(each.critical and each.oid not in _KNOWN for each in one.extensions):
                raise ValueError
            found.append((one.serial_number, one.revocation_date_utc, reasons[0] if reasons else "unspecified"))
        return found
    except ValueError:
        hint = "go on with the tool that made it"
        raise Refused(f"the list in {where} has entries that another one cannot go on with", hint=hint) from None


def _entry(authority: bytes, serial: int, at: datetime, reason: str) -> IssuedCertificate:
    end = load_certificate(authority).not_after or datetime.max.replace(tzinfo=UTC)
    return IssuedCertificate(authority, serial, None, end, at, reason)
