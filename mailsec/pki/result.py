"""What validation is asked, and what it answers: frozen values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.interfaces import EvidenceRequest
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason, Revocation
from mailsec.x509.certificate import Certificate
from mailsec.x509.extensions import ANY_POLICY

__all__ = ["CertificateCheck", "PathOptions", "PathResult"]


@dataclass(frozen=True, slots=True)
class PathOptions:
    """The inputs of RFC 5280 §6.1.1 (c) to (g), and what else a caller may ask for."""

    policies: frozenset[str] = frozenset({ANY_POLICY})
    """user-initial-policy-set."""
    explicit_policy: bool = False
    inhibit_mapping: bool = False
    inhibit_any_policy: bool = False
    max_depth: int | None = None
    """Intermediates that are not self-issued, at most; None: `limits.path_length` alone."""
    profile: Profile = PROFILES["default"]
    distrusted: Collection[bytes] = frozenset()
    """SHA-256 fingerprints of certificates that no path may hold."""
    check_revocation: bool = False
    """True: the status of every certificate of a path is looked for in the evidence; False: NOT_CHECKED."""
    skip_sourceless: bool = False
    """True: a certificate that names no source of its status, and about which nothing is at hand, is NOT_CHECKED; False: it is UNKNOWN."""
    evidence_grace: timedelta = timedelta()
    """How long after its nextUpdate evidence still counts, where none that is current says anything.

    For encrypting to somebody: a message need not wait because a responder is down for a weekend. A status that rests on such evidence comes
    with the reason "evidence-overdue", and what would be newer is still asked for (`PathResult.missing`). Who signed the evidence must be
    valid at the instant all the same, and a response without nextUpdate, which promises newer ones at any time, gets no grace.
    """


DEFAULT_OPTIONS = PathOptions()


@dataclass(frozen=True, slots=True)
class CertificateCheck:
    """One certificate of a path, and what is wrong with it there; nothing: every step of RFC 5280 §6.1 was passed."""

    certificate: Certificate
    role: str
    """ "end-entity", "authority" or "anchor"."""
    reasons: tuple[Reason, ...] = ()
    revocation: Revocation = Revocation.NOT_CHECKED


@dataclass(frozen=True, slots=True)
class PathResult:
    """The answer. `valid` is RFC 5280 §6.1 without revocation; `accepted` is the two together."""

    valid: bool
    chain: tuple[Certificate, ...] = ()
    """The end entity first, the anchor last; where no anchor was reached, as far as the search came."""
    anchor: Anchor | None = None
    checks: tuple[CertificateCheck, ...] = ()
    """One for each certificate of `chain`."""
    reasons: tuple[Reason, ...] = ()
    missing: tuple[EvidenceRequest, ...] = ()
    """Evidence that might change the answer: issuers that were not there, statuses that are not known."""
    revocation: Revocation = Revocation.NOT_CHECKED
    policies: frozenset[str] = field(default_factory=frozenset)
    """The user-constrained policy set (RFC 5280 §6.1.6, RFC 9618 §5.5)."""
    valid_until: datetime | None = None
    """The instant at which the first certificate or evidence of the answer ends."""

    @property
    def accepted(self) -> bool:
        """True where the path is valid and no evidence, or its absence where it was asked for, speaks against it."""
        return self.valid and self.revocation in (Revocation.GOOD, Revocation.NOT_CHECKED)
