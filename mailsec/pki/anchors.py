"""Trust anchors (RFC 5280 §6.1.1 (d)), ready to be found by name.

Invariant: what is in an `AnchorSet` was chosen by somebody; nothing that a message carries ever gets in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from mailsec.algorithms.table import signature_mechanism
from mailsec.errors import MailsecError
from mailsec.interfaces import CryptoBackend
from mailsec.model.trust import Anchor
from mailsec.pki.signatures import unchecked_reason
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["AnchorSet", "anchor_set", "is_self_signed", "may_be_self_signed"]


class AnchorSet:
    """Anchors, found by subject name. Reading them costs once; keep the object."""

    __slots__ = ("anchors", "by_fingerprint", "by_name")

    def __init__(self, anchors: Iterable[Anchor]) -> None:
        self.anchors = tuple(anchors)
        self.by_name: dict[object, list[tuple[Anchor, Certificate]]] = {}
        self.by_fingerprint: dict[bytes, tuple[Anchor, Certificate]] = {}
        for anchor in self.anchors:
            certificate = load_certificate(anchor.der)
            if certificate.readable:
                self.by_name.setdefault(certificate.subject.key, []).append((anchor, certificate))
                self.by_fingerprint[certificate.fingerprint] = (anchor, certificate)


@lru_cache(maxsize=16)
def _kept_set(anchors: tuple[Anchor, ...]) -> AnchorSet:
    return AnchorSet(anchors)


def anchor_set(anchors: Sequence[Anchor] | AnchorSet) -> AnchorSet:
    """The set of these anchors; those of the last few tuples are kept."""
    if isinstance(anchors, AnchorSet):
        return anchors
    return _kept_set(tuple(anchors))


def may_be_self_signed(certificate: Certificate, backend: CryptoBackend) -> bool:
    """Whether it is self-signed, or issued in its own name with a key that nobody here computes with: then nothing below it is believed."""
    if is_self_signed(certificate, backend):
        return True
    if not certificate.readable or not certificate.is_self_issued:
        return False
    return unchecked_reason(certificate.signature_algorithm, certificate.spki, certificate.key, "", backend) is not None


def is_self_signed(certificate: Certificate, backend: CryptoBackend) -> bool:
    """RFC 5280 §3.2: issued in its own name, and its signature is its own key's."""
    if not certificate.readable or not certificate.is_self_issued:
        return False
    try:
        mechanism = signature_mechanism("", certificate.signature_algorithm, certificate.key_type)
    except MailsecError:
        return False
    return backend.verify(certificate.spki, mechanism, certificate.signature, certificate.tbs)
