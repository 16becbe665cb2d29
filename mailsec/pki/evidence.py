"""Evidence about revocation as it was brought, found by issuer; and the status that is made of it.

Nothing in here is believed because it is here: `pki.crl` and `pki.ocsp` judge each list and each response.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mailsec.interfaces import Evidence
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.verdict import Reason, Revocation
from mailsec.x509.crl import CertificateList, load_crl

__all__ = ["RevocationEvidence", "Status"]


@dataclass(frozen=True, slots=True)
class Status:
    """The status of one certificate, and where it comes from."""

    revocation: Revocation
    source: str = ""
    """ "crl" or "ocsp"."""
    this_update: datetime | None = None
    next_update: datetime | None = None
    revoked_at: datetime | None = None
    reason: str = ""
    """Why it was revoked: "keyCompromise", "certificateHold" …"""
    reasons: tuple[Reason, ...] = ()
    """Why evidence was passed over, or what it says."""
    covered: frozenset[str] = frozenset()
    """Reasons of revocation that lists at hand speak of (RFC 5280 §6.3.2 (b), reasons_mask)."""
    deltas: tuple[str, ...] = ()
    """Where deltas to the lists are, of which none is at hand (RFC 5280 §5.2.6, §4.2.1.15)."""


class RevocationEvidence:
    """Lists and responses, each read once. `doubtful`: fingerprints of certificates about which somebody who should know did not answer."""

    __slots__ = ("by_issuer", "count", "doubtful", "responses")

    def __init__(
        self,
        crls: Iterable[bytes | CertificateList] = (),
        responses: Iterable[bytes] = (),
        *,
        doubtful: Iterable[bytes] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.by_issuer: dict[object, list[CertificateList]] = {}
        self.count = 0
        for item in crls:
            crl = item if isinstance(item, CertificateList) else load_crl(item, limits=limits)
            if crl.readable:
                self.by_issuer.setdefault(crl.issuer.key, []).append(crl)
            self.count += 1
        self.responses = tuple(responses)
        self.doubtful = frozenset(doubtful)

    def with_lists(self, crls: Iterable[bytes], *, limits: Limits = DEFAULT_LIMITS) -> RevocationEvidence:
        """The same evidence, and lists that a message brought."""
        known = [crl for lists in self.by_issuer.values() for crl in lists]
        return RevocationEvidence([*known, *crls], self.responses, doubtful=self.doubtful, limits=limits)

    @classmethod
    def of(cls, brought: Iterable[Evidence], *, limits: Limits = DEFAULT_LIMITS) -> RevocationEvidence:
        """From what sources brought (`interfaces.RevocationSource`); other kinds are passed over."""
        items = tuple(brought)
        return cls((item.data for item in items if item.kind == "crl"), (item.data for item in items if item.kind == "ocsp"), limits=limits)
