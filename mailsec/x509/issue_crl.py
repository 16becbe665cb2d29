"""Revocation lists that our own authority issues (RFC 5280 §5): complete lists, with number, key identifier and reasons.

Nothing is ever taken off a list: signatures on old mail are judged with today's. The one invariant: a list is made of the whole register.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mailsec.errors import UsageError
from mailsec.model.trust import IssuedCertificate
from mailsec.x509.issue import IssuedBy, authority_certificate, authority_key_id
from mailsec.x509.private_keys import load_private, signature_digest

__all__ = ["issue_crl"]

_REASONS = {flag.value: flag for flag in x509.ReasonFlags}


def issue_crl(ca: IssuedBy, register: Iterable[IssuedCertificate], *, number: int, at: datetime, days: int = 7) -> bytes:
    """The list of everything in `register` that was revoked, DER; `number` is greater than that of every list before (RFC 5280 §5.2.3)."""
    issuer = authority_certificate(ca.certificate)
    if issuer.not_valid_after_utc <= at:
        raise UsageError("the CA certificate has expired", hint="`mailsec cert issue --renew-ca NAME` makes another one")
    private = load_private(ca._key)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(at)
        # RFC 5280 §5.1.2.5: nextUpdate is required.
        .next_update(at + timedelta(days=days))
        # RFC 5280 §5.2.1, §5.2.3: both are required of authorities that conform.
        .add_extension(authority_key_id(issuer), critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for one in register:
        if one.revoked_at is None:
            continue
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.revoked_at)
        # RFC 5280 §5.3.1: "unspecified" is said by leaving the extension out.
        if one.reason and one.reason != "unspecified":
            entry = entry.add_extension(x509.CRLReason(_REASONS[one.reason]), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(private, signature_digest(private)).public_bytes(Encoding.DER)
