"""Authorities that exist for the time of a test, and short words for asking `pki`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cache
from itertools import count

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailsec.keys.software import SoftwareBackend
from mailsec.model.trust import Anchor
from mailsec.pki.path import PathResult, validate
from mailsec.x509.certificate import Certificate, load_certificate

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)
EMAIL = ExtendedKeyUsageOID.EMAIL_PROTECTION
BACKEND = SoftwareBackend()
_SERIALS = count(1000)
_USAGES = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign encipher_only decipher_only"


@cache
def key(label: str):
    """A P-256 key for a label; the same label, the same key."""
    return ec.generate_private_key(ec.SECP256R1())


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{word: word in names for word in _USAGES.split()})


def dn(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)] if text else [])


@dataclass
class Party:
    """A certificate with its key, and who it is."""

    subject: x509.Name
    label: str
    der: bytes

    @property
    def certificate(self) -> Certificate:
        return load_certificate(self.der)

    @property
    def parsed(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.der)

    @property
    def anchor(self) -> Anchor:
        return Anchor(self.der, purposes=("email", "tls-server", "tls-client"))


def issue(
    subject: str | x509.Name,
    issuer: Party | None = None,
    *extensions,
    ca: bool | None = None,
    path_length: int | None = None,
    addresses: tuple[str, ...] = (),
    label: str | None = None,
    start: dt.datetime = START,
    end: dt.datetime = END,
    sign_with: str | None = None,
    identifiers: bool = True,
    hash_algorithm: hashes.HashAlgorithm | None = None,
    public_key=None,
) -> Party:
    """Issue a certificate; without `issuer` it is self-signed. `ca=None`: no basicConstraints."""
    name = dn(subject) if isinstance(subject, str) else subject
    label = label or name.rfc4514_string()
    public = public_key or key(label).public_key()
    signer = sign_with or (issuer.label if issuer else label)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.subject if issuer else name)
        .not_valid_before(start)
        .not_valid_after(end)
        .serial_number(next(_SERIALS))
        .public_key(public)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), True)
    if identifiers:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(key(issuer.label if issuer else label).public_key())
        builder = builder.add_extension(authority, False)
    if addresses:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(address) for address in addresses]), False)
    for extension in extensions:
        value, critical = extension if isinstance(extension, tuple) else (extension, False)
        builder = builder.add_extension(value, critical)
    signed = builder.sign(key(signer), hash_algorithm or hashes.SHA256())
    return Party(name, label, signed.public_bytes(Encoding.DER))


def ask(end, *intermediates: Party, anchors, purpose="email-sign", at=NOW, **more) -> PathResult:
    certificate = end.certificate if isinstance(end, Party) else end
    return validate(
        certificate,
        anchors=[anchor if isinstance(anchor, Anchor) else anchor.anchor for anchor in anchors],
        intermediates=[party.certificate for party in intermediates],
        at=at,
        purpose=purpose,
        backend=BACKEND,
        **more,
    )


def codes(result: PathResult) -> list[str]:
    return [reason.code for reason in result.reasons]
