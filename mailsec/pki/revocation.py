"""The status of every certificate of a path, by all the evidence at hand; and what evidence is missing.

OCSP is asked before lists; "revoked" by any of them counts. Invariant: a certificate is "good" only by evidence that was judged at this
instant; where a list's signer has a path of its own, that path is valid, ends at the same anchor, and is not revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from mailsec.errors import Asn1Error
from mailsec.interfaces import CryptoBackend, EvidenceRequest
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason, Revocation
from mailsec.pki.budget import Budget
from mailsec.pki.build import CertificatePool
from mailsec.pki.crl import addresses, crl_status, distribution_points
from mailsec.pki.evidence import RevocationEvidence, Status
from mailsec.pki.ocsp import OcspRules, judge_ocsp
from mailsec.pki.result import CertificateCheck, PathOptions, PathResult
from mailsec.pki.signatures import inherit_parameters, is_signed_by
from mailsec.x509 import extensions
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec.x509.crl import CertificateList
from mailsec.x509.keys import key_facts

__all__ = ["RevocationCheck", "crl_urls", "names_source", "ocsp_urls"]

_OCSP = "1.3.6.1.5.5.7.48.1"
_INFORMATION_ACCESS = "1.3.6.1.5.5.7.1.1"
_LISTS = ("2.5.29.31", "2.5.29.46")
"""cRLDistributionPoints and freshestCRL."""
_DEPTH = 4
"""How often a signer of a list may need another list that somebody else signed."""
_NO_GRACE = timedelta()

FindPath = Callable[[Certificate, Anchor], PathResult]
"""Finds a path of a list's signer to this anchor, without looking at revocation."""


class RevocationCheck:
    """Judges one path after the other with the same evidence, at one instant."""

    __slots__ = ("_at", "_backend", "_budget", "_circles", "_evidence", "_find_path", "_options", "_pool", "_rules", "_vouched")

    def __init__(
        self,
        evidence: RevocationEvidence,
        pool: CertificatePool,
        find_path: FindPath,
        *,
        at: datetime,
        options: PathOptions,
        backend: CryptoBackend,
        budget: Budget,
        rules: OcspRules | None = None,
    ) -> None:
        self._evidence = evidence
        self._pool = pool
        self._find_path = find_path
        self._at = at
        self._options = options
        self._backend = backend
        self._budget = budget
        self._rules = rules or OcspRules(options.profile)
        self._vouched: dict[tuple[bytes, bytes, timedelta], bool] = {}
        self._circles = 0

    def judge(self, result: PathResult) -> PathResult:
        """The same result with the status of every certificate but the anchor, and the evidence that is missing."""
        if result.anchor is None:
            return result
        checks: list[CertificateCheck] = []
        missing: list[EvidenceRequest] = []
        ends = [result.valid_until] if result.valid_until is not None else []
        worst = Revocation.GOOD if len(result.chain) > 1 else Revocation.NOT_CHECKED
        for index, check in enumerate(result.checks):
            certificate = check.certificate
            if index == len(result.chain) - 1:
                checks.append(check)
                break
            above, grace = result.chain[index + 1 :], self._options.evidence_grace
            status, overdue = self.status(certificate, above, result.anchor), False
            if status.revocation is Revocation.UNKNOWN and grace > _NO_GRACE:
                late = self.status(certificate, above, result.anchor, grace=grace)
                overdue = late.revocation is not Revocation.UNKNOWN
                status = late if overdue else status
            if status.revocation is Revocation.UNKNOWN and self._is_sourceless(certificate, status):
                status = Status(Revocation.NOT_CHECKED)
            reasons = _reasons(certificate, status)
            if overdue:
                reasons = (*reasons, _overdue(certificate, status))
            checks.append(replace(check, revocation=status.revocation, reasons=(*check.reasons, *reasons)))
            worst = Revocation.worst(worst, status.revocation)
            if overdue or status.revocation in (Revocation.UNKNOWN, Revocation.NOT_CHECKED):
                issuer = above[0]
                missing.append(EvidenceRequest("ocsp", certificate.der, issuer.der, ocsp_urls(certificate)))
                missing.append(EvidenceRequest("crl", certificate.der, issuer.der, crl_urls(certificate, status.covered)))
            elif status.deltas:
                missing.append(EvidenceRequest("crl", certificate.der, above[0].der, status.deltas, optional=True))
            if status.next_update is not None:
                ends.append(status.next_update + grace if overdue else status.next_update)
        return replace(
            result,
            checks=tuple(checks),
            reasons=tuple(reason for check in checks for reason in check.reasons),
            missing=(*result.missing, *missing),
            revocation=worst,
            valid_until=min(ends, default=None),
        )

    def _is_sourceless(self, certificate: Certificate, status: Status) -> bool:
        # Nothing was passed over, nobody failed to answer, and its issuer, who signed what it says, told nobody where to ask.
        return (
            self._options.skip_sourceless
            and not status.reasons
            and certificate.fingerprint not in self._evidence.doubtful
            and certificate.issuer.key not in self._evidence.by_issuer
            and not names_source(certificate)
        )

    def status(
        self,
        certificate: Certificate,
        above: tuple[Certificate, ...],
        anchor: Anchor,
        busy: frozenset[bytes] = frozenset(),
        grace: timedelta = _NO_GRACE,
    ) -> Status:
        """The status of one certificate whose path goes on with `above`. `busy`: certificates whose status is being looked for.

        `grace`: how long after its nextUpdate evidence counts.
        """
        issuer = above[0]
        rules = replace(self._rules, grace=grace) if grace else self._rules
        notes: list[Reason] = []
        good: Status | None = None
        for octets in self._evidence.responses:
            status = judge_ocsp(
                octets,
                certificate,
                issuer,
                at=self._at,
                backend=self._backend,
                budget=self._budget,
                rules=rules,
                extra=self._pool.certificates,
                delegate_status=lambda delegate: (
                    self._by_lists(delegate, above, anchor, busy | {certificate.fingerprint}, grace).revocation
                ),
            )
            if status.revocation is Revocation.REVOKED:
                return status
            if status.revocation is Revocation.GOOD and good is None:
                good = status
            elif status.reasons and status.reasons[0].code != "ocsp-other-certificate":
                notes.extend(status.reasons)
        if good is not None and certificate.issuer.key not in self._evidence.by_issuer:
            return good
        by_lists = self._by_lists(certificate, above, anchor, busy, grace)
        if by_lists.revocation is Revocation.REVOKED or good is None:
            return replace(by_lists, reasons=(*notes, *by_lists.reasons))
        return good

    def _by_lists(
        self, certificate: Certificate, above: tuple[Certificate, ...], anchor: Anchor, busy: frozenset[bytes], grace: timedelta
    ) -> Status:
        busy = busy | {certificate.fingerprint}

        def candidates(crl: CertificateList) -> Iterable[tuple[Certificate, bytes]]:
            key = crl.issuer.key
            for index, link in enumerate(above):
                if link.subject.key == key:
                    yield link, _working_key(above[index:])
            for link in self._pool.named(key):
                if link not in above:
                    yield link, link.spki

        def vouches(signer: Certificate) -> bool:
            # RFC 5280 §6.3.3 (f): the path of the list's signer is valid and has the same anchor.
            return signer in above or (self._is_appointed(signer, certificate, above) and self._vouches(signer, above, anchor, busy, grace))

        return crl_status(
            certificate,
            self._evidence,
            candidates=candidates,
            vouches=vouches,
            at=self._at,
            profile=self._options.profile,
            backend=self._backend,
            budget=self._budget,
            grace=grace,
        )

    def _is_appointed(self, signer: Certificate, certificate: Certificate, above: tuple[Certificate, ...]) -> bool:
        """Whether an authority of the certificate's own path signed the signer's certificate: for lists in the issuer's name, the issuer
        itself (with any of its keys) or the authority above it.

        Attack: an authority elsewhere below the same anchor, limited to its own addresses, makes a namesake and clears whom others revoked.
        RFC 5280 §6.3.3 (f) asks for the same anchor only.
        """
        places = range(len(above))
        if signer.subject.matches(certificate.issuer):
            own = [index for index in places if above[index].subject.matches(certificate.issuer)]
            places = range(min(own[-1] + 2, len(above))) if own else range(0)
        for index in places:
            if not signer.issuer.matches(above[index].subject):
                continue
            spki = _working_key(above[index:])
            key = above[index].key if spki == above[index].spki else key_facts(spki)
            if is_signed_by(
                signer.fingerprint, signer.tbs, signer.signature_algorithm, signer.signature, spki, key, self._backend, self._budget
            ):
                return True
        return False

    def _vouches(
        self, signer: Certificate, above: tuple[Certificate, ...], anchor: Anchor, busy: frozenset[bytes], grace: timedelta
    ) -> bool:
        # A list that its own signer needs to be believed: the question goes round, and the answer is being looked for already.
        if signer.fingerprint in busy:
            self._circles += 1
            return True
        if len(busy) > _DEPTH:
            return False
        key = (signer.fingerprint, load_certificate(anchor.der).fingerprint, grace)
        known = self._vouched.get(key)
        if known is None:
            circles = self._circles
            found = self._find_path(signer, anchor)
            known = found.valid and all(
                link in above or self.status(link, found.chain[index + 1 :], anchor, busy, grace).revocation is Revocation.GOOD
                for index, link in enumerate(found.chain[:-1])
            )
            # An answer that leant on one still being looked for holds for this question only.
            if self._circles == circles:
                self._vouched[key] = known
        return known


def _working_key(above: tuple[Certificate, ...]) -> bytes:
    """The key of the first certificate; its parameters come from further up where it has none (RFC 5280 §6.1.4 (e))."""
    first = above[0]
    if first.key.type != "dsa" or first.key.parameters:
        return first.spki
    working = above[-1].spki
    for link in above[-2::-1]:
        working = inherit_parameters(link.spki, link.key, working)
    return working


def _reasons(certificate: Certificate, status: Status) -> tuple[Reason, ...]:
    name = certificate.subject.text or "the certificate"
    if status.revocation is Revocation.REVOKED:
        when = f" {status.revoked_at:%Y-%m-%d %H:%M:%S} UTC" if status.revoked_at is not None else ""
        why = f" ({status.reason})" if status.reason not in ("", "unspecified") else ""
        return (
            Reason("revoked", "revocation", f"{name}: revoked{when}{why}", "its holder needs a new certificate", "RFC 5280 §6.1.3 (a)(3)"),
        )
    if status.revocation is Revocation.UNKNOWN:
        reason = Reason(
            "revocation-unknown",
            "revocation",
            f"{name}: no evidence says whether it is revoked",
            "fetch its list, and give it with --crl",
            "RFC 5280 §6.3.3",
        )
        return (reason, *status.reasons[:3])
    return ()


def _overdue(certificate: Certificate, status: Status) -> Reason:
    ended = f" ended {status.next_update:%Y-%m-%d %H:%M:%S} UTC" if status.next_update is not None else " has ended"
    return Reason(
        "evidence-overdue",
        "revocation",
        f"{certificate.subject.text or 'the certificate'}: the newest evidence{ended}, and counts for a while",
        "see that its responder or its list can be reached",
        "RFC 5280 §6.3.3 (a)",
    )


def names_source(certificate: Certificate) -> bool:
    """Whether the certificate says that its status is told somewhere, in any way; also where that cannot be read."""
    if any(certificate.extension(oid) is not None for oid in _LISTS):
        return True
    extension = certificate.extension(_INFORMATION_ACCESS)
    if extension is None:
        return False
    try:
        return any(method == _OCSP for method, _ in extensions.information_access(extension.value))
    except Asn1Error:
        return True


def ocsp_urls(certificate: Certificate) -> tuple[str, ...]:
    """Where the certificate says that its status is told (RFC 5280 §4.2.2.1, id-ad-ocsp)."""
    extension = certificate.extension(_INFORMATION_ACCESS)
    if extension is None:
        return ()
    try:
        return tuple(url for method, url in extensions.information_access(extension.value) if method == _OCSP)
    except Asn1Error:
        return ()


def crl_urls(certificate: Certificate, covered: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Where the certificate says that its lists are (RFC 5280 §4.2.1.13), whatever the scheme, but for reasons that are `covered`."""
    return addresses(point for point in distribution_points(certificate) if not point.reasons <= covered)
