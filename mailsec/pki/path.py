"""From a certificate to a trust anchor: `validate`, the one question that the other rooms ask of `pki`.

RFC 5280 §6.1 at an explicit instant, over certificates that were given; it fetches nothing, and says what it would need. Invariant: the
cost is bounded by the `Budget` of the message, whatever certificates a message carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from mailsec.errors import Asn1Error
from mailsec.interfaces import CryptoBackend, EvidenceRequest
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason, Revocation
from mailsec.pki.anchors import AnchorSet, anchor_set
from mailsec.pki.budget import Budget
from mailsec.pki.build import CertificatePool, Search
from mailsec.pki.cache import PathCache
from mailsec.pki.evidence import RevocationEvidence
from mailsec.pki.ocsp import OcspRules
from mailsec.pki.purpose import PURPOSES, Purpose
from mailsec.pki.result import DEFAULT_OPTIONS, CertificateCheck, PathOptions, PathResult
from mailsec.pki.revocation import RevocationCheck
from mailsec.pki.steps import check_alone, check_path
from mailsec.x509 import extensions
from mailsec.x509.certificate import Certificate

__all__ = ["DEFAULT_OPTIONS", "CertificateCheck", "PathOptions", "PathResult", "validate"]

_CA_ISSUERS = "1.3.6.1.5.5.7.48.2"


def validate(
    certificate: Certificate,
    *,
    anchors: Sequence[Anchor] | AnchorSet,
    intermediates: Iterable[Certificate] | CertificatePool,
    at: datetime,
    purpose: str | Purpose,
    backend: CryptoBackend,
    budget: Budget | None = None,
    options: PathOptions = DEFAULT_OPTIONS,
    evidence: RevocationEvidence | None = None,
    rules: OcspRules | None = None,
    cache: PathCache | None = None,
) -> PathResult:
    """Find a path from `certificate` to one of `anchors` that is valid for `purpose` at the instant `at`.

    `purpose` is a name of `pki.purpose.PURPOSES`. Certificates among `intermediates` are believed only where they are on a valid path.
    Of several paths the first valid one is the answer; where none is, the one with the fewest reasons against it. Never raises for what
    the certificates hold. With `options.check_revocation`, statuses are looked for in `evidence`; `rules` say how OCSP is judged.
    `cache` gives accepted answers again while they hold; it tells sets of anchors, options, evidence and rules apart as objects, so keep those.
    """
    asked = PURPOSES[purpose] if isinstance(purpose, str) else purpose
    trusted = anchor_set(anchors)
    if cache is not None:
        kept = cache.get(certificate, asked.name, (trusted, options, evidence, rules), at)
        if kept is not None:
            return kept
    result = _validate(certificate, trusted, intermediates, at, asked, backend, budget or Budget(), options, evidence, rules)
    if cache is not None:
        cache.put(result, asked.name, (trusted, options, evidence, rules), at)
    return result


def _validate(
    certificate: Certificate,
    trusted: AnchorSet,
    intermediates: Iterable[Certificate] | CertificatePool,
    at: datetime,
    asked: Purpose,
    backend: CryptoBackend,
    budget: Budget,
    options: PathOptions,
    evidence: RevocationEvidence | None,
    rules: OcspRules | None,
) -> PathResult:
    if not certificate.readable:
        return PathResult(False, (certificate,), checks=_lone(certificate, certificate.problems), reasons=certificate.problems)
    pool = intermediates if isinstance(intermediates, CertificatePool) else CertificatePool(intermediates)
    search = Search(trusted, pool, at, backend, budget)
    revocation: RevocationCheck | None = None
    if options.check_revocation:

        def signer_path(signer: Certificate, anchor: Anchor) -> PathResult:
            plain = replace(options, check_revocation=False, policies=DEFAULT_OPTIONS.policies, explicit_policy=False, max_depth=None)
            return validate(
                signer, anchors=(anchor,), intermediates=pool, at=at, purpose="crl", backend=backend, budget=budget, options=plain
            )

        revocation = RevocationCheck(
            evidence or RevocationEvidence(), pool, signer_path, at=at, options=options, backend=backend, budget=budget, rules=rules
        )
    best: PathResult | None = None
    for anchor, chain in search.paths(certificate):
        checks, policies = check_path(anchor, chain, purpose=asked, at=at, options=options, backend=backend, budget=budget)
        reasons = tuple(reason for check in checks for reason in check.reasons)
        ends = [link.not_after for link in chain if link.not_after is not None]
        result = PathResult(
            not reasons,
            chain,
            anchor,
            checks,
            reasons,
            policies=policies if not reasons else frozenset(),
            valid_until=min(ends, default=None),
        )
        if result.valid and revocation is not None:
            result = revocation.judge(result)
        if result.accepted:
            return result
        if best is None or _is_better(result, best):
            best = result
    if best is not None:
        return best
    return _no_path(certificate, trusted, search, asked, at, options, budget)


def _is_better(result: PathResult, other: PathResult) -> bool:
    if result.valid != other.valid:
        return result.valid
    if result.revocation is not other.revocation:
        return Revocation.worst(result.revocation, other.revocation) is other.revocation
    return len(result.reasons) < len(other.reasons)


def _lone(certificate: Certificate, reasons: tuple[Reason, ...]) -> tuple[CertificateCheck, ...]:
    return (CertificateCheck(certificate, "end-entity", reasons),)


def _no_path(
    certificate: Certificate, trusted: AnchorSet, search: Search, purpose: Purpose, at: datetime, options: PathOptions, budget: Budget
) -> PathResult:
    """No anchor was reached: say why, what else is wrong with the certificate, and what would help."""
    chain = search.dead_end or (certificate,)
    end = chain[-1]
    missing: tuple[EvidenceRequest, ...] = ()
    if not trusted.anchors:
        why = Reason(
            "no-anchor",
            "path",
            "no trust anchor was given",
            "name one, or mark an authority with `mailsec cert trust`",
            "RFC 5280 §6.1.1 (d)",
        )
    elif budget.exhausted:
        why = Reason(
            budget.exhausted.replace("_", "-"),
            "limits",
            f"the search for a path stopped at the limit {budget.exhausted}",
            "the message carries more certificates than it needs",
        )
    elif search.unchecked is not None:
        why = search.unchecked
    elif search.wrong_signature is not None:
        subject = search.wrong_signature.subject.text
        why = Reason(
            "signature-wrong",
            "path",
            f"{subject}: not signed by the authority that it names, {search.wrong_signature.issuer}",
            "the certificate was changed, or its issuer has a namesake",
            "RFC 5280 §6.1.3 (a)(1)",
        )
    elif end.is_self_issued:
        why = Reason(
            "untrusted-root",
            "path",
            f"the path ends at {end.subject}, which is not trusted",
            "if you know this authority, trust it with `mailsec cert trust`",
            "RFC 5280 §6.1.1 (d)",
        )
    elif search.too_long:
        why = Reason("path-length", "limits", f"no anchor within {budget.limits.path_length} certificates", "", "RFC 5280 §6.1")
    else:
        why = Reason(
            "issuer-not-found",
            "path",
            f"{end.subject or 'the certificate'}: the certificate of its issuer {end.issuer} was not found",
            "the sender should include it; or import it",
            "RFC 5280 §6.1.3 (a)(4)",
        )
        missing = (EvidenceRequest("issuer", end.der, urls=issuer_urls(end)),)
    reasons = (why, *check_alone(certificate, purpose=purpose, at=at, options=options))
    checks = tuple(
        CertificateCheck(link, "authority" if index else "end-entity", () if index else reasons) for index, link in enumerate(chain)
    )
    return PathResult(False, chain, None, checks, reasons, missing)


def issuer_urls(certificate: Certificate) -> tuple[str, ...]:
    """Where the certificate says that its issuer's is (RFC 5280 §4.2.2.1, id-ad-caIssuers)."""
    extension = certificate.extension("1.3.6.1.5.5.7.1.1")
    if extension is None:
        return ()
    try:
        return tuple(url for method, url in extensions.information_access(extension.value) if method == _CA_ISSUERS)
    except Asn1Error:
        return ()
