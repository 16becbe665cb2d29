"""Certificate revocation lists (RFC 5280 §5): DER to a frozen `CertificateList`, never failing; look-ups without reading every entry.

A list of 100,000 entries is searched for the octets of one serial number. Only lists with critical entry extensions (indirect ones: each
entry may belong to another issuer) are read whole, once. Invariant: an entry that is there is found; whether the list may be believed is
for `pki.crl` to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from mailsec.errors import Asn1Error
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.verdict import Reason
from mailsec.x509 import der, extensions
from mailsec.x509.extensions import AuthorityKeyIdentifier, Extension, GeneralName
from mailsec.x509.names import Name

__all__ = ["CertificateList", "IssuingDistributionPoint", "RevokedEntry", "load_crl"]

_MOST_ENTRIES = 1_000_000
_MOST_MEANINGS = 4096
_NO_NAME = Name(b"\x30\x00")
_CRL_REASONS: Final = {
    0: "unspecified",
    1: "keyCompromise",
    2: "cACompromise",
    3: "affiliationChanged",
    4: "superseded",
    5: "cessationOfOperation",
    6: "certificateHold",
    8: "removeFromCRL",
    9: "privilegeWithdrawn",
    10: "aACompromise",
}
_REASON_CODE = "2.5.29.21"
_CERTIFICATE_ISSUER = "2.5.29.29"
_CERTIFICATE_ISSUER_DER = b"\x06\x03\x55\x1d\x1d"
_KNOWN_ENTRY_EXTENSIONS = frozenset({_REASON_CODE, _CERTIFICATE_ISSUER, "2.5.29.23", "2.5.29.24"})


class RevokedEntry(NamedTuple):
    """One entry (RFC 5280 §5.3)."""

    serial: int
    revoked_at: datetime | None
    reason: str


class IssuingDistributionPoint(NamedTuple):
    """RFC 5280 §5.2.5: what the list is about."""

    full_names: tuple[GeneralName, ...]
    relative_name: bytes | None
    user_certificates: bool
    authority_certificates: bool
    reasons: frozenset[str] | None
    """None: all reasons."""
    indirect: bool
    attribute_certificates: bool


@dataclass(frozen=True, slots=True, eq=False)
class CertificateList:
    """One list. Fields that could not be read have their empty value."""

    der: bytes
    fingerprint: bytes
    tbs: bytes = b""
    issuer: Name = _NO_NAME
    this_update: datetime | None = None
    next_update: datetime | None = None
    signature_algorithm: bytes = b""
    signature: bytes = b""
    entries: tuple[int, int] = (0, 0)
    """Span of the entries in `der`."""
    extensions: tuple[Extension, ...] = ()
    number: int | None = None
    base_number: int | None = None
    """Not None: this is a delta to the list of that number (RFC 5280 §5.2.4)."""
    distribution_point: IssuingDistributionPoint | None = None
    authority_key_id: AuthorityKeyIdentifier | None = None
    readable: bool = False
    problems: tuple[Reason, ...] = ()
    _read: dict[tuple[object, bytes], tuple[int, str]] = field(default_factory=dict, repr=False)
    """Of lists that were read whole: issuer and octets of the serial number, to the place of the time, and the reason."""

    def __repr__(self) -> str:
        return f"<CertificateList of {self.issuer.text!r}, {self.entries[1] - self.entries[0]} octets of entries>"

    def extension(self, oid: str) -> Extension | None:
        """The extension of that type; None where there is none."""
        return next((extension for extension in self.extensions if extension.oid == oid), None)

    def find(self, serial: int, issuer: Name) -> RevokedEntry | None:
        """The entry of a certificate, by its serial number and issuer; raise Asn1Error where the list cannot be judged by us."""
        start, end = self.entries
        if start == end:
            return None
        # Critical entry extensions change what entries mean (RFC 5280 §5.3): such a list is read whole. They are told by "critical TRUE"
        # with the tag of extnValue behind it; where a serial number happens to look like that, reading whole is right as well. So is an
        # indirect list whose maker forgot that certificateIssuer is critical.
        indirect = self.distribution_point is not None and self.distribution_point.indirect
        if (
            self._read
            or self.der.find(b"\x01\x01\xff\x04", start, end) >= 0
            or (indirect and self.der.find(_CERTIFICATE_ISSUER_DER, start, end) >= 0)
        ):
            if not self._read:
                self._read.update(_read_all(self.der, start, end, self.issuer))
            known = self._read.get((issuer.key, _octets_of(serial)))
            return None if known is None else self._timed(serial, *known)
        if not issuer.matches(self.issuer):
            return None
        return self._search(serial)

    def _search(self, serial: int) -> RevokedEntry | None:
        # The octets of the INTEGER, where a time follows it: an entry that is there is found, whatever stands around it.
        octets = _octets_of(serial)
        if len(octets) > 127:
            return None
        pattern = bytes((der.INTEGER, len(octets))) + octets
        start, end = self.entries
        found = self.der.find(pattern, start, end)
        while found >= 0:
            after = found + len(pattern)
            if after < end and self.der[after] in (der.UTC_TIME, der.GENERALIZED_TIME):
                try:
                    return self._entry(found, after, end, serial)
                except Asn1Error:
                    # Fail closed: it looks like an entry for this number.
                    return RevokedEntry(serial, None, "unspecified")
            found = self.der.find(pattern, found + 1, end)
        return None

    def _timed(self, serial: int, place: int, reason: str) -> RevokedEntry:
        try:
            return RevokedEntry(serial, der.time(self.der, (self.der[place], place, place + 2, place + 2 + self.der[place + 1])), reason)
        except Asn1Error:
            return RevokedEntry(serial, None, reason)

    def _entry(self, found: int, after: int, end: int, serial: int) -> RevokedEntry:
        size = self.der[after + 1]
        moment = der.time(self.der, (self.der[after], after, after + 2, after + 2 + size))
        reason = "unspecified"
        # The SEQUENCE that holds the entry says whether extensions follow.
        length = self.der[found - 1] if self.der[found - 2] == der.SEQUENCE else 0
        if found + length > after + 2 + size and found + length <= end:
            for _, _, first, last in der.split(self.der, after + 2 + size, found + length, 1):
                reason = _reason_of(_entry_extensions(self.der, first, last))
        return RevokedEntry(serial, moment, reason)


def load_crl(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> CertificateList:
    """Read a list. Never raises: what is wrong with it stands in `problems`. The entries are not read yet."""
    data = bytes(data)
    fingerprint = sha256(data).digest()
    if len(data) > limits.fetch_octets:
        return CertificateList(data[:0], fingerprint, problems=(_problem("crl-too-large", "the list is too large to be read"),))
    try:
        fields, problems = _read(data)
    except Asn1Error as error:
        return CertificateList(data, fingerprint, problems=(_problem("crl-unreadable", f"not a revocation list: {error}"),))
    return CertificateList(data, fingerprint, readable=True, problems=tuple(problems), **fields)


def _problem(code: str, message: str, rfc: str = "RFC 5280 §5.1") -> Reason:
    return Reason(code, "revocation", message, "ask the authority for another list", rfc)


def _read(data: bytes) -> tuple[dict[str, Any], list[Reason]]:
    problems: list[Reason] = []
    _, _, content, end = der.single(data, 0, len(data), der.SEQUENCE, "revocation list")
    outer = der.split(data, content, end, 3)
    if [part[0] for part in outer] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise Asn1Error("not a signed structure")
    tbs, algorithm, signature = outer
    parts = der.split(data, tbs[2], tbs[3], 7)
    version = 1
    if parts and parts[0][0] == der.INTEGER:
        version = der.integer(data, parts[0][2], parts[0][3]) + 1
        del parts[0]
    if len(parts) < 3 or parts[0][0] != der.SEQUENCE or parts[1][0] != der.SEQUENCE:
        raise Asn1Error("not the fields of a revocation list")
    fields: dict[str, Any] = {
        "tbs": data[tbs[1] : tbs[3]],
        "issuer": Name(data[parts[1][1] : parts[1][3]]),
        "this_update": der.time(data, parts[2]),
        "signature_algorithm": data[algorithm[1] : algorithm[3]],
        "signature": data[signature[2] + 1 : signature[3]],
    }
    # RFC 5280 §5.1.1.2: the algorithm outside is the one inside.
    if fields["signature_algorithm"] != data[parts[0][1] : parts[0][3]]:
        problems.append(_problem("signature-algorithm-differs", "the list names two signature algorithms", "RFC 5280 §5.1.1.2"))
    if data[signature[2] : signature[2] + 1] != b"\0":
        problems.append(_problem("signature-unreadable", "the signature is not a whole number of octets", "RFC 5280 §5.1.1.3"))
    rest = parts[3:]
    if rest and rest[0][0] in (der.UTC_TIME, der.GENERALIZED_TIME):
        fields["next_update"] = der.time(data, rest.pop(0))
    if rest and rest[0][0] == der.SEQUENCE:
        _, _, first, last = rest.pop(0)
        fields["entries"] = (first, last)
    if rest and rest[0][0] == 0xA0:
        if version != 2:
            problems.append(_problem("version-wrong", "extensions in a list of version 1", "RFC 5280 §5.1.2.1"))
        _read_extensions(data, rest.pop(0), fields, problems)
    if rest:
        raise Asn1Error("a field that does not belong there")
    return fields, problems


def _read_extensions(data: bytes, span: der.Span, fields: dict[str, Any], problems: list[Reason]) -> None:
    _, _, start, stop = der.single(data, span[2], span[3], der.SEQUENCE, "extensions")
    found = _entry_extensions(data, start, stop)
    fields["extensions"] = found
    seen = set()
    for extension in found:
        if extension.oid in seen:
            problems.append(_problem("extension-twice", f"the extension {extension.oid} stands there twice", "RFC 5280 §5.2"))
        seen.add(extension.oid)
        value = extension.value
        try:
            if extension.oid == "2.5.29.20":
                _, _, first, last = der.single(value, 0, len(value), der.INTEGER, "cRLNumber")
                fields["number"] = der.unsigned(value, first, last)
                # RFC 5280 §5.2.3: not critical.
                if extension.critical:
                    problems.append(_problem("crl-number", "cRLNumber is critical", "RFC 5280 §5.2.3"))
            elif extension.oid == "2.5.29.27":
                _, _, first, last = der.single(value, 0, len(value), der.INTEGER, "deltaCRLIndicator")
                fields["base_number"] = der.unsigned(value, first, last)
            elif extension.oid == "2.5.29.28":
                fields["distribution_point"] = _issuing_distribution_point(value)
            elif extension.oid == "2.5.29.35":
                fields["authority_key_id"] = extensions.authority_key_identifier(value)
            elif extension.critical:
                # RFC 5280 §5.2: a list with an unknown critical extension is not used.
                problems.append(_problem("unknown-critical-extension", f"the list has the extension {extension.oid}", "RFC 5280 §5.2"))
        except Asn1Error as error:
            problems.append(_problem("extension-unreadable", f"an extension of the list cannot be read: {error}", "RFC 5280 §5.2"))


def _issuing_distribution_point(value: bytes) -> IssuingDistributionPoint:
    _, _, content, end = der.single(value, 0, len(value), der.SEQUENCE, "issuingDistributionPoint")
    names: tuple[GeneralName, ...] = ()
    relative: bytes | None = None
    flags = {0x81: False, 0x82: False, 0x84: False, 0x85: False}
    reasons: frozenset[str] | None = None
    for tag, _, first, last in der.split(value, content, end, 6):
        if tag == 0xA0:
            names, relative = extensions.distribution_point_name(value, first, last)
        elif tag in flags:
            flags[tag] = der.boolean(value, first, last)
        elif tag == 0x83:
            reasons = extensions.reason_flags(value, first, last)
        else:
            raise Asn1Error("issuingDistributionPoint: an element that does not belong there")
    # RFC 5280 §5.2.5: at most one of the three kinds.
    if flags[0x81] + flags[0x82] + flags[0x85] > 1:
        raise Asn1Error("issuingDistributionPoint: for several kinds of certificates only")
    return IssuingDistributionPoint(names, relative, flags[0x81], flags[0x82], reasons, flags[0x84], flags[0x85])


def _entry_extensions(data: bytes, start: int, stop: int) -> tuple[Extension, ...]:
    found: list[Extension] = []
    for span in der.split(data, start, stop, 64):
        parts = der.split(data, span[2], span[3], 3)
        critical = False
        if len(parts) == 3 and parts[1][0] == der.BOOLEAN:
            critical = der.boolean(data, parts[1][2], parts[1][3])
            del parts[1]
        if span[0] != der.SEQUENCE or len(parts) != 2 or parts[0][0] != der.OID or parts[1][0] != der.OCTET_STRING:
            raise Asn1Error("an extension without type or value")
        found.append(Extension(der.oid(data[parts[0][2] : parts[0][3]]), critical, data[parts[1][2] : parts[1][3]]))
    return tuple(found)


def _reason_of(found: tuple[Extension, ...]) -> str:
    for extension in found:
        if extension.oid == _REASON_CODE:
            _, _, first, last = der.single(extension.value, 0, len(extension.value), der.ENUMERATED, "reasonCode")
            return _CRL_REASONS.get(der.integer(extension.value, first, last), "unspecified")
    return "unspecified"


def _octets_of(serial: int) -> bytes:
    """The contents of an INTEGER (X.690 §8.3)."""
    return serial.to_bytes((serial if serial >= 0 else ~serial).bit_length() // 8 + 1, "big", signed=True)


def _read_all(data: bytes, start: int, end: int, issuer: Name) -> dict[tuple[object, bytes], tuple[int, str]]:
    """RFC 5280 §5.3: every entry by its issuer and serial; raise Asn1Error for a critical extension that is not known.

    One loop without calls for each entry, as a list may hold 100,000; octets of extensions that came before are not read again.
    """
    current: object = issuer.key
    found: dict[tuple[object, bytes], tuple[int, str]] = {}
    extensions_seen: dict[bytes, tuple[object, str]] = {}
    place = start
    try:
        while place < end:
            if data[place] != der.SEQUENCE:
                raise Asn1Error("an entry that is no sequence")
            size = data[place + 1]
            content = place + 2
            if size >= 0x80:
                content, place = _long(data, place)
            else:
                place = content + size
            serial = content + 2
            behind = serial + data[content + 1]
            if data[content] != der.INTEGER or data[content + 1] >= 0x80 or behind == serial:
                raise Asn1Error("an entry without a serial number")
            lead = data[serial]
            if (not lead and behind - serial > 1 and data[serial + 1] < 0x80) or (lead == 0xFF and data[serial + 1] >= 0x80):
                raise Asn1Error("a serial number with octets too many")
            after = behind + 2 + data[behind + 1]
            if data[behind] not in (der.UTC_TIME, der.GENERALIZED_TIME) or after > place or place > end:
                raise Asn1Error("an entry without a time, or that runs past its list")
            reason = "unspecified"
            if after != place:
                octets = data[after:place]
                known = extensions_seen.get(octets)
                if known is None:
                    if len(extensions_seen) > _MOST_MEANINGS:
                        extensions_seen.clear()
                    known = extensions_seen[octets] = _meaning(octets)
                named, reason = known
                # RFC 5280 §5.3.3: it holds for this entry and those behind it.
                if named is not _UNNAMED:
                    current = named
            found[current, data[serial:behind]] = (behind, reason)
            if len(found) > _MOST_ENTRIES:
                raise Asn1Error(f"more than {_MOST_ENTRIES} entries")
    except IndexError:
        raise Asn1Error("the octets end within an entry") from None
    return found


_UNNAMED: Final = object()


def _long(data: bytes, place: int) -> tuple[int, int]:
    """Where the contents of an element with a length of several octets begin and end."""
    count = data[place + 1] & 0x7F
    size = int.from_bytes(data[place + 2 : place + 2 + count], "big")
    if not 0 < count <= 4 or size < 0x80:
        raise Asn1Error("a length that is not DER")
    return place + 2 + count, place + 2 + count + size


def _meaning(octets: bytes) -> tuple[object, str]:
    """What crlEntryExtensions say: the issuer (`_UNNAMED` where there is no word of it; None where it has no directory name), the reason."""
    _, _, first, last = der.single(octets, 0, len(octets), der.SEQUENCE, "crlEntryExtensions")
    named: object = _UNNAMED
    listed = _entry_extensions(octets, first, last)
    for extension in listed:
        # RFC 5280 §5.3: with an entry extension that is critical and unknown, the list is not used at all.
        if extension.critical and extension.oid not in _KNOWN_ENTRY_EXTENSIONS:
            raise Asn1Error(f"an entry with the unknown critical extension {extension.oid}")
        if extension.oid == _CERTIFICATE_ISSUER:
            names = extensions.alternative_names(extension.value)
            named = next((Name(value).key for kind, value in names if kind == 4), None)
    return named, _reason_of(listed)
