"""Who signs for an authority: a key that it has appointed (RFC 6960 §4.2.2.2), or its own.

The one invariant: what a signer signs, a client that knows the authority's certificate believes; a key of which that is not so never signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mailsec.algorithms.profiles import PROFILES
from mailsec.algorithms.table import algorithm_identifier
from mailsec.errors import ConfigurationError, KeyUnavailable
from mailsec.interfaces import Gateway, KeyHandle
from mailsec.keys.software import SoftwareBackend
from mailsec.model.mechanism import SignatureMechanism
from mailsec.pki.budget import Budget
from mailsec.pki.ocsp import NOCHECK, issuer_hashes
from mailsec.pki.purpose import PURPOSES
from mailsec.pki.result import PathOptions
from mailsec.pki.signatures import is_signed_by
from mailsec.pki.steps import check_alone
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec_ocsp.authorities import Authority
from mailsec_ocsp.responses import basic_response

__all__ = ["Signer", "Signers"]

_PROFILE = PROFILES["default"]
_OCSP = PURPOSES["ocsp"]


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that may sign for an authority."""

    key: KeyHandle
    certificate: Certificate
    mechanism: SignatureMechanism
    key_hash: bytes
    """SHA-1 of its public key: how answers name it (RFC 6960 §4.2.1)."""
    appointed: bool
    """True where it is not the authority's own key: its certificate goes with each answer."""

    async def sign(self, tbs: bytes) -> bytes:
        """The whole OCSPResponse. Raise KeyUnavailable where the key is out."""
        signature = await self.key.sign(self.mechanism, tbs)
        return basic_response(tbs, algorithm_identifier(self.mechanism), signature, [self.certificate.der] if self.appointed else [])


class Signers:
    """Keys by name, judged once for each authority and certificate."""

    def __init__(self, gateway: Gateway, names: Sequence[str]) -> None:
        self._gateway = gateway
        self._names = tuple(names)
        self._judged: dict[tuple[bytes, bytes], str] = {}

    async def of(self, authority: Authority, at: datetime) -> Signer:
        """The first that may sign for `authority` now.

        Raise ConfigurationError where the keys are there and none of them may, KeyUnavailable where one is out that perhaps could.
        """
        reasons = []
        for name in self._names or (authority.name,):
            key = await self._gateway.key(name)
            if key is None:
                raise KeyUnavailable(f"there is no key called {name!r}", hint="`mailsec key list` shows what the database holds")
            if key.certificate is None:
                reasons.append(f"{name!r} has no certificate")
                continue
            certificate = load_certificate(key.certificate)
            reason = self._why_not(certificate, authority, at)
            if not reason:
                mechanism = _PROFILE.signature_for(key.key_type, key.bits)
                _, key_hash = issuer_hashes(b"", certificate.spki, "sha1")
                return Signer(key, certificate, mechanism, key_hash, certificate.spki != authority.certificate.spki)
            reasons.append(f"{name!r}: {reason}")
        raise ConfigurationError(
            f"nobody may sign OCSP answers for {authority.name!r}: " + "; ".join(reasons),
            hint='`mailsec cert issue --ca NAME --responder "OCSP"` makes a key with a certificate; [plugin.ocsp] signers names it',
        )

    def _why_not(self, certificate: Certificate, authority: Authority, at: datetime) -> str:
        """Why a client would not believe this signer; "" where it would."""
        # RFC 6960 §4.2.2.2 (2): the authority itself.
        if certificate.spki == authority.certificate.spki:
            return ""
        judged = self._judged.get((certificate.der, authority.certificate.der))
        if judged is None:
            judged = self._judged[certificate.der, authority.certificate.der] = _not_appointed(certificate, authority.certificate)
        if judged:
            return judged
        # RFC 6960 §4.2.2.2 (3): a certificate for this purpose, that holds now.
        problems = check_alone(certificate, purpose=_OCSP, at=at, options=PathOptions(profile=_PROFILE))
        return problems[0].message if problems else ""


def _not_appointed(certificate: Certificate, issuer: Certificate) -> str:
    right = certificate.issuer.matches(issuer.subject) and is_signed_by(
        certificate.fingerprint,
        certificate.tbs,
        certificate.signature_algorithm,
        certificate.signature,
        issuer.spki,
        issuer.key,
        SoftwareBackend(),
        Budget(),
    )
    if not right:
        return "its certificate was issued by somebody else"
    if certificate.extension(NOCHECK) is None:
        # RFC 6960 §4.2.2.2.1: without it, clients ask whether the responder's certificate is revoked: the responder, about itself.
        return "its certificate lacks id-pkix-ocsp-nocheck"
    return ""
