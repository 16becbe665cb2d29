"""What an OCSP response says of a certificate, and whether it may say so (RFC 6960 §3.2, §4.2.2.2; RFC 9654; RFC 9919).

Invariant: an answer counts only where it is about this certificate and this issuer, current at the instant, and signed by the issuer or
by a responder whose certificate the issuer's own key signed for this purpose; everything else is "unknown", with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final

from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.asn1 import writer
from mailsec.errors import Asn1Error, MailsecError
from mailsec.interfaces import CryptoBackend
from mailsec.model.verdict import Reason, Revocation
from mailsec.pki.budget import Budget
from mailsec.pki.evidence import Status
from mailsec.pki.purpose import PURPOSES
from mailsec.pki.result import PathOptions
from mailsec.pki.signatures import algorithm_reason, is_signed_by
from mailsec.pki.steps import check_alone
from mailsec.x509 import der
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec.x509.ocsp import OcspResponse, SingleResponse, read_ocsp_response

__all__ = [
    "HASHES",
    "NOCHECK",
    "OcspRules",
    "certificate_id",
    "freshness",
    "is_about",
    "is_of_issuer",
    "issuer_hashes",
    "judge_ocsp",
    "ocsp_request",
    "responder_of",
]

NOCHECK: Final = "1.3.6.1.5.5.7.48.1.5"

HASHES: Final = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
"""Hashes of a CertID (RFC 6960 §4.1.1). It only names the certificate: SHA-1 does here, as RFC 5019 asked; RFC 9919 asks for SHA-256."""

_HASH_OIDS: Final = {name: oid for oid, name in HASHES.items()}

_REASONS: Final = {
    1: "keyCompromise",
    2: "cACompromise",
    3: "affiliationChanged",
    4: "superseded",
    5: "cessationOfOperation",
    6: "certificateHold",
}


@dataclass(frozen=True, slots=True)
class OcspRules:
    """How responses are judged."""

    profile: Profile = PROFILES["default"]
    skew: timedelta = timedelta(minutes=5)
    """How far clocks may differ."""
    age_without_end: timedelta = timedelta(hours=24)
    """How old an answer without nextUpdate may be (RFC 6960 §4.2.2.1: newer information is always available)."""
    nonce: bytes | None = None
    """What the request held; a response with another one is a replay."""
    check_responder: bool = True
    """False: a delegated responder needs the issuer's signature only (`--no-cert-checks`)."""
    grace: timedelta = timedelta()
    """How long after its nextUpdate an answer still counts (`PathOptions.evidence_grace`)."""
    responders: tuple[bytes, ...] = ()
    """DER of certificates that somebody chose as responders for everything (RFC 6960 §4.2.2.2 (1); NSS's default responder)."""


DEFAULT_RULES = OcspRules()

DelegateStatus = Callable[[Certificate], Revocation]
"""The revocation status of a delegated responder's certificate, by other means than OCSP."""


def judge_ocsp(
    octets: bytes,
    certificate: Certificate,
    issuer: Certificate,
    *,
    at: datetime,
    backend: CryptoBackend,
    budget: Budget,
    rules: OcspRules = DEFAULT_RULES,
    extra: Iterable[Certificate] = (),
    delegate_status: DelegateStatus | None = None,
) -> Status:
    """The status of `certificate` by one response. `extra` may hold the responder's certificate. Never raises for what is in it."""
    try:
        response = read_ocsp_response(octets, limits=budget.limits)
    except MailsecError as error:
        return _unknown("ocsp-unreadable", f"not an OCSP response: {error}", "RFC 6960 §4.2")
    # RFC 6960 §2.3: these are not signed, and mean nothing.
    if response.status != "successful":
        return _unknown("ocsp-error", f"the responder answered {response.status}", "RFC 6960 §2.3")
    if response.unknown_critical:
        return _unknown("unknown-critical-extension", "the response has a critical extension that is not known", "RFC 6960 §4.4")
    # RFC 9654 §2.1: the nonce of the request, where the response has one; a response without is from before the question.
    if rules.nonce is not None and response.nonce is not None and response.nonce != rules.nonce:
        return _unknown("ocsp-replayed", "the response is to another request", "RFC 9654 §2.1")
    about = [one for one in response.responses if is_about(one, certificate, issuer)]
    if not about:
        return _unknown("ocsp-other-certificate", "the response is about other certificates", "RFC 6960 §3.2 (1)")
    # Of several answers about one certificate that are current, "revoked" is the one that counts.
    single = min(about, key=lambda one: (freshness(one, at, rules) is not None, one.status != "revoked"))
    if single.unknown_critical:
        return _unknown("unknown-critical-extension", "the answer has a critical extension that is not known", "RFC 6960 §4.4")
    stale = freshness(single, at, rules)
    if stale is not None:
        return Status(Revocation.UNKNOWN, "ocsp", single.this_update, single.next_update, reasons=(stale,))
    responder = responder_of(
        response, issuer, at=at, backend=backend, budget=budget, rules=rules, extra=extra, delegate_status=delegate_status
    )
    if isinstance(responder, Reason):
        return Status(Revocation.UNKNOWN, "ocsp", single.this_update, single.next_update, reasons=(responder,))
    budget.believed.add(sha256(octets).digest())
    until = single.next_update or single.this_update + rules.age_without_end
    if single.status == "good":
        return Status(Revocation.GOOD, "ocsp", single.this_update, until)
    if single.status == "revoked":
        reason = _REASONS.get(single.reason or 0, "unspecified")
        return Status(Revocation.REVOKED, "ocsp", single.this_update, until, single.revoked_at, reason)
    return _unknown("ocsp-unknown", "the responder does not know the certificate", "RFC 6960 §2.2")


def _unknown(code: str, message: str, rfc: str) -> Status:
    return Status(Revocation.UNKNOWN, "ocsp", reasons=(Reason(code, "revocation", message, "ask the responder again, or use a list", rfc),))


def freshness(single: SingleResponse, at: datetime, rules: OcspRules) -> Reason | None:
    """RFC 6960 §3.2 (5), (6), §4.2.2.1: why an answer is not current at the instant; None where it is."""

    def note(code: str, message: str) -> Reason:
        return Reason(code, "revocation", message, "ask the responder again", "RFC 6960 §4.2.2.1")

    if single.this_update > at + rules.skew:
        return note("ocsp-not-yet-valid", f"the answer is from the future: {single.this_update:%Y-%m-%d %H:%M:%S} UTC")
    if single.next_update is not None:
        if single.next_update < single.this_update:
            return note("ocsp-stale", "the answer ends before it begins")
        if single.next_update < at - max(rules.skew, rules.grace):
            return note("ocsp-stale", f"the answer ended {single.next_update:%Y-%m-%d %H:%M:%S} UTC")
    elif single.this_update < at - rules.age_without_end:
        return note("ocsp-stale", f"the answer is of {single.this_update:%Y-%m-%d %H:%M:%S} UTC, and does not say how long it holds")
    return None


@lru_cache(maxsize=1024)
def issuer_hashes(name: bytes, spki: bytes, hash_name: str) -> tuple[bytes, bytes]:
    """RFC 6960 §4.1.1: of the issuer's name, and of its public key without tag, length and unused bits."""
    _, _, content, end = der.single(spki, 0, len(spki), der.SEQUENCE, "public key")
    _, _, start, stop = der.split(spki, content, end)[1]
    return hashlib.new(hash_name, name, usedforsecurity=False).digest(), hashlib.new(
        hash_name, spki[start + 1 : stop], usedforsecurity=False
    ).digest()


def is_of_issuer(single: SingleResponse, issuer: Certificate, name: bytes = b"") -> bool:
    """RFC 6960 §4.1.1: whether an answer is about a certificate of this issuer: both its name (as in `name`, DER, if given) and its key."""
    hash_name = HASHES.get(single.hash_algorithm)
    if hash_name is None:
        return False
    try:
        name_hash, key_hash = issuer_hashes(name or issuer.subject.der, issuer.spki, hash_name)
    except Asn1Error:
        return False
    return single.issuer_name_hash == name_hash and single.issuer_key_hash == key_hash


def is_about(single: SingleResponse, certificate: Certificate, issuer: Certificate) -> bool:
    """RFC 6960 §3.2 (1): whether an answer is about this certificate of this issuer."""
    return single.serial == certificate.serial and is_of_issuer(single, issuer, certificate.issuer.der)


def responder_of(
    response: OcspResponse,
    issuer: Certificate,
    *,
    at: datetime,
    backend: CryptoBackend,
    budget: Budget,
    rules: OcspRules = DEFAULT_RULES,
    extra: Iterable[Certificate] = (),
    delegate_status: DelegateStatus | None = None,
) -> Certificate | Reason:
    """The certificate of the responder that signed, where it may speak for `issuer`; else why not."""

    def note(code: str, message: str, rfc: str) -> Reason:
        return Reason(code, "revocation", message, "see which responder the authority names", rfc)

    def signed(signer: Certificate) -> bool:
        return bool(
            is_signed_by(
                response.fingerprint,
                response.tbs,
                response.signature_algorithm,
                response.signature,
                signer.spki,
                signer.key,
                backend,
                budget,
            )
        )

    wrong = note("ocsp-signature", "the signature of the response is not the responder's", "RFC 6960 §3.2 (2)")
    chosen = tuple(load_certificate(item) for item in rules.responders)
    # RFC 6960 §4.2.2.2 (1), (2): a responder that was chosen here, or the issuer itself.
    for candidate in (*chosen, issuer):
        if _is_named(response, candidate):
            weak = algorithm_reason(response.signature_algorithm, candidate.key, "the response", rules.profile)
            if weak is None and signed(candidate):
                return candidate
            wrong = weak or wrong
    # RFC 6960 §4.2.2.2 (3): a responder whose certificate the issuer signed, for this purpose and directly.
    named = False
    for candidate in (*map(load_certificate, response.certificates), *extra):
        if not candidate.readable or not _is_named(response, candidate) or candidate == issuer:
            continue
        named = True
        refused = _may_respond(candidate, issuer, at, rules, backend, budget)
        if refused is None:
            refused = algorithm_reason(response.signature_algorithm, candidate.key, "the response", rules.profile)
        if refused is not None:
            wrong = refused
            continue
        if not signed(candidate):
            continue
        # RFC 6960 §4.2.2.2.1: id-pkix-ocsp-nocheck, else its status is looked for elsewhere.
        if candidate.extension(NOCHECK) is None and delegate_status is not None and delegate_status(candidate) is Revocation.REVOKED:
            wrong = note("ocsp-responder-revoked", "the responder's certificate is revoked", "RFC 6960 §4.2.2.2.1")
            continue
        return candidate
    if not named and wrong.code == "ocsp-signature" and not any(_is_named(response, candidate) for candidate in (*chosen, issuer)):
        return note("ocsp-responder-not-found", "the responder's certificate is not in the response", "RFC 6960 §4.2.2.2")
    return wrong


def _is_named(response: OcspResponse, candidate: Certificate) -> bool:
    """RFC 6960 §4.2.1: whether ResponderID is this certificate's subject, or the SHA-1 of its key."""
    if response.responder_name is not None:
        return candidate.subject.matches(response.responder_name)
    try:
        return issuer_hashes(b"", candidate.spki, "sha1")[1] == response.responder_key_hash
    except Asn1Error:
        return False


def _may_respond(
    candidate: Certificate, issuer: Certificate, at: datetime, rules: OcspRules, backend: CryptoBackend, budget: Budget
) -> Reason | None:
    if not candidate.issuer.matches(issuer.subject):
        return Reason(
            "ocsp-unauthorised",
            "revocation",
            f"the responder {candidate.subject} was not appointed by {issuer.subject}",
            "choose it as a responder if you trust it for this authority",
            "RFC 6960 §4.2.2.2",
        )
    if not is_signed_by(
        candidate.fingerprint, candidate.tbs, candidate.signature_algorithm, candidate.signature, issuer.spki, issuer.key, backend, budget
    ):
        return Reason("ocsp-unauthorised", "revocation", "the responder's certificate is not signed by the issuer", "", "RFC 6960 §4.2.2.2")
    weak = algorithm_reason(candidate.signature_algorithm, issuer.key, "the responder's certificate", rules.profile)
    if weak is not None:
        return weak
    if not rules.check_responder:
        return None
    problems = check_alone(candidate, purpose=PURPOSES["ocsp"], at=at, options=PathOptions(profile=rules.profile))
    if problems:
        return Reason(problems[0].code, "revocation", f"the responder: {problems[0].message}", problems[0].hint, "RFC 6960 §4.2.2.2")
    return None


# -- asking -------------------------------------------------------------------------------------------------------------------


def certificate_id(certificate: Certificate, issuer: Certificate, hash_name: str = "sha1") -> bytes:
    """CertID (RFC 6960 §4.1.1), by default with SHA-1, which every responder knows. RFC 9919 §3.1.1: "sha256"."""
    name_hash, key_hash = issuer_hashes(certificate.issuer.der, issuer.spki, hash_name)
    algorithm = writer.sequence(writer.oid(_HASH_OIDS[hash_name]), writer.NULL)
    return writer.sequence(algorithm, writer.octet_string(name_hash), writer.octet_string(key_hash), writer.integer(certificate.serial))


def ocsp_request(certificate: Certificate, issuer: Certificate, *, nonce: bytes | None = None, hash_name: str = "sha1") -> bytes:
    """OCSPRequest (RFC 6960 §4.1.1) for one certificate; with a nonce of 32 octets where the answer must be fresh (RFC 9654 §2.1)."""
    requests = writer.sequence(writer.sequence(certificate_id(certificate, issuer, hash_name)))
    if nonce is None:
        return writer.sequence(writer.sequence(requests))
    extension = writer.sequence(writer.oid("1.3.6.1.5.5.7.48.1.2"), writer.octet_string(writer.octet_string(nonce)))
    return writer.sequence(writer.sequence(requests, writer.explicit(2, writer.sequence(extension))))
