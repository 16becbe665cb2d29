"""What the database keeps of a certificate beside its DER: whom it names, its key's digest, and when it holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from mailsec.errors import CertificateError, PrivateKeyError
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.x509.certificate import load_certificate

__all__ = ["Facts", "demand_key_fits", "facts_of", "key_id_of"]


_LONGEST_KEY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What is indexed of one certificate."""

    subject: bytes
    key_id: bytes
    spki: bytes
    key_type: str
    not_before: datetime | None
    not_after: datetime | None
    addresses: tuple[str, ...]


def key_id_of(spki: bytes) -> bytes:
    """What joins a certificate with its key: SHA-256 of the SubjectPublicKeyInfo."""
    return hashlib.sha256(spki).digest()


def facts_of(der: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Facts:
    """Read a certificate; raise CertificateError where it has nothing that could be used."""
    if len(der) > limits.certificate_octets:
        raise CertificateError(f"a certificate of {len(der)} octets", hint="a certificate has some kilobytes: is this the right file?")
    certificate = load_certificate(der, limits=limits)
    if not certificate.readable or not certificate.spki:
        why = certificate.problems[0].message if certificate.problems else "it is empty"
        raise CertificateError(f"the certificate cannot be read: {why}", hint="give it as PEM or DER")
    if certificate.key.type == "rsa" and certificate.bits > limits.rsa_bits:
        raise CertificateError(f"an RSA key of {certificate.bits} bits", hint=f"keys of up to {limits.rsa_bits} bits can be used")
    return Facts(
        certificate.subject.der,
        key_id_of(certificate.spki),
        certificate.spki,
        certificate.key_type,
        certificate.not_before,
        certificate.not_after,
        tuple(dict.fromkeys(address.key for address in certificate.addresses)),
    )


def demand_key_fits(private_key: bytes, spki: bytes) -> None:
    """Raise PrivateKeyError where a PKCS#8 key cannot be read, or does not belong to `spki`."""
    if len(private_key) > _LONGEST_KEY:
        raise PrivateKeyError("the private key has more than 64 KiB", hint="import one key at a time")
    try:
        key = load_der_private_key(private_key, None)
        fits = key.public_key() == load_der_public_key(spki)
    except Exception:
        raise PrivateKeyError("the private key cannot be read", hint="give it as unencrypted PKCS#8") from None
    if not fits:
        raise PrivateKeyError("the private key does not belong to the certificate", hint="import the key that the certificate was made for")
