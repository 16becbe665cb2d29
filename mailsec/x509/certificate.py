"""DER to a frozen `Certificate` (RFC 5280 §4.1), never failing on odd ones.

What cannot be read stays as octets, and stands in `problems`; `pki` decides which problems a path may have. Invariant: `load_certificate`
returns for any octets, in time linear in them, and what it returns never changes; certificates of up to 16 KiB are kept (bounded).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from mailsec.errors import Asn1Error, MailsecError
from mailsec.model.address import Address
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.verdict import CertificateSummary, Reason
from mailsec.x509 import der, extensions
from mailsec.x509.extensions import (
    AuthorityKeyIdentifier,
    BasicConstraints,
    Extension,
    GeneralName,
    NameConstraints,
    PolicyConstraints,
)
from mailsec.x509.keys import KeyFacts, key_facts
from mailsec.x509.names import EMAIL_ADDRESS, Name, decode, printable

__all__ = ["Certificate", "load_certificate", "summary"]

_KEPT_OCTETS = 16 * 1024
_MOST_EXTENSIONS = 256
_NO_KEY: Final = KeyFacts("unknown", 0, "", (), False)
_NO_NAME: Final = Name(b"\x30\x00")


@dataclass(frozen=True, slots=True, eq=False)
class Certificate:
    """One certificate. Equal are certificates of equal octets. Fields that could not be read have their empty value."""

    der: bytes
    fingerprint: bytes
    """SHA-256 of the DER."""
    tbs: bytes = b""
    """What is signed: the TBSCertificate as received."""
    version: int = 0
    """1, 2 or 3."""
    serial: int = 0
    issuer: Name = _NO_NAME
    subject: Name = _NO_NAME
    not_before: datetime | None = None
    not_after: datetime | None = None
    spki: bytes = b""
    key: KeyFacts = _NO_KEY
    signature_algorithm: bytes = b""
    """The AlgorithmIdentifier, DER."""
    signature: bytes = b""
    extensions: tuple[Extension, ...] = ()
    key_usage: frozenset[str] | None = None
    extended_key_usage: frozenset[str] | None = None
    """OIDs in dotted form."""
    basic_constraints: BasicConstraints | None = None
    subject_key_id: bytes | None = None
    authority_key_id: AuthorityKeyIdentifier | None = None
    alternative_names: tuple[GeneralName, ...] | None = None
    """None: there is no subjectAltName."""
    addresses: tuple[Address, ...] = ()
    """rfc822Name and SmtpUTF8Mailbox of subjectAltName; where it has none, emailAddress of the subject."""
    addresses_from_subject: bool = False
    """True where the addresses are the subject's (RFC 8550 §3: for old certificates)."""
    dns_names: tuple[str, ...] = ()
    name_constraints: NameConstraints | None = None
    policies: tuple[str, ...] | None = None
    policy_mappings: tuple[tuple[str, str], ...] | None = None
    policy_constraints: PolicyConstraints | None = None
    inhibit_any_policy: int | None = None
    readable: bool = False
    """False where the octets are no certificate at all: then only `der` and `fingerprint` mean something."""
    problems: tuple[Reason, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"<Certificate {self.subject.text!r} serial {self.serial:x}>"

    @property
    def key_type(self) -> str:
        """As `interfaces.KeyHandle.key_type`; "unknown:OID" for others."""
        return self.key.type

    @property
    def bits(self) -> int:
        """The size of the key."""
        return self.key.bits

    @property
    def is_self_issued(self) -> bool:
        """RFC 5280 §6.1: issuer and subject name the same."""
        return self.issuer.matches(self.subject)

    def extension(self, oid: str) -> Extension | None:
        """The extension of this type; None where there is none."""
        for candidate in self.extensions:
            if candidate.oid == oid:
                return candidate
        return None


def load_certificate(der: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Certificate:
    """Read a certificate. Never raises: what is wrong with it stands in `problems`."""
    if len(der) <= _KEPT_OCTETS:
        return _kept(der)
    if len(der) > limits.cms_metadata_octets:
        return Certificate(
            der, sha256(der).digest(), problems=(_problem("certificate-too-large", "the certificate is too large to be read"),)
        )
    return _load(der)


@lru_cache(maxsize=1024)
def summary(certificate: Certificate) -> CertificateSummary:
    """What people are shown of a certificate."""
    return CertificateSummary(
        subject=certificate.subject.text,
        issuer=certificate.issuer.text,
        serial=f"{certificate.serial:x}",
        addresses=tuple(printable(str(address)) for address in certificate.addresses),
        not_before=certificate.not_before,
        not_after=certificate.not_after,
        fingerprint=certificate.fingerprint.hex(),
    )


def _load(data: bytes) -> Certificate:
    data = bytes(data)
    fingerprint = sha256(data).digest()
    try:
        fields, problems = _read(data)
    except (Asn1Error, MailsecError) as error:
        return Certificate(data, fingerprint, problems=(_problem("certificate-unreadable", f"not a certificate: {error}"),))
    return Certificate(data, fingerprint, readable=True, problems=tuple(problems), **fields)


_kept = lru_cache(maxsize=1024)(_load)


def _problem(code: str, message: str, rfc: str = "RFC 5280 §4.1") -> Reason:
    return Reason(code, "parse", message, "ask the issuer for a certificate that follows the standard", rfc)


def _read(data: bytes) -> tuple[dict[str, Any], list[Reason]]:
    problems: list[Reason] = []
    _, _, content, end = der.single(data, 0, len(data), der.SEQUENCE, "certificate")
    outer = der.split(data, content, end, 3)
    if len(outer) != 3 or outer[0][0] != der.SEQUENCE or outer[1][0] != der.SEQUENCE or outer[2][0] != der.BIT_STRING:
        raise Asn1Error("not a signed structure")
    tbs, algorithm, signature = outer
    parts = der.split(data, tbs[2], tbs[3], 10)
    # RFC 5280 §4.1.2.1: version is v1 where it is absent.
    version = 1
    if parts and parts[0][0] == 0xA0:
        _, _, first, last = der.single(data, parts[0][2], parts[0][3], der.INTEGER, "version")
        version = der.integer(data, first, last) + 1
        del parts[0]
    if [part[0] for part in parts[:6]] != [der.INTEGER, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE, der.SEQUENCE]:
        raise Asn1Error("not the fields of a certificate")
    serial_at, inner_algorithm, issuer, validity, subject, spki = parts[:6]
    serial = der.integer(data, serial_at[2], serial_at[3])
    # RFC 5280 §4.1.2.2: a positive number of up to 20 octets.
    if serial <= 0:
        problems.append(_problem("serial-not-positive", "the serial number is not positive", "RFC 5280 §4.1.2.2"))
    elif serial_at[3] - serial_at[2] > 20:
        problems.append(_problem("serial-too-long", "the serial number has more than 20 octets", "RFC 5280 §4.1.2.2"))
    signature_algorithm = data[algorithm[1] : algorithm[3]]
    # RFC 5280 §4.1.1.2: the algorithm outside is the one inside; else what is signed and what is checked differ.
    if signature_algorithm != data[inner_algorithm[1] : inner_algorithm[3]]:
        problems.append(_problem("signature-algorithm-differs", "the certificate names two signature algorithms", "RFC 5280 §4.1.1.2"))
    if data[signature[2] : signature[2] + 1] != b"\0":
        problems.append(_problem("signature-unreadable", "the signature is not a whole number of octets", "RFC 5280 §4.1.1.3"))
    fields: dict[str, Any] = {
        "tbs": data[tbs[1] : tbs[3]],
        "version": version,
        "serial": serial,
        "issuer": Name(data[issuer[1] : issuer[3]]),
        "subject": Name(data[subject[1] : subject[3]]),
        "spki": data[spki[1] : spki[3]],
        "signature_algorithm": signature_algorithm,
        "signature": data[signature[2] + 1 : signature[3]],
    }
    try:
        times = der.split(data, validity[2], validity[3], 2)
        if len(times) != 2:
            raise Asn1Error("not two instants")
        fields["not_before"], fields["not_after"] = der.time(data, times[0]), der.time(data, times[1])
    except Asn1Error as error:
        problems.append(_problem("validity-unreadable", f"the validity cannot be read: {error}", "RFC 5280 §4.1.2.5"))
    try:
        fields["key"] = key_facts(fields["spki"])
    except Asn1Error as error:
        problems.append(_problem("key-unreadable", f"the public key cannot be read: {error}", "RFC 5280 §4.1.2.7"))
    for name in ("issuer", "subject"):
        try:
            _ = fields[name].rdns
        except Asn1Error as error:
            problems.append(_problem("name-unreadable", f"the {name} cannot be read: {error}", "RFC 5280 §4.1.2.4"))
    _read_tail(data, parts[6:], version, fields, problems)
    return fields, problems


def _read_tail(data: bytes, tail: list[der.Span], version: int, fields: dict[str, Any], problems: list[Reason]) -> None:
    """issuerUniqueID, subjectUniqueID (RFC 5280 §4.1.2.8), extensions (§4.1.2.9)."""
    order = 0
    found: tuple[Extension, ...] = ()
    for tag, _, start, stop in tail:
        place = {0x81: 1, 0x82: 2, 0xA3: 3}.get(tag, 0)
        if place <= order:
            raise Asn1Error("a field that does not belong there")
        order = place
        if place == 3:
            found = _read_extensions(data, start, stop)
    fields["extensions"] = found
    # RFC 5280 §4.1.2.1, §4.1.2.9: extensions are for version 3.
    if version not in (1, 2, 3) or (found and version != 3):
        problems.append(_problem("version-wrong", f"version {version} does not fit the fields of the certificate", "RFC 5280 §4.1.2.1"))
    seen = set()
    for extension in found:
        # RFC 5280 §4.2: not more than one of a kind; readers that take the first and readers that take the last would differ.
        if extension.oid in seen:
            problems.append(_problem("extension-twice", f"the extension {extension.oid} stands there twice", "RFC 5280 §4.2"))
            continue
        seen.add(extension.oid)
        reader = _READERS.get(extension.oid)
        if reader is not None:
            try:
                fields[reader[0]] = reader[1](extension.value)
            except Asn1Error as error:
                problems.append(_problem("extension-unreadable", f"an extension cannot be read: {error}", "RFC 5280 §4.2"))
    names = fields.get("alternative_names")
    if names:
        _read_names(names, fields, problems)
    if not fields.get("addresses"):
        # RFC 8550 §3: addresses are in subjectAltName; those of old certificates are in the subject and may be read there.
        addresses: list[Address] = []
        for tag, value in fields["subject"].values(EMAIL_ADDRESS):
            _add_address(decode(tag, value), addresses, problems)
        if addresses:
            fields["addresses"] = tuple(addresses)
            fields["addresses_from_subject"] = True


def _read_extensions(data: bytes, content: int, end: int) -> tuple[Extension, ...]:
    _, _, start, stop = der.single(data, content, end, der.SEQUENCE, "extensions")
    found: list[Extension] = []
    for span in der.split(data, start, stop, _MOST_EXTENSIONS):
        parts = der.split(data, span[2], span[3], 3)
        critical = False
        if len(parts) == 3 and parts[1][0] == der.BOOLEAN:
            critical = der.boolean(data, parts[1][2], parts[1][3])
            del parts[1]
        if span[0] != der.SEQUENCE or len(parts) != 2 or parts[0][0] != der.OID or parts[1][0] != der.OCTET_STRING:
            raise Asn1Error("an extension without type or value")
        found.append(Extension(der.oid(data[parts[0][2] : parts[0][3]]), critical, data[parts[1][2] : parts[1][3]]))
    if not found:
        raise Asn1Error("an empty list of extensions")
    return tuple(found)


_READERS: Final[dict[str, tuple[str, Callable[[bytes], Any]]]] = {
    "2.5.29.14": ("subject_key_id", extensions.key_identifier),
    "2.5.29.15": ("key_usage", extensions.key_usage),
    "2.5.29.17": ("alternative_names", extensions.alternative_names),
    "2.5.29.19": ("basic_constraints", extensions.basic_constraints),
    "2.5.29.30": ("name_constraints", extensions.name_constraints),
    "2.5.29.32": ("policies", extensions.certificate_policies),
    "2.5.29.33": ("policy_mappings", extensions.policy_mappings),
    "2.5.29.35": ("authority_key_id", extensions.authority_key_identifier),
    "2.5.29.36": ("policy_constraints", extensions.policy_constraints),
    "2.5.29.37": ("extended_key_usage", extensions.extended_key_usage),
    "2.5.29.54": ("inhibit_any_policy", extensions.inhibit_any_policy),
}

_SMTP_UTF8_MAILBOX: Final = "1.3.6.1.5.5.7.8.9"


def _read_names(names: tuple[GeneralName, ...], fields: dict[str, Any], problems: list[Reason]) -> None:
    addresses: list[Address] = []
    hosts: list[str] = []
    for kind, value in names:
        if kind == 1:
            _add_address(value.decode("latin-1"), addresses, problems, value.isascii())
        elif kind == 2:
            hosts.append(value.decode("ascii", "replace"))
        elif kind == 0:
            try:
                oid, encoding = extensions.other_name(value)
                if oid != _SMTP_UTF8_MAILBOX:
                    continue
                _, _, start, stop = der.single(encoding, 0, len(encoding), der.UTF8_STRING, "SmtpUTF8Mailbox")
                text = encoding[start:stop].decode("utf-8")
            except (Asn1Error, UnicodeDecodeError):
                problems.append(_problem("address-unreadable", "a name of the certificate cannot be read", "RFC 9598 §3"))
                continue
            # RFC 9598 §3: no byte order mark; it would make two addresses that look the same.
            _add_address(text, addresses, problems, not text.startswith("\ufeff"))
    fields["addresses"] = tuple(addresses)
    fields["dns_names"] = tuple(hosts)


def _add_address(text: str, addresses: list[Address], problems: list[Reason], well_formed: bool = True) -> None:
    try:
        if not well_formed:
            raise Asn1Error("octets that do not belong in an address")
        address = Address.parse(text)
    except MailsecError:
        problems.append(_problem("address-unreadable", f"the address {printable(text[:80])!r} cannot be read", "RFC 5280 §4.2.1.6"))
        return
    if address not in addresses:
        addresses.append(address)
