"""Signatures of authorities over certificates, CRLs and OCSP responses: whether they are right, and whether they are strong enough.

Invariant: a signature is believed only where the algorithm is in the table, fits the key, is accepted by the profile, and the backend
says yes; each question costs one check of the message's budget, once.
"""

from __future__ import annotations

from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.algorithms.public_keys import CURVES_READ
from mailsec.algorithms.table import signature_mechanism
from mailsec.errors import Asn1Error, CryptoError, LimitExceeded, MailsecError
from mailsec.interfaces import CryptoBackend
from mailsec.model.verdict import Reason
from mailsec.pki.budget import Budget
from mailsec.x509 import der
from mailsec.x509.certificate import Certificate
from mailsec.x509.keys import KeyFacts, has_close_primes, key_facts

__all__ = ["algorithm_reason", "inherit_parameters", "is_signed_by", "key_reason", "signature_reason", "unchecked_reason"]

_DEFAULT = PROFILES["default"]


def is_signed_by(
    identity: bytes, tbs: bytes, algorithm: bytes, signature: bytes, spki: bytes, key: KeyFacts, backend: CryptoBackend, budget: Budget
) -> bool | None:
    """Whether `signature` is the key's over `tbs`; None where the budget is spent. `identity` stands for tbs and signature in the memory."""
    known = budget.checked.get((identity, spki))
    if known is not None:
        return known
    try:
        mechanism = signature_mechanism("", algorithm, key.type)
    except MailsecError:
        budget.checked[identity, spki] = False
        return False
    # Others have the sizes that their standard gives them.
    if key.type in ("rsa", "rsa-pss", "dsa") and key.bits > budget.limits.rsa_bits:
        return False
    if not budget.spend_signature_check(key.type, key.bits):
        return None
    right = backend.verify(spki, mechanism, signature, tbs)
    budget.checked[identity, spki] = right
    return right


def signature_reason(right: bool | None, what: str, budget: Budget) -> Reason | None:
    """The reason that goes with an answer of `is_signed_by`."""
    if right:
        return None
    if right is None:
        return Reason(
            budget.exhausted.replace("_", "-"),
            "limits",
            f"no more signatures are checked for this message (limit {budget.exhausted})",
            "the message carries more certificates than it needs",
        )
    return Reason(
        "signature-wrong",
        "path",
        f"the signature of {what} is not its issuer's",
        "the certificate was changed, or its issuer has a namesake",
        "RFC 5280 §6.1.3 (a)(1)",
    )


def unchecked_reason(algorithm: bytes, spki: bytes, key: KeyFacts, what: str, backend: CryptoBackend) -> Reason | None:
    """Why nobody here can tell whether a signature is right that `is_signed_by` did not find right; None where it is wrong."""
    try:
        backend.check_key(spki, signature_mechanism("", algorithm, key.type))
    except LimitExceeded as error:
        code = f"limit-{error.limit.replace('_', '-')}"
        return Reason(code, "limits", f"the signature of {what} is by {error.message}", error.hint, "RFC 5280 §6.1.3 (a)(1)")
    except (CryptoError, Asn1Error) as error:
        message = f"the signature of {what} cannot be checked: {error.message}"
        return Reason("key-unsupported", "path", message, error.hint, "RFC 5280 §6.1.3 (a)(1)")
    return None


def algorithm_reason(algorithm: bytes, issuer: KeyFacts, what: str, profile: Profile = _DEFAULT) -> Reason | None:
    """Why a signature algorithm is not accepted from a key of this type and size; None where it is."""
    try:
        mechanism = signature_mechanism("", algorithm, issuer.type)
    except MailsecError as error:
        return Reason(
            "algorithm-unknown",
            "policy",
            f"the signature of {what}: {error}",
            "ask its issuer for another certificate",
            "RFC 5280 §4.1.1.2",
        )
    reason = profile.accepts(mechanism, issuer.type, issuer.bits)
    if reason is None:
        return None
    return Reason(reason.code, reason.stage, f"the signature of {what}: {reason.message}", reason.hint, reason.rfc)


_WEAKNESSES = {
    "rsa-exponent": "its public exponent is even or 1",
    "rsa-modulus-even": "its modulus is even",
    "rsa-small-factor": "its modulus has a small factor",
    "rsa-close-primes": "the two primes of its modulus lie so close together that it is easily factored (CVE-2022-26320)",
    "rsa-exponent-long": "its public exponent has more than 64 bits",
    "roca": "it was made by a library whose keys can be computed from their public half (CVE-2017-15361)",
}


def key_reason(certificate: Certificate, profile: Profile = _DEFAULT) -> Reason | None:
    """Why the key of a certificate is not accepted; None where it is."""
    key = certificate.key
    what = f"the key of {certificate.subject.text or 'the certificate'}"
    weaknesses = key.weaknesses or (("rsa-close-primes",) if has_close_primes(certificate.spki) else ())
    for weakness in weaknesses:
        return Reason("weak-key", "policy", f"{what}: {_WEAKNESSES[weakness]}", "its holder needs a new key", "RFC 8551 §4")
    if key.type == "ec:explicit":
        # RFC 5480 §2.1.1: only named curves; by explicit ones somebody else's public key can be made one's own (CVE-2020-0601).
        return Reason("key-explicit-curve", "policy", f"{what}: its curve is written out", "its holder needs a new key", "RFC 5480 §2.1.1")
    kind, _, curve = key.type.partition("unknown:")
    if curve:
        named = f"elliptic curve {curve} is" if kind == "ec:" else f"keys of algorithm {curve} are"
        return Reason(
            "key-unsupported", "policy", f"{what}: {named} not computed with", CURVES_READ if kind else "its holder needs another key"
        )
    if profile.allow_legacy:
        return None
    if key.type in ("rsa", "rsa-pss") and key.bits < profile.rsa_bits:
        return Reason("weak-key", "policy", f"{what}: RSA of {key.bits} bits", "its holder needs a larger key", "RFC 8551 §4")
    if key.type.startswith("ec:") and 0 < key.bits < 224:
        return Reason("weak-key", "policy", f"{what}: a curve of {key.bits} bits", "its holder needs a new key", "RFC 8551 §4")
    return None


def inherit_parameters(spki: bytes, key: KeyFacts, working: bytes) -> bytes:
    """RFC 5280 §6.1.4 (d), (e): a DSA key without parameters has those of the key that signed its certificate, `working`.

    Returns the SubjectPublicKeyInfo to compute with; `spki` itself where nothing is inherited.
    """
    if key.type != "dsa" or key.parameters or not working:
        return spki
    giver = key_facts(working)
    if giver.type != "dsa" or not giver.parameters:
        return spki
    _, _, content, end = der.single(working, 0, len(working), der.SEQUENCE, "public key")
    algorithm = der.split(working, content, end)[0]
    _, _, content, end = der.single(spki, 0, len(spki), der.SEQUENCE, "public key")
    key_bits = der.split(spki, content, end)[1]
    body = working[algorithm[1] : algorithm[3]] + spki[key_bits[1] : key_bits[3]]
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body
