"""Requests for certificates (PKCS#10, RFC 2986), for S/MIME: what our keys sign for authorities elsewhere, and what our own authority reads.

Addresses stand in subjectAltName of the extensionRequest attribute (RFC 2985 §5.4.2), as rfc822Name or SmtpUTF8Mailbox (RFC 9598). The one
invariant: what is read was signed with the key that it is about; nothing else in it is believed by anybody here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from mailsec.asn1 import reader, values, writer
from mailsec.errors import AddressError, Asn1Error, InputError, PrivateKeyError, UsageError
from mailsec.model.address import Address
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.x509.issue import MAIL_USAGES, key_usage, mail_names
from mailsec.x509.private_keys import encrypting_usages, load_public, signing_usages

__all__ = ["CertificateRequest", "read_request", "request_info"]

_SMTP_UTF8_MAILBOX = ObjectIdentifier("1.3.6.1.5.5.7.8.9")
_LONGEST = 64
_UTF8_STRING = 0x0C
_EXTENSION_REQUEST = writer.oid("1.2.840.113549.1.9.14")


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What somebody asks to be certified, signed with the key itself."""

    public_key: bytes
    """DER of the SubjectPublicKeyInfo."""
    subject: str
    common_name: str
    addresses: tuple[Address, ...]


def request_info(*, addresses: Sequence[Address], public_key: bytes, common_name: str = "", usage: str = "both") -> bytes:
    """The CertificationRequestInfo (RFC 2986 §4.1) for an S/MIME certificate for these mailboxes, DER: what the private key signs.

    `public_key` is a SubjectPublicKeyInfo, `usage` "sign", "encrypt" or "both". Raise UsageError, PrivateKeyError for what cannot be asked for.
    """
    if not addresses:
        raise UsageError("a request for a mail certificate needs an address", hint="as in --address alice@example.org")
    if usage not in MAIL_USAGES:
        raise UsageError(f"there is no usage {usage!r}", hint="one of " + ", ".join(MAIL_USAGES))
    public = load_public(public_key)
    signing, encrypting = signing_usages(public), encrypting_usages(public)
    if not signing:
        # RFC 2986 §4.2: a request is signed with the key that it is about.
        raise PrivateKeyError("a key of this kind signs nothing, so it can sign no request", hint="use an RSA, EC, Ed25519 or ML-DSA key")
    usages = {"sign": signing, "encrypt": encrypting, "both": (*signing, *encrypting)}[usage]
    if not usages:
        raise UsageError(f"a key of this kind cannot {usage}", hint="leave --usage out, or use another kind of key")
    shown = common_name or str(addresses[0])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, shown)] if len(shown) <= _LONGEST else [])
    extensions = writer.sequence(
        _extension(x509.SubjectAlternativeName(mail_names(addresses)), critical=not list(subject)),
        _extension(key_usage(*usages), critical=True),
        _extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False),
    )
    # RFC 2985 §5.4.2: extensionRequest.
    attribute = writer.sequence(_EXTENSION_REQUEST, writer.set_of(extensions))
    return writer.sequence(writer.integer(0), subject.public_bytes(), public_key, writer.implicit(0, writer.set_of(attribute)))


def _extension(value: x509.ExtensionType, *, critical: bool) -> bytes:
    name = writer.oid(value.oid.dotted_string)
    return writer.sequence(name, *([writer.boolean(True)] if critical else []), writer.octet_string(value.public_bytes()))


def read_request(der: bytes, *, limits: Limits = DEFAULT_LIMITS) -> CertificateRequest:
    """Read a request and check its signature. Raise InputError for what is none, or not signed with its own key."""
    if len(der) > limits.certificate_octets:
        raise InputError("a certificate request that is too large", hint="one has some kilobytes", stage="parse")
    try:
        request = x509.load_der_x509_csr(der)
        public = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        signed = request.is_signature_valid
        names = [str(attribute.value) for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        addresses = _addresses(request)
        subject = request.subject.rfc4514_string()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.UnsupportedGeneralNameType, x509.DuplicateExtension):
        raise InputError("not a certificate request that can be read", hint="PKCS#10, as PEM or DER", stage="parse") from None
    # Attack: a request about somebody else's public key. Who has not the private key cannot sign it.
    if not signed:
        raise InputError("the request is not signed with the key that it is about", hint="have it made again", stage="signature")
    return CertificateRequest(public, subject, names[0] if names else "", addresses)


def _addresses(request: x509.CertificateSigningRequest) -> tuple[Address, ...]:
    try:
        alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    found = []
    for name in alternatives:
        text = ""
        if isinstance(name, x509.RFC822Name):
            text = name.value
        elif isinstance(name, x509.OtherName) and name.type_id == _SMTP_UTF8_MAILBOX:
            try:
                text = values.read_string(reader.read_single(name.value, _UTF8_STRING, "SmtpUTF8Mailbox"))
            except Asn1Error:
                raise InputError("the request names an address that cannot be read", stage="parse") from None
        if text:
            try:
                found.append(Address.parse(text))
            except AddressError as error:
                raise InputError(f"the request names {text[:80]!a}: {error.message}", hint="have it made again", stage="parse") from None
    return tuple(dict.fromkeys(found))
