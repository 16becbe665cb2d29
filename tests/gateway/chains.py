"""Authorities of several floors, for tests of paths: `make_ca` makes ones that have none below them."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mailsec.x509.issue import IssuedBy, make_key

__all__ = ["authority_called"]


def authority_called(name: str, above: IssuedBy | None, at: datetime) -> IssuedBy:
    """An authority, under another one or under none."""
    key = make_key("ec-p256")
    private = serialization.load_der_private_key(key, None)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer = subject if above is None else x509.load_der_x509_certificate(above.certificate).subject
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(private.public_key()).serial_number(77)
    builder = builder.not_valid_before(at).not_valid_after(at + timedelta(days=3650))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    signer = private if above is None else serialization.load_der_private_key(above._key, None)
    return IssuedBy(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.DER), key)
