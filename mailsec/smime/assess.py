"""What may be believed of a message: the four answers for each signer, and one verdict (promise 4; RFC 8550, RFC 7281 §3).

The one invariant: `trusted` needs every answer of every signer of the innermost signed layer, nothing beside it, and no broken signature
around it; each no has a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from mailsec.interfaces import CryptoBackend, EvidenceRequest
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message
from mailsec.model.trust import Anchor
from mailsec.model.verdict import LayerReport, LayerResult, Reason, Revocation, SignerReport, SignerResult, SmimeResult, SmimeWord, Verdict
from mailsec.pki.anchors import AnchorSet, anchor_set
from mailsec.pki.budget import Budget
from mailsec.pki.build import CertificatePool
from mailsec.pki.cache import PathCache
from mailsec.pki.evidence import RevocationEvidence
from mailsec.pki.ocsp import OcspRules
from mailsec.pki.path import DEFAULT_OPTIONS, PathOptions, PathResult, validate
from mailsec.smime.identity import Author, matches_author, read_author
from mailsec.x509.certificate import Certificate, load_certificate, summary

__all__ = ["assess"]

_NOT_CHECKED = Reason(
    "revocation-not-checked", "revocation", "whether the certificate was revoked was not checked", "revocation is off, or has no source"
)

_OUTER_BROKEN = Reason(
    "outer-signature-broken", "integrity", "a signature around this one is broken", "it may have been sent on by somebody"
)
_OUTER_UNCHECKED = Reason(
    "outer-signature-unchecked", "parse", "a signature around this one cannot be checked", "ask who sent it on for another kind of key"
)

_OUTSIDE = Reason(
    "signature-outside-encryption",
    "policy",
    "it was signed after it was encrypted: who signed it need not have written it, nor have been able to read it",
    "ask the sender to sign first, and then encrypt",
    "RFC 8551 §3.7",
)


def assess(
    result: SmimeResult,
    message: Message | None,
    *,
    anchors: Sequence[Anchor] | AnchorSet,
    intermediates: Iterable[Certificate] | CertificatePool,
    at: datetime,
    backend: CryptoBackend,
    options: PathOptions = DEFAULT_OPTIONS,
    evidence: RevocationEvidence | None = None,
    rules: OcspRules | None = None,
    wanted: list[EvidenceRequest] | None = None,
    cache: PathCache | None = None,
    budget: Budget | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Verdict:
    """Judge what `unprotect_message` found. `message` is what carried it, for From; None for a CMS object without a message.

    `intermediates` are certificates at hand besides those of the message (a pool that is kept is read once); `at` is the instant of the
    judgement, never the time that the signer claims. `budget` is shared by all judgements of one message. With `options.check_revocation`,
    statuses are looked for in `evidence` and in the lists that the message brings (`rules` say how OCSP is judged); `cache` keeps paths from
    one message to the next. What might change the answer, were it there, is added to `wanted`.
    """
    if not result.layers:
        return _verdict(result, (), result.reasons, _word_unsigned(result.reasons), None)
    judge = _Judge(
        anchor_set(anchors),
        intermediates,
        at,
        backend,
        options,
        evidence,
        rules,
        [] if wanted is None else wanted,
        cache,
        budget or Budget(limits),
        None if message is None else read_author(message, limits),
    )
    signed_layers = [index for index, layer in enumerate(result.layers) if layer.type == "signed-data"]
    innermost = signed_layers[-1] if signed_layers else -1
    reports = [judge.layer(layer, index in signed_layers) for index, layer in enumerate(result.layers)]
    reasons: list[Reason] = [*result.reasons, *(reason for layer in result.layers for reason in layer.reasons)]
    if innermost < 0:
        return _verdict(result, reports, reasons, _word_unsigned(reasons), None)
    signers = reports[innermost].signers
    reasons += [reason for signer in signers for reason in signer.reasons]
    broken_outside = [index for index in signed_layers[:-1] if not _is_intact(reports[index])]
    unchecked = all(_is_unchecked(reports[index]) for index in broken_outside)
    if broken_outside:
        reasons.append(_OUTER_UNCHECKED if unchecked else _OUTER_BROKEN)
        reasons += [reason for index in broken_outside for signer in reports[index].signers for reason in signer.reasons]
    intact = _is_intact(reports[innermost])
    # RFC 8551 §3.7: nothing is known of the signer and the unencrypted contents. Attack: somebody else's encrypted text, signed by a thief.
    outside = any(layer.opened for layer in result.layers[innermost + 1 :])
    if outside:
        reasons.append(_OUTSIDE)
    trusted = (
        intact
        and not outside
        and not broken_outside
        and all(signer.trusted and not _forbids(signer.reasons) for signer in signers)
        and all(layer.covers_all and not _forbids(_of_layer(layer)) for layer in result.layers[: innermost + 1])
        and not _forbids(result.reasons)
    )
    wrong = not ((intact or _is_unchecked(reports[innermost])) and unchecked)
    word = _word(trusted, wrong, intact and not broken_outside, reports[innermost], reasons)
    return _verdict(result, reports, reasons, word, signers, trusted)


def _is_intact(layer: LayerReport) -> bool:
    return bool(layer.signers) and all(signer.intact for signer in layer.signers)


def _is_unchecked(layer: LayerReport) -> bool:
    """Not intact, but nothing shows that it was changed: its signers could not be read, or not computed with."""
    broken = [signer for signer in layer.signers if not signer.intact]
    return bool(broken) and not any(reason.stage == "integrity" for signer in broken for reason in signer.reasons)


def _forbids(reasons: Iterable[Reason]) -> bool:
    """Reasons that stand against trust though every answer is yes: a weak algorithm, something beside the layer, a limit."""
    return any(reason.stage in ("policy", "limits", "integrity") or reason.code == "ambiguous-structure" for reason in reasons)


def _of_layer(layer: LayerResult) -> Iterable[Reason]:
    """A cipher that the operator allowed as legacy says nothing against the signature within it."""
    return (reason for reason in layer.reasons if not (layer.opened and reason.code == "weak-cipher"))


def _shown_as_protected(
    result: SmimeResult, reasons: Collection[Reason], signature_valid: bool | None, chain_valid: bool | None, matches: bool | None
) -> bool:
    """RFC 9788 §4.4: fields inside are shown as protected only if who signed them is the From that they stand under."""
    differs = _OUTSIDE in reasons or any(reason.code == "protected-from-differs" for reason in result.reasons)
    return signature_valid is True and chain_valid is not False and matches is not False and not differs


def _word_unsigned(reasons: Sequence[Reason]) -> SmimeWord:
    if any(reason.stage == "limits" for reason in reasons):
        return SmimeWord.PERMERROR
    return SmimeWord.NEUTRAL if any(reason.stage == "parse" for reason in reasons) else SmimeWord.NONE


def _word(trusted: bool, wrong: bool, intact: bool, layer: LayerReport, reasons: Sequence[Reason]) -> SmimeWord:
    if trusted:
        return SmimeWord.PASS
    if any(reason.stage == "limits" for reason in reasons):
        return SmimeWord.PERMERROR
    if not intact:
        # RFC 7281 §3: neutral is for a signature that cannot be read or processed; one that can, and is wrong, fails.
        unread = not layer.signers and any(reason.stage == "parse" for reason in layer.reasons)
        return SmimeWord.NEUTRAL if unread or not wrong else SmimeWord.FAIL
    if any(signer.revocation is Revocation.UNKNOWN and signer.chains for signer in layer.signers):
        return SmimeWord.TEMPERROR
    return SmimeWord.POLICY


def _all(answers: Iterable[bool | None]) -> bool | None:
    """One no is a no; without one, one that cannot be said leaves it open."""
    found = list(answers)
    if any(answer is False for answer in found):
        return False
    return None if not found or any(answer is None for answer in found) else True


def _verdict(
    result: SmimeResult,
    reports: Sequence[LayerReport],
    reasons: Iterable[Reason],
    word: SmimeWord,
    signers: Sequence[SignerReport] | None,
    trusted: bool = False,
) -> Verdict:
    revocation = Revocation.worst(*(signer.revocation for signer in signers or ()))
    chain_valid = None if signers is None else _all(signer.chains for signer in signers)
    signature_valid = None if signers is None else bool(signers) and all(signer.intact for signer in signers)
    identity_match = None if signers is None else _all(signer.matches_from for signer in signers)
    reasons = tuple(dict.fromkeys(reasons))
    protected = _shown_as_protected(result, reasons, signature_valid, chain_valid, identity_match)
    return Verdict(
        word=word,
        signed=result.signed,
        encrypted=result.encrypted,
        signature_valid=signature_valid,
        chain_valid=False if revocation is Revocation.REVOKED else chain_valid,
        revocation=revocation,
        identity_match=identity_match,
        trusted=trusted,
        layers=tuple(reports),
        reasons=reasons,
        protected_headers=result.protected_fields if protected else {},
        text=result.text,
    )


class _Judge:
    """Asks the four questions, within one budget."""

    def __init__(
        self,
        anchors: AnchorSet,
        intermediates: Iterable[Certificate] | CertificatePool,
        at: datetime,
        backend: CryptoBackend,
        options: PathOptions,
        evidence: RevocationEvidence | None,
        rules: OcspRules | None,
        wanted: list[EvidenceRequest],
        cache: PathCache | None,
        budget: Budget,
        author: Author | None,
    ) -> None:
        self.anchors = anchors
        self.intermediates = intermediates if isinstance(intermediates, CertificatePool) else CertificatePool(intermediates)
        self.at = at
        self.backend = backend
        self.options = options
        self.evidence = evidence
        self.rules = rules
        self.wanted = wanted
        self.cache = cache
        self.budget = budget
        self.author = author

    def layer(self, layer: LayerResult, signed: bool) -> LayerReport:
        signers: tuple[SignerReport, ...] = ()
        if signed and layer.signers:
            # Certificates of the message may help to build a path; none of them is believed.
            pool = CertificatePool(map(load_certificate, layer.certificates), self.intermediates)
            evidence, cache = self.evidence, self.cache
            if self.options.check_revocation and layer.crls:
                # RFC 5652 §5.1: a message may bring lists. They are judged as all others are.
                evidence = (evidence or RevocationEvidence()).with_lists(layer.crls, limits=self.budget.limits)
                # Answers by these lists are of use to no other message: 4096 of them, with their lists, would fill the memory.
                cache = None
            signers = tuple(self.signer(signer, pool, evidence, cache) for signer in layer.signers)
        return LayerReport(layer.type, signers, layer.opened, layer.algorithm, layer.reasons)

    def signer(
        self, signer: SignerResult, pool: CertificatePool, evidence: RevocationEvidence | None, cache: PathCache | None
    ) -> SignerReport:
        certificate = None if signer.certificate is None else load_certificate(signer.certificate)
        chains: bool | None = None
        revocation = Revocation.NOT_CHECKED
        matched: bool | None = None
        reasons: list[Reason] = list(signer.reasons)
        path: PathResult | None = None
        if signer.intact and certificate is not None:
            # A broken signature proves nothing about anybody: its certificate is shown, and not judged.
            path = validate(
                certificate,
                anchors=self.anchors,
                intermediates=pool,
                at=self.at,
                purpose="email-sign",
                backend=self.backend,
                budget=self.budget,
                options=self.options,
                evidence=evidence,
                rules=self.rules,
                cache=cache,
            )
            self.wanted += path.missing
            # Without any anchor the question was not asked.
            chains = path.valid if self.anchors.anchors else None
            revocation = path.revocation
            reasons += path.reasons
            if path.valid and revocation is Revocation.NOT_CHECKED:
                reasons.append(_NOT_CHECKED)
            if self.author is not None:
                matched, why = matches_author(certificate, self.author)
                reasons += why
        return SignerReport(
            intact=signer.intact,
            chains=chains,
            revocation=revocation,
            matches_from=matched,
            certificate=None if certificate is None or not certificate.readable else summary(certificate),
            digest=signer.digest,
            signature=signer.signature,
            signing_time=signer.signing_time,
            reasons=tuple(reasons),
            chain=() if path is None else tuple(map(summary, path.chain)),
        )
