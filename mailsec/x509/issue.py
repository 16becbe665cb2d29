"""Certificates that mailsec issues itself: a CA, server certificates, and S/MIME certificates (RFC 5280, RFC 8550).

For demonstrations, tests, and an organisation's own small CA. What is issued keeps to the profile of RFC 8550 and, where a private
CA can, to the S/MIME Baseline Requirements of the CA/Browser Forum: random serial numbers of 127 bits, addresses in subjectAltName,
emailProtection alone in extendedKeyUsage, keyUsage by the type of the key, no basicConstraints in end-entity certificates.
Pure: the instant and random octets are arguments (what `cryptography` draws for keys and signatures is its own).

The one invariant: an end-entity certificate ends no later than the CA that signs it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from mailsec.asn1 import writer
from mailsec.errors import AddressError, UsageError
from mailsec.model.address import Address, normalise_domain
from mailsec.x509.private_keys import (
    KEY_KINDS,
    encrypting_usages,
    load_private,
    load_public,
    make_key,
    public_key_of,
    signature_digest,
    signing_usages,
)

__all__ = [
    "KEY_KINDS",
    "MAIL_DAYS",
    "MAIL_USAGES",
    "IssuedBy",
    "authority_certificate",
    "authority_key_id",
    "issue_mail",
    "issue_responder",
    "issue_server",
    "key_usage",
    "mail_names",
    "make_ca",
    "make_key",
    "public_key_of",
    "renew_ca",
]

MAIL_USAGES = ("both", "sign", "encrypt")
MAIL_DAYS = 824
"""S/MIME Baseline Requirements §6.3.2: at most 825 days, and better less."""

# RFC 9598 §3: id-on-SmtpUTF8Mailbox, for addresses whose local part is not ASCII.
_SMTP_UTF8_MAILBOX = ObjectIdentifier("1.3.6.1.5.5.7.8.9")
# RFC 5280 Appendix A.1: ub-common-name.
_LONGEST_COMMON_NAME = 64
# Clocks of others are late: a certificate holds from a little before it was made.
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class IssuedBy:
    """A CA: its certificate, its key (PKCS#8 DER, in no `repr`), and what it writes into the certificates that it issues."""

    certificate: bytes
    _key: bytes
    crl_urls: tuple[str, ...] = ()
    ocsp_urls: tuple[str, ...] = ()
    issuer_urls: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    """OIDs of the policies that it follows. A private CA names none of the CA/Browser Forum's."""

    def __repr__(self) -> str:
        return "IssuedBy(...)"


def make_ca(
    *,
    common_name: str,
    key: bytes,
    at: datetime,
    random: Callable[[int], bytes],
    days: int = 3652,
    organisation: str = "",
    domains: Sequence[str] = (),
) -> bytes:
    """A self-signed CA certificate, DER. With `domains`, it may vouch for addresses and hosts of these only (RFC 5280 §4.2.1.10)."""
    private = load_private(key)
    name = _name(common_name, organisation)
    builder = _authority(name, private, at, days, random)
    if domains:
        permitted: list[x509.GeneralName] = []
        for domain in domains:
            plain = normalise_domain(domain.lstrip("@."))
            # RFC 5280 §4.2.1.10: "example.org" is a host of addresses, ".example.org" all below it; a dNSName includes what is below.
            permitted += [x509.RFC822Name(plain), x509.RFC822Name("." + plain), x509.DNSName(plain)]
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    return _sign(builder, private)


def renew_ca(certificate: bytes, *, key: bytes, at: datetime, random: Callable[[int], bytes], days: int = 3652) -> bytes:
    """Another self-signed certificate of the same authority: the same name and constraints; `key` is its key of before, or a new one.

    With its key of before, everything that it issued has a path to the new certificate, too. With a new key the old certificate stays an
    anchor until what it issued has ended; the two are told apart by their key identifiers (RFC 5280 §4.2.1.1).
    """
    private = load_private(key)
    old = authority_certificate(certificate)
    builder = _authority(old.subject, private, at, days, random)
    for extension in old.extensions:
        if isinstance(extension.value, x509.NameConstraints):
            builder = builder.add_extension(extension.value, critical=True)
    return _sign(builder, private)


def _authority(name: x509.Name, private: Any, at: datetime, days: int, random: Callable[[int], bytes]) -> x509.CertificateBuilder:
    return (
        _builder(name, name, private.public_key(), at, days, None, random)
        # RFC 5280 §4.2.1.9: a CA certificate has basicConstraints, critical; this one signs end entities only.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # RFC 5280 §4.2.1.3: keyCertSign and cRLSign.
        .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
    )


def issue_server(
    ca: IssuedBy, *, names: Sequence[str], public_key: bytes, at: datetime, random: Callable[[int], bytes], days: int = 397
) -> bytes:
    """A certificate for a TLS server (RFC 9525: host names and addresses in subjectAltName), DER."""
    if not names:
        raise UsageError("a server certificate needs a host name", hint="as in --host mail.example.org")
    alternatives = [_host(name) for name in names]
    shown = normalise_domain(names[0])
    # RFC 5280 §4.2.1.6: an empty subject is allowed, subjectAltName is critical then.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, shown)] if len(shown) <= _LONGEST_COMMON_NAME else [])
    public = load_public(public_key)
    if not signing_usages(public):
        raise UsageError("a TLS server needs a key that signs", hint="use an RSA or EC key")
    # RFC 5280 §4.2.1.3: keyEncipherment is for the key transport of TLS 1.2, which RSA has only.
    usages = (*signing_usages(public), *(usage for usage in encrypting_usages(public) if usage == "key_encipherment"))
    return _issue(ca, subject, public, alternatives, usages, ExtendedKeyUsageOID.SERVER_AUTH, at, days, random)


def issue_responder(
    ca: IssuedBy, *, common_name: str, public_key: bytes, at: datetime, random: Callable[[int], bytes], days: int = 397
) -> bytes:
    """A certificate for a key that signs OCSP answers for the CA (RFC 6960 §4.2.2.2), DER. It cannot be revoked: let it be short."""
    public = load_public(public_key)
    usages = tuple(usage for usage in signing_usages(public) if usage == "digital_signature")
    if not usages:
        raise UsageError("an OCSP responder needs a key that signs", hint="use an RSA or EC key")
    return _issue(ca, _name(common_name, ""), public, (), usages, ExtendedKeyUsageOID.OCSP_SIGNING, at, days, random)


def issue_mail(
    ca: IssuedBy,
    *,
    addresses: Sequence[Address],
    public_key: bytes,
    at: datetime,
    random: Callable[[int], bytes],
    common_name: str = "",
    days: int = MAIL_DAYS,
    usage: str = "both",
) -> bytes:
    """An S/MIME certificate for these mailboxes (RFC 8550), DER; `usage` is "sign", "encrypt" or "both"."""
    if not addresses:
        raise UsageError("a certificate for mail needs an address", hint="as in --address alice@example.org")
    if usage not in MAIL_USAGES:
        raise UsageError(f"there is no usage {usage!r}", hint="one of " + ", ".join(MAIL_USAGES))
    public = load_public(public_key)
    signing, encrypting = signing_usages(public), encrypting_usages(public)
    usages = {"sign": signing, "encrypt": encrypting, "both": (*signing, *encrypting)}[usage]
    if not usages:
        raise UsageError(f"a key of this kind cannot {usage}", hint="leave --usage out, or use another kind of key")
    # S/MIME Baseline Requirements §7.1.4.2.2: a common name is a mailbox address, or the name of the person.
    shown = common_name or str(addresses[0])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, shown)] if len(shown) <= _LONGEST_COMMON_NAME else [])
    alternatives = mail_names(addresses)
    return _issue(ca, subject, public, alternatives, usages, ExtendedKeyUsageOID.EMAIL_PROTECTION, at, days, random)


def mail_names(addresses: Sequence[Address]) -> list[x509.GeneralName]:
    """The subjectAltName of these mailboxes."""
    # RFC 8550 §4.4.3: addresses stand in subjectAltName.
    return [_mailbox(address) for address in addresses]


def _issue(
    ca: IssuedBy,
    subject: x509.Name,
    public: Any,
    alternatives: Sequence[x509.GeneralName],
    usages: Sequence[str],
    purpose: ObjectIdentifier,
    at: datetime,
    days: int,
    random: Callable[[int], bytes],
) -> bytes:
    issuer = authority_certificate(ca.certificate)
    if issuer.not_valid_after_utc <= at:
        raise UsageError("the CA certificate has expired", hint="`mailsec cert issue --renew-ca NAME` makes another one")
    builder = (
        _builder(subject, issuer.subject, public, at, days, issuer.not_valid_after_utc, random)
        # RFC 5280 §4.2.1.3: keyUsage should be critical.
        .add_extension(key_usage(*usages), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        # RFC 5280 §4.2.1.1, §4.2.1.2: the identifiers by which a path is found.
        .add_extension(authority_key_id(issuer), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=not list(subject))
    if purpose == ExtendedKeyUsageOID.OCSP_SIGNING:
        # RFC 6960 §4.2.2.2.1: nobody asks the responder about itself.
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    if ca.policies:
        policies = [x509.PolicyInformation(ObjectIdentifier(policy), None) for policy in ca.policies]
        builder = builder.add_extension(x509.CertificatePolicies(policies), critical=False)
    if ca.crl_urls:
        urls = [x509.UniformResourceIdentifier(url) for url in ca.crl_urls]
        builder = builder.add_extension(x509.CRLDistributionPoints([x509.DistributionPoint(urls, None, None, None)]), critical=False)
    access = [(AuthorityInformationAccessOID.OCSP, url) for url in ca.ocsp_urls]
    access += [(AuthorityInformationAccessOID.CA_ISSUERS, url) for url in ca.issuer_urls]
    if access:
        described = [x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for method, url in access]
        builder = builder.add_extension(x509.AuthorityInformationAccess(described), critical=False)
    return _sign(builder, load_private(ca._key))


def authority_certificate(der: bytes) -> x509.Certificate:
    """The certificate of an authority that may issue; raise UsageError where it is none that can be used."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions
    except (ValueError, x509.InvalidVersion, x509.DuplicateExtension):
        raise UsageError("the CA certificate cannot be used", hint="make one with `mailsec cert issue --new-ca NAME`") from None
    return certificate


def authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """What certificates and lists of this authority are found by."""
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        # RFC 5280 §4.2.1.1: from the public key. (CAs that certutil makes have no subjectKeyIdentifier unless it is told to.)
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: Any,
    at: datetime,
    days: int,
    end: datetime | None,
    random: Callable[[int], bytes],
) -> x509.CertificateBuilder:
    # RFC 5280 §4.1.2.2: positive, up to 20 octets; S/MIME Baseline Requirements §7.1: at least 64 random bits.
    serial = int.from_bytes(random(16), "big") >> 1 or 1
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public).serial_number(serial)
    begin = at - _BACKDATED
    # RFC 5280 §4.1.2.5: both ends belong to the time, so that 825 days are a second less.
    last = begin + timedelta(days=days, seconds=-1)
    return builder.not_valid_before(begin).not_valid_after(last if end is None else min(last, end))


def _sign(builder: x509.CertificateBuilder, key: Any) -> bytes:
    return builder.sign(key, signature_digest(key)).public_bytes(Encoding.DER)


def key_usage(*wanted: str) -> x509.KeyUsage:
    """The extension with these bits (named as in `cryptography`)."""
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in wanted for name in names})


def _name(common_name: str, organisation: str) -> x509.Name:
    if not common_name or len(common_name) > _LONGEST_COMMON_NAME:
        raise UsageError("it needs a name of up to 64 characters", hint='as in "Example Mail CA"')
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(normalise_domain(Address.parse("a@" + name).domain))
    except (AddressError, ValueError):
        raise UsageError(f"not a host name or IP address: {name[:80]!r}", hint="as in mail.example.org") from None


def _mailbox(address: Address) -> x509.GeneralName:
    # RFC 9598 §3: an ASCII local part goes into rfc822Name, any other into SmtpUTF8Mailbox; the domain in A-labels in both.
    mailbox = f"{address.local_part}@{normalise_domain(address.domain)}"
    if mailbox.isascii():
        return x509.RFC822Name(mailbox)
    octets = mailbox.encode()
    return x509.OtherName(_SMTP_UTF8_MAILBOX, writer.header(0x0C, len(octets)) + octets)
