"""What revocation lists say of a certificate (RFC 5280 §6.3.3): complete, partitioned, indirect and delta lists.

Invariant: "good" needs lists that are current, in scope, signed by an authority that may (on a valid path to the same anchor), and that
together cover every reason; whatever is less is "unknown". A list is searched only after its signature was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from mailsec.algorithms.profiles import Profile
from mailsec.errors import Asn1Error
from mailsec.interfaces import CryptoBackend
from mailsec.model.verdict import Reason, Revocation
from mailsec.pki.budget import Budget
from mailsec.pki.evidence import RevocationEvidence, Status
from mailsec.pki.signatures import algorithm_reason, is_signed_by
from mailsec.x509 import extensions
from mailsec.x509.certificate import Certificate
from mailsec.x509.crl import CertificateList, RevokedEntry
from mailsec.x509.extensions import ALL_REASONS, DistributionPoint, GeneralName
from mailsec.x509.keys import key_facts
from mailsec.x509.names import Name

__all__ = ["SKEW", "addresses", "crl_status", "distribution_points"]

_DIRECTORY = 4
_DISTRIBUTION_POINTS = "2.5.29.31"
_FRESHEST_CRL = "2.5.29.46"
_URI = 6
SKEW = timedelta(minutes=5)
"""How far the clock of an authority may be ahead of ours: lists that are made when they are asked for begin now."""
_NEVER = datetime.min.replace(tzinfo=UTC)

Candidates = Callable[[CertificateList], Iterable[tuple[Certificate, bytes]]]
"""Certificates that may have signed a list, by their names, and the key to compute with (RFC 5280 §6.1.4 (e) for DSA)."""
Vouches = Callable[[Certificate], bool]
"""Whether a certificate that signed a list is on a valid path to the same anchor, and not revoked itself (RFC 5280 §6.3.3 (f))."""


def distribution_points(certificate: Certificate | CertificateList, oid: str = _DISTRIBUTION_POINTS) -> tuple[DistributionPoint, ...]:
    """cRLDistributionPoints of a certificate (or freshestCRL, of a list too); none where the extension is absent or cannot be read."""
    extension = certificate.extension(oid)
    if extension is None:
        return ()
    try:
        return extensions.distribution_points(extension.value)
    except Asn1Error:
        return ()


def addresses(points: Iterable[DistributionPoint]) -> tuple[str, ...]:
    """The URLs of distribution points: the first of each, then the second of each …

    RFC 5280 §4.2.1.13: several names of one point lead to the same list.
    """
    of_each = [[value.decode("ascii", "replace") for kind, value in point.full_names if kind == _URI] for point in points]
    return tuple(dict.fromkeys(url for several in zip_longest(*of_each) for url in several if url))


def crl_status(
    certificate: Certificate,
    evidence: RevocationEvidence,
    *,
    candidates: Candidates,
    vouches: Vouches,
    at: datetime,
    profile: Profile,
    backend: CryptoBackend,
    budget: Budget,
    grace: timedelta = timedelta(),
) -> Status:
    """The status of `certificate` by the lists of `evidence`. `candidates` and `vouches` say who may have signed a list.

    `grace`: how long after its nextUpdate a list still counts.
    """
    # Lists that ended later than this are used.
    since = at - grace
    covered: set[str] = set()
    notes: list[Reason] = []
    updates: list[tuple[datetime, datetime]] = []
    deltas: list[str] = []
    signer = _Signer(candidates, vouches, profile, backend, budget)
    # RFC 5280 §6.3.3, end: lists that no distribution point names, but the issuer's own, are used as if one named the issuer.
    implied = DistributionPoint((GeneralName(_DIRECTORY, certificate.issuer.der),), None, ALL_REASONS, ())
    seen: set[tuple[bytes, frozenset[str]]] = set()
    for point in (*distribution_points(certificate), implied):
        for crl in _lists_of(point, certificate, evidence):
            # RFC 5280 §6.3.3 (d): the reasons that this list speaks of.
            reasons = point.reasons
            scope = crl.distribution_point
            if scope is not None and scope.reasons is not None:
                reasons = reasons & scope.reasons
            # RFC 5280 §6.3.3 (e): only if it adds something.
            if not reasons - covered or (crl.fingerprint, reasons) in seen:
                continue
            if not _in_scope(crl, point, certificate):
                continue
            seen.add((crl.fingerprint, reasons))
            why = _unusable(crl, at, since)
            if why is not None:
                notes.append(why)
                if why.code == "crl-stale" and (listed := _stays_revoked(certificate, crl, signer)) is not None:
                    return Status(Revocation.REVOKED, "crl", crl.this_update, None, listed.revoked_at, listed.reason)
                continue
            # RFC 5280 §6.3.3 (f), (g): who signed it.
            issuer = signer.of(crl)
            if issuer is None:
                notes.append(
                    _note("crl-issuer", f"no authority that may sign it vouches for the list of {crl.issuer}", "RFC 5280 §6.3.3 (f)")
                )
                continue
            budget.believed.add(crl.fingerprint)
            try:
                entry, until, has_delta = _entry(certificate, crl, evidence, issuer, signer, at, since)
            except Asn1Error as error:
                notes.append(_note("crl-unreadable", f"the list of {crl.issuer}: {error}", "RFC 5280 §5.3"))
                continue
            if not has_delta:
                freshest = (*distribution_points(certificate, _FRESHEST_CRL), *distribution_points(crl, _FRESHEST_CRL))
                deltas += addresses(freshest)
            if entry is not None:
                # A delta may take off the list what is on hold.
                wanted = tuple(deltas) if entry.reason == "certificateHold" else ()
                return Status(Revocation.REVOKED, "crl", crl.this_update, until, entry.revoked_at, entry.reason, deltas=wanted)
            # RFC 5280 §6.3.3 (l): these reasons are covered.
            covered |= reasons
            if crl.this_update is not None and until is not None:
                updates.append((crl.this_update, until))
            if covered >= ALL_REASONS:
                first, last = min(start for start, _ in updates), min(end for _, end in updates)
                return Status(Revocation.GOOD, "crl", first, last, covered=ALL_REASONS, deltas=tuple(dict.fromkeys(deltas)))
    if covered:
        notes.append(_note("crl-reasons", "the lists at hand do not speak of every reason", "RFC 5280 §6.3.3 (l)"))
    return Status(Revocation.UNKNOWN, reasons=tuple(notes), covered=frozenset(covered))


def _note(code: str, message: str, rfc: str) -> Reason:
    return Reason(code, "revocation", message, "fetch a newer list, and give it with --crl", rfc)


def _lists_of(point: DistributionPoint, certificate: Certificate, evidence: RevocationEvidence) -> Iterator[CertificateList]:
    """Complete lists of the issuers that the point names."""
    if point.crl_issuer:
        keys = [Name(value).key for kind, value in point.crl_issuer if kind == _DIRECTORY]
    else:
        keys = [certificate.issuer.key]
    for key in keys:
        lists = [crl for crl in evidence.by_issuer.get(key, ()) if crl.base_number is None]
        if len(lists) > 1:
            # The newest first: an older one that still holds, such as one that a message brings, does not know who was revoked since.
            lists.sort(key=_age, reverse=True)
        yield from lists


def _age(crl: CertificateList) -> tuple[datetime, int]:
    return crl.this_update or _NEVER, crl.number or 0


def _in_scope(crl: CertificateList, point: DistributionPoint, certificate: Certificate) -> bool:
    scope = crl.distribution_point
    # RFC 5280 §6.3.3 (b)(1): a list of another issuer than the certificate's says that it is indirect.
    if point.crl_issuer and (scope is None or not scope.indirect):
        return False
    if scope is None:
        return True
    # RFC 5280 §6.3.3 (b)(2)(i): the names of the two points meet; a point without a name is named by its cRLIssuer.
    ours = _names(scope.full_names, scope.relative_name, (crl.issuer,))
    if ours:
        bases = tuple(Name(value) for kind, value in point.crl_issuer if kind == _DIRECTORY) or (certificate.issuer,)
        theirs = _names(point.full_names, point.relative_name, bases)
        if not theirs:
            theirs = _names(point.crl_issuer, None, ())
        if not ours & theirs:
            return False
    # RFC 5280 §6.3.3 (b)(2)(ii) to (iv): for certificates of this kind.
    is_authority = certificate.basic_constraints is not None and certificate.basic_constraints.ca
    if scope.user_certificates and is_authority:
        return False
    if scope.authority_certificates and not is_authority:
        return False
    return not scope.attribute_certificates


def _names(full_names: tuple[GeneralName, ...], relative: bytes | None, bases: tuple[Name, ...]) -> set[object]:
    """Names of a distribution point, in a form in which they can be compared."""
    found: set[object] = {Name(value).key if kind == _DIRECTORY else (kind, value) for kind, value in full_names}
    if relative is not None:
        # RFC 5280 §4.2.1.13: one relative name more behind the name of the issuer of the list.
        header = b"\x31" + _length(len(relative))
        for base in bases:
            content = base.der[_header_size(base.der) :] + header + relative
            found.add(Name(b"\x30" + _length(len(content)) + content).key)
    return found


def _length(size: int) -> bytes:
    if size < 128:
        return bytes((size,))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((128 | len(octets),)) + octets


def _header_size(encoding: bytes) -> int:
    return 2 + (encoding[1] & 0x7F if encoding[1] >= 128 else 0)


def _unusable(crl: CertificateList, at: datetime, since: datetime) -> Reason | None:
    if crl.problems:
        problem = crl.problems[0]
        return Reason(problem.code, "revocation", f"the list of {crl.issuer}: {problem.message}", problem.hint, problem.rfc)
    # RFC 5280 §6.3.3 (a): a list that is not current is not used; one without nextUpdate is outside the profile (§5.1.2.5).
    if crl.this_update is None or crl.this_update > at + SKEW:
        return _note("crl-not-yet-valid", f"the list of {crl.issuer} is from the future", "RFC 5280 §5.1.2.4")
    if crl.next_update is None:
        return _note("crl-stale", f"the list of {crl.issuer} does not say when it ends", "RFC 5280 §5.1.2.5")
    if crl.next_update < since:
        return _note("crl-stale", f"the list of {crl.issuer} ended {crl.next_update:%Y-%m-%d %H:%M:%S} UTC", "RFC 5280 §6.3.3 (a)")
    # RFC 5280 §5.2.3: authorities number their lists.
    if crl.number is None and crl.extensions:
        return _note("crl-number", f"the list of {crl.issuer} has no number", "RFC 5280 §5.2.3")
    return None


def _stays_revoked(certificate: Certificate, crl: CertificateList, signer: _Signer) -> RevokedEntry | None:
    """The entry of a list that has ended, or does not say when it ends, by which the certificate is revoked for good.

    Such a list says nothing in favour of those whom it does not name; but nobody comes off a list except from a hold (RFC 5280 §5.3.1),
    and what an authority once signed about a key it knew of.
    """
    try:
        entry = crl.find(certificate.serial, certificate.issuer) if signer.of(crl) is not None else None
    except Asn1Error:
        return None
    return entry if entry is not None and entry.reason not in ("certificateHold", "removeFromCRL") else None


class _Signer:
    """Finds who signed a list, once for each list."""

    __slots__ = ("_backend", "_candidates", "_known", "_profile", "_vouches", "budget")

    def __init__(self, candidates: Candidates, vouches: Vouches, profile: Profile, backend: CryptoBackend, budget: Budget) -> None:
        self._candidates = candidates
        self._vouches = vouches
        self._profile = profile
        self._backend = backend
        self.budget = budget
        self._known: dict[bytes, tuple[Certificate, bytes] | None] = {}

    def of(self, crl: CertificateList) -> tuple[Certificate, bytes] | None:
        """The certificate whose key signed `crl`, and that key; None where there is none that may."""
        if crl.fingerprint not in self._known:
            self._known[crl.fingerprint] = next(
                (found for found in self._candidates(crl) if self.signed(crl, *found) and self._vouches(found[0])), None
            )
        return self._known[crl.fingerprint]

    def signed(self, crl: CertificateList, issuer: Certificate, spki: bytes) -> bool:
        """Whether this certificate may sign lists, and its key signed this one."""
        # RFC 5280 §6.3.3 (f): cRLSign, where keyUsage is present.
        if issuer.key_usage is not None and "cRLSign" not in issuer.key_usage:
            return False
        key = issuer.key if spki == issuer.spki else key_facts(spki)
        if algorithm_reason(crl.signature_algorithm, key, "the list", self._profile) is not None:
            return False
        return bool(is_signed_by(crl.fingerprint, crl.tbs, crl.signature_algorithm, crl.signature, spki, key, self._backend, self.budget))


def _entry(
    certificate: Certificate,
    crl: CertificateList,
    evidence: RevocationEvidence,
    issuer: tuple[Certificate, bytes],
    signer: _Signer,
    at: datetime,
    since: datetime,
) -> tuple[RevokedEntry | None, datetime | None, bool]:
    """The entry of the certificate in a complete list, or in the newest delta to it; when the answer ends; whether there was a delta."""
    until = crl.next_update
    newest: CertificateList | None = None
    for delta in evidence.by_issuer.get(crl.issuer.key, ()):
        if (
            delta.base_number is not None
            and _goes_with(delta, crl)
            and _unusable(delta, at, since) is None
            # RFC 5280 §6.3.3 (h): signed with the key of the complete list.
            and signer.signed(delta, *issuer)
            and (newest is None or (delta.number or 0) > (newest.number or 0))
        ):
            newest = delta
    if newest is not None:
        signer.budget.believed.add(newest.fingerprint)
        until = min(until, newest.next_update) if until and newest.next_update else until
        # RFC 5280 §6.3.3 (i): the delta is asked first, and (k) what it takes off the list is not on it.
        entry = newest.find(certificate.serial, certificate.issuer)
        if entry is not None:
            return (None if entry.reason == "removeFromCRL" else entry), until, True
    # RFC 5280 §6.3.3 (j): the complete list.
    entry = crl.find(certificate.serial, certificate.issuer)
    if entry is not None and entry.reason == "removeFromCRL":
        entry = None
    return entry, until, newest is not None


def _goes_with(delta: CertificateList, crl: CertificateList) -> bool:
    # RFC 5280 §6.3.3 (c): same scope, same key; §5.2.4: the list is not older than the delta's base, and older than the delta.
    return (
        delta.distribution_point == crl.distribution_point
        and delta.authority_key_id == crl.authority_key_id
        and crl.number is not None
        and delta.number is not None
        and delta.base_number is not None
        and delta.base_number <= crl.number < delta.number
    )
