"""An authority that says where its certificates' status is told, and tells it: OCSP responses and lists, honest ones and others."""

from __future__ import annotations

import datetime as dt
from itertools import count

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from mailsec.keys.software import SoftwareKey
from mailsec.model.trust import Anchor

DAY = dt.timedelta(days=1)
_SERIALS = count(4096)
_USAGES = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign encipher_only decipher_only"


def usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{word: word in names for word in _USAGES.split()})


class Person:
    def __init__(self, address: str, key, certificate: x509.Certificate, chain=()) -> None:
        self.address, self.key, self.parsed = address, key, certificate
        self.der = certificate.public_bytes(Encoding.DER)
        pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self.handle = SoftwareKey(address, pkcs8, certificate=self.der, chain=chain, assigned=(address,))


class Authority:
    """A root that issues for people, with an OCSP responder and lists."""

    def __init__(self, name: str = "Revoking CA", *, at: dt.datetime, issuer: Authority | None = None, **sources) -> None:
        self.at = at
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.revoked: set[int] = set()
        self.issuer = issuer
        signer, signer_name = (issuer.key, issuer.name) if issuer else (self.key, self.name)
        builder = self._builder(self.name, self.key.public_key(), signer_name, signer)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        builder = builder.add_extension(usage("key_cert_sign", "crl_sign"), True)
        self.parsed = _with_sources(builder, **sources).sign(signer, hashes.SHA256())
        self.der = self.parsed.public_bytes(Encoding.DER)

    @property
    def anchor(self) -> Anchor:
        return Anchor(self.der)

    @property
    def pem(self) -> bytes:
        return self.parsed.public_bytes(Encoding.PEM)

    def _builder(self, subject, public, issuer_name, issuer_key) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer_name)
            .not_valid_before(self.at - 30 * DAY)
            .not_valid_after(self.at + 365 * DAY)
            .serial_number(next(_SERIALS))
            .public_key(public)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False)
        )

    def person(self, address: str, **sources) -> Person:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        builder = self._builder(name, key.public_key(), self.name, self.key)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name(address)]), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        certificate = _with_sources(builder, **sources).sign(self.key, hashes.SHA256())
        return Person(address, key, certificate, chain=(self.der,) if self.issuer else ())

    def revoke(self, *people) -> None:
        self.revoked |= {person.parsed.serial_number for person in people}

    def answer(self, request: bytes, *, at: dt.datetime | None = None, hours: int = 24, forged=False, about=None, nonce=None) -> bytes:
        """The response to a request; a forged one has a wrong signature."""
        at = at or self.at
        asked = ocsp.load_der_ocsp_request(request)
        serial = about.parsed.serial_number if about is not None else asked.serial_number
        revoked = serial in self.revoked
        builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
            issuer_name_hash=asked.issuer_name_hash,
            issuer_key_hash=asked.issuer_key_hash,
            serial_number=serial,
            algorithm=asked.hash_algorithm,
            cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
            this_update=at - dt.timedelta(minutes=1),
            next_update=at + dt.timedelta(hours=hours),
            revocation_time=at - DAY if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, self.parsed)
        for extension in asked.extensions:
            if isinstance(extension.value, x509.OCSPNonce):
                builder = builder.add_extension(x509.OCSPNonce(nonce) if nonce is not None else extension.value, False)
        response = builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.DER)
        # The signature stands last; one bit of it is turned.
        return response[:-1] + bytes((response[-1] ^ 1,)) if forged else response

    def crl(
        self,
        *,
        at: dt.datetime | None = None,
        hours: int = 24,
        number: int = 1,
        sign_with=None,
        serials=(),
        base=None,
        deltas="",
        reason=None,
    ) -> bytes:
        """A list; a delta to the list of number `base`; `deltas` is where newer deltas are."""
        at = at or self.at
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name)
        builder = builder.last_update(at - dt.timedelta(minutes=1)).next_update(at + dt.timedelta(hours=hours))
        for serial in (*sorted(self.revoked), *serials):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at - DAY)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), False)
            builder = builder.add_revoked_certificate(entry.build())
        builder = builder.add_extension(x509.CRLNumber(number), False)
        if base is not None:
            builder = builder.add_extension(x509.DeltaCRLIndicator(base), True)
        if deltas:
            point = x509.DistributionPoint([x509.UniformResourceIdentifier(deltas)], None, None, None)
            builder = builder.add_extension(x509.FreshestCRL([point]), False)
        return builder.sign(sign_with or self.key, hashes.SHA256()).public_bytes(Encoding.DER)


def _with_sources(
    builder: x509.CertificateBuilder,
    *,
    ocsp: str = "",
    crl: str | tuple[str, ...] = (),
    issuers: str = "",
    deltas: str = "",
    points: tuple[x509.DistributionPoint, ...] = (),
):
    """`crl`: names of one distribution point; `points`: distribution points as they are."""
    access = []
    if ocsp:
        access.append(x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp)))
    if issuers:
        access.append(x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(issuers)))
    if access:
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), False)
    urls = (crl,) if isinstance(crl, str) else crl
    if deltas:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(deltas)], None, None, None)
        builder = builder.add_extension(x509.FreshestCRL([point]), False)
    if points:
        builder = builder.add_extension(x509.CRLDistributionPoints(points), False)
    if urls:
        points = [x509.DistributionPoint([x509.UniformResourceIdentifier(url) for url in urls], None, None, None)]
        builder = builder.add_extension(x509.CRLDistributionPoints(points), False)
    return builder
