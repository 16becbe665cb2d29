"""Attributes of a SignerInfo (RFC 5652 §5.3, §11; RFC 8551 §2.5; RFC 5035; RFC 6211): read, and encoded for writing.

Invariant: reading keeps every value as received and counts repetitions, so that whoever checks can insist on "exactly one".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from mailsec.algorithms.table import algorithm_of, digest_of
from mailsec.asn1 import writer
from mailsec.asn1.reader import INTEGER, OCTET_STRING, SEQUENCE, SET, Element, read_element, read_single
from mailsec.asn1.values import read_integer, read_octet_string, read_oid, read_time
from mailsec.errors import Asn1Error, CmsError, CryptoError, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = [
    "ALGORITHM_PROTECTION",
    "CAPABILITIES",
    "CONTENT_TYPE",
    "MESSAGE_DIGEST",
    "SIGNING_CERTIFICATE",
    "SIGNING_CERTIFICATE_V2",
    "SIGNING_TIME",
    "Attributes",
    "algorithm_protection",
    "attribute",
    "certificate_hash",
    "protected_algorithms",
    "read_attributes",
    "same_algorithm",
    "signing_certificate",
]

CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
CAPABILITIES = "1.2.840.113549.1.9.15"
ALGORITHM_PROTECTION = "1.2.840.113549.1.9.52"
SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"

# RFC 5652 §11.1 to §11.3, RFC 5035 §5.4, RFC 6211 §2, RFC 8551 §2.5.2: these stand at most once, with one value.
_SINGLE = (CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME, ALGORITHM_PROTECTION, SIGNING_CERTIFICATE, SIGNING_CERTIFICATE_V2, CAPABILITIES)

# Algorithms and certificate of a signer are the same in each message. Only what is short is kept, so that no message can fill memory.
_KEPT = 512


class Attributes:
    """The attributes of one SignerInfo by their type; all values of all attributes of one type are in one list."""

    __slots__ = ("repeated", "values")

    def __init__(self, values: Mapping[str, list[Element]], repeated: tuple[str, ...]) -> None:
        self.values = values
        self.repeated = repeated
        """Types that stand more than once, or with none or several values, though they must not."""

    def one(self, kind: str) -> Element | None:
        """The value of a type that stands once with one value; None where it is absent or repeated."""
        found = self.values.get(kind)
        return found[0] if found is not None and len(found) == 1 and kind not in self.repeated else None

    def oid(self, kind: str) -> str | None:
        """An OBJECT IDENTIFIER value."""
        value = self.one(kind)
        return None if value is None else read_oid(value)

    def octets(self, kind: str) -> bytes | None:
        """An OCTET STRING value."""
        value = self.one(kind)
        return None if value is None else read_octet_string(value)

    def time(self, kind: str) -> datetime | None:
        """A time value; None where it cannot be read (a claim only: nothing is decided by it)."""
        value = self.one(kind)
        try:
            return None if value is None else read_time(value)
        except Asn1Error:
            return None


def read_attributes(element: Element, *, limits: Limits = DEFAULT_LIMITS) -> Attributes:
    """Read a SET OF Attribute under whatever tag; raise CmsError or Asn1Error where it is none."""
    members = element.children()
    if len(members) > limits.attributes:
        raise LimitExceeded("attributes", f"more than {limits.attributes} attributes of one signer")
    values: dict[str, list[Element]] = {}
    repeated: list[str] = []
    for member in members:
        parts = member.expect(SEQUENCE, "Attribute").children()
        if len(parts) != 2:
            raise CmsError("an attribute of more or less than a type and values")
        kind = read_oid(parts[0])
        found = parts[1].expect(SET, "attribute values").children()
        if kind in values:
            repeated.append(kind)
            values[kind] += found
        else:
            values[kind] = found
            if kind in _SINGLE and len(found) != 1:
                repeated.append(kind)
    return Attributes(values, tuple(kind for kind in repeated if kind in _SINGLE))


def protected_algorithms(value: Element) -> tuple[bytes, bytes | None]:
    """CMSAlgorithmProtection (RFC 6211 §2): the digest and the signature AlgorithmIdentifier."""
    return _kept_protection(value.encoding) if len(value) <= _KEPT else _protection(value)


def _protection(value: Element) -> tuple[bytes, bytes | None]:
    digest: bytes | None = None
    signature: bytes | None = None
    for position, part in enumerate(value.expect(SEQUENCE, "CMSAlgorithmProtection")):
        if position == 0 and part.tag == SEQUENCE:
            digest = part.encoding
        elif part.tag == 0xA1 and signature is None:
            # signatureAlgorithm [1] IMPLICIT.
            signature = b"\x30" + part.encoding[1:]
        elif part.tag != 0xA2:
            raise CmsError("a CMSAlgorithmProtection of other parts than the standard's")
    if digest is None:
        raise CmsError("a CMSAlgorithmProtection without a digest algorithm")
    return digest, signature


@lru_cache(maxsize=1024)
def _kept_protection(encoding: bytes) -> tuple[bytes, bytes | None]:
    return _protection(read_element(encoding))


def certificate_hash(value: Element, version: int) -> tuple[str, bytes, int | None]:
    """The first ESSCertID or ESSCertIDv2 (RFC 5035 §4, §5): digest name, hash of the certificate, its serial number if it is there."""
    return _kept_hash(value.encoding, version) if len(value) <= _KEPT else _certificate_hash(value, version)


def _certificate_hash(value: Element, version: int) -> tuple[str, bytes, int | None]:
    certificates = value.expect(SEQUENCE, "SigningCertificate").children()
    identifiers = certificates[0].expect(SEQUENCE, "certs").children() if certificates else []
    if not identifiers:
        raise CmsError("a signing-certificate attribute that names none")
    # RFC 5035 §5.4: the first one identifies the certificate that verifies the signature.
    parts = identifiers[0].expect(SEQUENCE, "ESSCertID").children()
    # RFC 2634 §5.4.1: version 1 is SHA-1; version 2 has SHA-256 as default.
    digest = "sha1" if version == 1 else "sha256"
    if version == 2 and parts and parts[0].tag == SEQUENCE:
        digest = digest_of(parts.pop(0).encoding).name
    if not parts:
        raise CmsError("an ESSCertID without a hash")
    octets = parts[0].expect(OCTET_STRING, "certHash").content
    serial: int | None = None
    if len(parts) > 1:
        issuer_serial = parts[1].expect(SEQUENCE, "issuerSerial").children()
        if issuer_serial and issuer_serial[-1].tag == INTEGER:
            serial = read_integer(issuer_serial[-1])
    return digest, octets, serial


@lru_cache(maxsize=1024)
def _kept_hash(encoding: bytes, version: int) -> tuple[str, bytes, int | None]:
    return _certificate_hash(read_element(encoding), version)


def same_algorithm(one: bytes, other: bytes | None) -> bool:
    """Whether two digest or signature AlgorithmIdentifiers say the same; absent parameters and NULL are one."""
    if other is None:
        return False
    if one == other:
        return True
    try:
        return _meaning(one) == _meaning(other)
    except (Asn1Error, CryptoError):
        return False


def _meaning(algorithm: bytes) -> tuple[str, bytes]:
    oid, parameters = algorithm_of(read_single(algorithm, SEQUENCE))
    encoding = b"" if parameters is None else parameters.encoding
    return oid, b"" if encoding == writer.NULL else encoding


# -- writing ------------------------------------------------------------------------------------------------------------------


def attribute(kind: str, value: bytes) -> bytes:
    """Attribute with one value."""
    return writer.sequence(writer.oid(kind), writer.set_of(value))


def signing_certificate(certificate: bytes) -> bytes:
    """signing-certificate-v2 (RFC 5035 §5.4)."""
    # RFC 5035 §4: SHA-256 is the default and left out in DER; issuerSerial may be left out where the SignerInfo names issuer and serial.
    return attribute(
        SIGNING_CERTIFICATE_V2,
        writer.sequence(writer.sequence(writer.sequence(writer.octet_string(sha256(certificate).digest())))),
    )


def algorithm_protection(digest_algorithm: bytes, signature_algorithm: bytes) -> bytes:
    """CMSAlgorithmProtection (RFC 6211 §2)."""
    return attribute(ALGORITHM_PROTECTION, writer.sequence(digest_algorithm, writer.implicit(1, signature_algorithm)))
