"""Whether a certificate of ours allows its key to be used for mail (to sign, or to open), and which certificates go with it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["chain_beside", "fits"]

_SIGNING = frozenset({"digitalSignature", "nonRepudiation", "contentCommitment"})
_DECRYPTING = frozenset({"keyEncipherment", "keyAgreement"})
_EMAIL_PROTECTION = frozenset({"1.3.6.1.5.5.7.3.4", "2.5.29.37.0"})


def fits(certificate: Certificate, usage: str, at: datetime) -> bool:
    """True where the certificate may be used like this now ("sign", "decrypt"); to decrypt, also when it has expired."""
    # RFC 8550 §4.4.2: a keyUsage that is there must allow it; RFC 8550 §4.4.4: an extendedKeyUsage must name emailProtection.
    if certificate.extended_key_usage is not None and not certificate.extended_key_usage & _EMAIL_PROTECTION:
        return False
    wanted = _DECRYPTING if usage == "decrypt" else _SIGNING
    if certificate.key_usage is not None and not certificate.key_usage & wanted:
        return False
    if usage == "decrypt":
        return True
    begins, ends = certificate.not_before, certificate.not_after
    return begins is not None and ends is not None and begins <= at <= ends


def chain_beside(certificate: Certificate, beside: Iterable[bytes]) -> tuple[bytes, ...]:
    """Certificates of the issuers among those (DER) that lie on the same token, nearest first, without the anchor."""
    known = [load_certificate(der) for der in beside]
    chain: list[bytes] = []
    below = certificate
    while len(chain) < 8 and not below.is_self_issued:
        issuer = next((one for one in known if one.readable and one.subject.der == below.issuer.der and one.der not in chain), None)
        if issuer is None or issuer.is_self_issued:
            break
        chain.append(issuer.der)
        below = issuer
    return tuple(chain)
