"""The extensions of a certificate (RFC 5280 §4.2) as values, and how each is read.

Each reader takes the contents of `extnValue` and raises `Asn1Error` for anything but the type that must stand there. Invariant: a reader
accepts only DER, and takes time linear in its octets.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from mailsec.errors import Asn1Error
from mailsec.x509 import der

__all__ = [
    "ANY_EXTENDED_KEY_USAGE",
    "ANY_POLICY",
    "AuthorityKeyIdentifier",
    "BasicConstraints",
    "DistributionPoint",
    "Extension",
    "GeneralName",
    "NameConstraints",
    "PolicyConstraints",
]

ANY_EXTENDED_KEY_USAGE: Final = "2.5.29.37.0"
ANY_POLICY: Final = "2.5.29.32.0"

# RFC 5280 §4.2.1.3: the bits of KeyUsage, in their order.
KEY_USAGES: Final = (
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
)
# RFC 5280 §4.2.1.13: the bits of ReasonFlags, in their order.
REASONS: Final = (
    "unused",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
)
ALL_REASONS: Final = frozenset(REASONS[1:])

_MOST = 10_000
"""Elements of one extension: more names and constraints than any authority writes."""


class Extension(NamedTuple):
    """One extension as it stands: `value` is the contents of its OCTET STRING."""

    oid: str
    critical: bool
    value: bytes


class GeneralName(NamedTuple):
    """One GeneralName (RFC 5280 §4.2.1.6): the number of its tag, and its contents octets ("directoryName": the Name's encoding)."""

    kind: int
    value: bytes


class BasicConstraints(NamedTuple):
    """RFC 5280 §4.2.1.9."""

    ca: bool
    path_length: int | None


class AuthorityKeyIdentifier(NamedTuple):
    """RFC 5280 §4.2.1.1: any of them may be absent."""

    key_id: bytes | None
    issuers: tuple[GeneralName, ...]
    serial: int | None


class NameConstraints(NamedTuple):
    """RFC 5280 §4.2.1.10: the bases of the subtrees."""

    permitted: tuple[GeneralName, ...]
    excluded: tuple[GeneralName, ...]


class PolicyConstraints(NamedTuple):
    """RFC 5280 §4.2.1.11."""

    require_explicit_policy: int | None
    inhibit_policy_mapping: int | None


class DistributionPoint(NamedTuple):
    """RFC 5280 §4.2.1.13: full names, or the octets of a name relative to the issuer of the CRL."""

    full_names: tuple[GeneralName, ...]
    relative_name: bytes | None
    reasons: frozenset[str]
    crl_issuer: tuple[GeneralName, ...]


@lru_cache(maxsize=512)
def usages_of(bits: int) -> frozenset[str]:
    """The names of KeyUsage bits."""
    return frozenset(name for index, name in enumerate(KEY_USAGES) if bits >> index & 1)


def key_usage(value: bytes) -> frozenset[str]:
    """RFC 5280 §4.2.1.3."""
    _, _, content, end = der.single(value, 0, len(value), der.BIT_STRING, "keyUsage")
    return usages_of(der.named_bits(value, content, end))


def extended_key_usage(value: bytes) -> frozenset[str]:
    """RFC 5280 §4.2.1.12: at least one purpose."""
    return frozenset(oids(value, "extKeyUsage"))


def oids(value: bytes, what: str) -> tuple[str, ...]:
    """A SEQUENCE SIZE (1..MAX) OF OBJECT IDENTIFIER."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, what)
    found = []
    for tag, _, start, stop in der.split(value, content, end, 256):
        if tag != der.OID:
            raise Asn1Error(f"{what}: an element that is no object identifier")
        found.append(der.oid(value[start:stop]))
    if not found:
        raise Asn1Error(f"{what}: empty")
    return tuple(found)


def basic_constraints(value: bytes) -> BasicConstraints:
    """RFC 5280 §4.2.1.9. `cA FALSE` written out is not DER, and stands in many certificates: it is read as what it says."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "basicConstraints")
    parts = der.split(value, content, end, 2)
    ca = False
    if parts and parts[0][0] == der.BOOLEAN:
        ca = der.boolean(value, parts[0][2], parts[0][3])
        del parts[0]
    if not parts:
        return BasicConstraints(ca, None)
    if len(parts) != 1 or parts[0][0] != der.INTEGER:
        raise Asn1Error("basicConstraints: an element that does not belong there")
    return BasicConstraints(ca, der.unsigned(value, parts[0][2], parts[0][3]))


def key_identifier(value: bytes) -> bytes:
    """RFC 5280 §4.2.1.2."""
    _, _, content, end = der.single(value, 0, len(value), der.OCTET_STRING, "subjectKeyIdentifier")
    return value[content:end]


def authority_key_identifier(value: bytes) -> AuthorityKeyIdentifier:
    """RFC 5280 §4.2.1.1."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "authorityKeyIdentifier")
    key_id: bytes | None = None
    issuers: tuple[GeneralName, ...] = ()
    serial: int | None = None
    for tag, _, start, stop in der.split(value, content, end, 3):
        if tag == 0x80:
            key_id = value[start:stop]
        elif tag == 0xA1:
            issuers = general_names(value, start, stop)
        elif tag == 0x82:
            serial = der.integer(value, start, stop)
        else:
            raise Asn1Error("authorityKeyIdentifier: an element that does not belong there")
    return AuthorityKeyIdentifier(key_id, issuers, serial)


def general_names(value: bytes, content: int, end: int) -> tuple[GeneralName, ...]:
    """RFC 5280 §4.2.1.6: the contents of a GeneralNames."""
    return tuple([_general_name(value, span) for span in der.split(value, content, end, _MOST)])


_CONSTRUCTED_NAMES: Final = frozenset({0, 3, 4, 5})
"""otherName, x400Address, directoryName, ediPartyName."""


def _general_name(value: bytes, span: der.Span) -> GeneralName:
    tag, _, start, stop = span
    kind = tag & 0x1F
    if tag >> 5 != (0b101 if kind in _CONSTRUCTED_NAMES else 0b100) or kind > 8:
        raise Asn1Error("a general name of an unknown kind")
    if kind == 4:
        der.single(value, start, stop, der.SEQUENCE, "directoryName")
    return GeneralName(kind, value[start:stop])


def alternative_names(value: bytes) -> tuple[GeneralName, ...]:
    """subjectAltName, issuerAltName (RFC 5280 §4.2.1.6): at least one name."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "alternative names")
    if content == end:
        raise Asn1Error("alternative names: empty")
    return general_names(value, content, end)


def other_name(value: bytes) -> tuple[str, bytes]:
    """The type of an otherName, and the encoding of its value."""
    parts = der.split(value, 0, len(value), 2)
    if len(parts) != 2 or parts[0][0] != der.OID or parts[1][0] != 0xA0:
        raise Asn1Error("otherName: not a type and a value")
    return der.oid(value[parts[0][2] : parts[0][3]]), value[parts[1][2] : parts[1][3]]


def name_constraints(value: bytes) -> NameConstraints:
    """RFC 5280 §4.2.1.10; `minimum` is 0 and `maximum` absent, in every certificate of this profile."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "nameConstraints")
    trees: dict[int, tuple[GeneralName, ...]] = {}
    for tag, _, start, stop in der.split(value, content, end, 2):
        if tag not in (0xA0, 0xA1) or tag in trees:
            raise Asn1Error("nameConstraints: an element that does not belong there")
        bases = []
        for subtree in der.split(value, start, stop, _MOST):
            parts = der.split(value, subtree[2], subtree[3], 3)
            # RFC 5280 §4.2.1.10: minimum is zero, maximum is absent; others are refused rather than misread.
            if subtree[0] != der.SEQUENCE or not parts or any(part[0] != 0x80 or value[part[2] : part[3]] != b"\0" for part in parts[1:]):
                raise Asn1Error("nameConstraints: a subtree with a minimum or a maximum")
            bases.append(_general_name(value, parts[0]))
        if not bases:
            raise Asn1Error("nameConstraints: an empty list of subtrees")
        trees[tag] = tuple(bases)
    # RFC 5280 §4.2.1.10: not an empty sequence.
    if not trees:
        raise Asn1Error("nameConstraints: empty")
    return NameConstraints(trees.get(0xA0, ()), trees.get(0xA1, ()))


def certificate_policies(value: bytes) -> tuple[str, ...]:
    """RFC 5280 §4.2.1.4: the policies without their qualifiers; none stands twice."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "certificatePolicies")
    found: list[str] = []
    for tag, _, start, stop in der.split(value, content, end, 1000):
        parts = der.split(value, start, stop, 2)
        if tag != der.SEQUENCE or not parts or parts[0][0] != der.OID:
            raise Asn1Error("certificatePolicies: an element that is no policy")
        found.append(der.oid(value[parts[0][2] : parts[0][3]]))
    if not found or len(set(found)) != len(found):
        raise Asn1Error("certificatePolicies: empty, or one policy twice")
    return tuple(found)


def policy_mappings(value: bytes) -> tuple[tuple[str, str], ...]:
    """RFC 5280 §4.2.1.5: (policy of the issuer's domain, policy of the subject's domain)."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "policyMappings")
    found: list[tuple[str, str]] = []
    for tag, _, start, stop in der.split(value, content, end, 1000):
        parts = der.split(value, start, stop, 2)
        if tag != der.SEQUENCE or len(parts) != 2 or parts[0][0] != der.OID or parts[1][0] != der.OID:
            raise Asn1Error("policyMappings: an element that is no mapping")
        found.append((der.oid(value[parts[0][2] : parts[0][3]]), der.oid(value[parts[1][2] : parts[1][3]])))
    if not found:
        raise Asn1Error("policyMappings: empty")
    return tuple(found)


def policy_constraints(value: bytes) -> PolicyConstraints:
    """RFC 5280 §4.2.1.11."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "policyConstraints")
    found: dict[int, int] = {}
    for tag, _, start, stop in der.split(value, content, end, 2):
        if tag not in (0x80, 0x81) or tag in found:
            raise Asn1Error("policyConstraints: an element that does not belong there")
        found[tag] = der.unsigned(value, start, stop)
    if not found:
        raise Asn1Error("policyConstraints: empty")
    return PolicyConstraints(found.get(0x80), found.get(0x81))


def inhibit_any_policy(value: bytes) -> int:
    """RFC 5280 §4.2.1.14."""
    _, _, content, end = der.single(value, 0, len(value), der.INTEGER, "inhibitAnyPolicy")
    return der.unsigned(value, content, end)


def distribution_points(value: bytes) -> tuple[DistributionPoint, ...]:
    """cRLDistributionPoints and freshestCRL (RFC 5280 §4.2.1.13, §4.2.1.15)."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "cRLDistributionPoints")
    points: list[DistributionPoint] = []
    for tag, _, start, stop in der.split(value, content, end, 1000):
        if tag != der.SEQUENCE:
            raise Asn1Error("cRLDistributionPoints: an element that is no distribution point")
        names: tuple[GeneralName, ...] = ()
        relative: bytes | None = None
        reasons = ALL_REASONS
        issuer: tuple[GeneralName, ...] = ()
        for part, _, first, last in der.split(value, start, stop, 3):
            if part == 0xA0:
                names, relative = distribution_point_name(value, first, last)
            elif part == 0x81:
                reasons = reason_flags(value, first, last)
            elif part == 0xA2:
                issuer = general_names(value, first, last)
            else:
                raise Asn1Error("cRLDistributionPoints: an element that does not belong there")
        points.append(DistributionPoint(names, relative, reasons, issuer))
    if not points:
        raise Asn1Error("cRLDistributionPoints: empty")
    return tuple(points)


def distribution_point_name(value: bytes, content: int, end: int) -> tuple[tuple[GeneralName, ...], bytes | None]:
    """DistributionPointName: full names, or the contents of the RelativeDistinguishedName."""
    parts = der.split(value, content, end, 1)
    if len(parts) != 1 or parts[0][0] not in (0xA0, 0xA1):
        raise Asn1Error("a distribution point's name of an unknown kind")
    if parts[0][0] == 0xA0:
        return general_names(value, parts[0][2], parts[0][3]), None
    return (), value[parts[0][2] : parts[0][3]]


def reason_flags(value: bytes, content: int, end: int) -> frozenset[str]:
    """ReasonFlags (RFC 5280 §4.2.1.13)."""
    bits = der.named_bits(value, content, end)
    return frozenset(name for index, name in enumerate(REASONS) if index and bits >> index & 1)


def information_access(value: bytes) -> tuple[tuple[str, str], ...]:
    """authorityInfoAccess (RFC 5280 §4.2.2.1): (access method, URL) of those whose location is a URL."""
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "authorityInfoAccess")
    found: list[tuple[str, str]] = []
    for tag, _, start, stop in der.split(value, content, end, 100):
        parts = der.split(value, start, stop, 2)
        if tag != der.SEQUENCE or len(parts) != 2 or parts[0][0] != der.OID:
            raise Asn1Error("authorityInfoAccess: an element that is no access description")
        if parts[1][0] == 0x86:
            found.append((der.oid(value[parts[0][2] : parts[0][3]]), value[parts[1][2] : parts[1][3]].decode("ascii", "replace")))
    return tuple(found)
